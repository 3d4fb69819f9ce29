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

// noting passes addresses on and keeps those to which the MTA lets no mail from outside.
func (d *desk) noting(deaf *[]meter.Address, addresses iter.Seq2[meter.Address, error]) iter.Seq2[meter.Address, error] {
	refuses := d.mta.Words().Refuses
	return func(yield func(meter.Address, error) bool) {
		for a, err := range addresses {
			if err == nil && refuses(a.Local) != "" {
				*deaf = append(*deaf, a)
			}
			if !yield(a, err) {
				return
			}
		}
	}
}

// pointOutDeaf warns of the addresses among these to which no mail comes from outside.
func (d *desk) pointOutDeaf(addresses ...meter.Address) {
	refuses := d.mta.Words().Refuses
	first, more := "", 0
	for _, a := range addresses {
		switch why := refuses(a.Local); {
		case why == "":
		case first == "":
			first = fmt.Sprintf("%s from outside is refused: %s", a, why)
		default:
			more++
		}
	}
	switch {
	case more > 0:
		d.note("warning: mail for %s; so is that for %s more", first, grouped(int64(more)))
	case first != "":
		d.note("warning: mail for %s", first)
	}
}
