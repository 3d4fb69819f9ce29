package main

import (
	"fmt"
	"iter"
	"strings"

	"mailbag/meter"
)

// written are keys of addresses as people write them, and never nil.
func written(keys []string) []string {
	texts := make([]string, len(keys))
	for i, key := range keys {
		texts[i] = meter.Written(key)
	}
	return texts
}

// inOwnLetters are domains as customers read them.
func inOwnLetters(domains []string) []string {
	texts := make([]string, len(domains))
	for i, domain := range domains {
		texts[i] = meter.UnicodeDomain(domain)
	}
	return texts
}

// addressInOwnLetters is an address as customers read it.
func addressInOwnLetters(a meter.Address) string {
	return meter.Address{Local: a.Local, Domain: meter.UnicodeDomain(a.Domain)}.String()
}

// hostInOwnLetters is an account's host as customers read it, with its port.
func hostInOwnLetters(host string) string {
	h, err := meter.ParseHost(host)
	if err != nil {
		return host
	}
	h.Name = meter.UnicodeDomain(h.Name)
	return h.String()
}

// existing reads the address of something that is there: where it cannot be read otherwise, also without the quotes that
// it needs.
func existing(text string, there func(meter.Address) bool) (meter.Address, error) {
	a, err := meter.ParseAddress(text)
	if err == nil {
		return a, nil
	}
	at := strings.LastIndexByte(text, '@')
	domain, wrong := meter.NormalizeDomain(text[at+1:])
	if bare := (meter.Address{Local: text[:max(at, 0)], Domain: domain}); wrong == nil && there(bare) {
		return bare, nil
	}
	return a, err
}

// deaf says why Postfix refuses mail from outside for an address, by its usual settings; empty: it does not. It takes an @,
// % or ! in a local part for a route, quoted or not, and a hyphen in front for an option (postconf(5)).
func deaf(a meter.Address) string {
	if strings.HasPrefix(a.Local, "-") {
		return "it begins with a hyphen (see allow_min_user in postconf(5))"
	}
	if at := strings.IndexAny(a.Local, "@%!"); at >= 0 {
		return fmt.Sprintf("the %c in its local part means a route to Postfix (see allow_untrusted_routing in postconf(5))", a.Local[at])
	}
	return ""
}

// noting passes addresses on and keeps those that are deaf.
func noting(all *[]meter.Address, addresses iter.Seq2[meter.Address, error]) iter.Seq2[meter.Address, error] {
	return func(yield func(meter.Address, error) bool) {
		for a, err := range addresses {
			if err == nil && deaf(a) != "" {
				*all = append(*all, a)
			}
			if !yield(a, err) {
				return
			}
		}
	}
}

// pointOutDeaf warns of the addresses among these to which no mail comes from outside.
func (c *console) pointOutDeaf(addresses ...meter.Address) {
	first, more := "", 0
	for _, a := range addresses {
		switch why := deaf(a); {
		case why == "":
		case first == "":
			first = fmt.Sprintf("%s from outside is refused: %s", a, why)
		default:
			more++
		}
	}
	switch {
	case more > 0:
		c.note("warning: mail for %s; so is that for %s more", first, grouped(int64(more)))
	case first != "":
		c.note("warning: mail for %s", first)
	}
}
