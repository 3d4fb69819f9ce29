package meter

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// maxDomain is the longest domain name in octets without its trailing dot (RFC 1035, section 2.3.4).
const maxDomain = 253

// Domains returns the domains of all accounts.
func (l *Ledger) Domains(ctx context.Context) ([]string, error) {
	var all []string
	err := l.read(ctx, current, query{statement{sql: "SELECT name FROM domain ORDER BY name"}, func(r scanner) error {
		var name string
		err := r.Scan(&name)
		all = append(all, name)
		return err
	}})
	return all, err
}

// domains maps as browsers and mail clients do before a look-up (UTS 46, non-transitional) and
// refuses what DNS would (RFC 5891, section 4.4).
var domains = idna.New(
	idna.MapForLookup(),
	idna.Transitional(false),
	idna.StrictDomainName(true),
	idna.BidiRule(),
	idna.VerifyDNSLength(true),
)

// NormalizeDomain returns the form in which mailbag keeps and compares a domain name: lower-case
// A-labels (RFC 5890, section 2.3.2.1), without the one trailing dot that a name may have.
// The error says what is wrong with the name.
func NormalizeDomain(s string) (string, error) {
	name := strings.TrimSuffix(s, ".")
	switch {
	case name == "":
		return "", errors.New("the domain name is empty")
	case len(s) > 4*maxDomain:
		return "", fmt.Errorf("the domain name is longer than %d octets", maxDomain)
	case !utf8.ValidString(name):
		return "", fmt.Errorf("%q is not a domain name: it is not UTF-8", s)
	}
	if !plain(name) {
		mapped, err := domains.ToASCII(name)
		if err != nil {
			return "", fmt.Errorf("%q is not a domain name: %s", s, strings.TrimPrefix(err.Error(), "idna: "))
		}
		name = mapped
	}
	name = strings.ToLower(name)
	if err := checkLabels(name); err != nil {
		return "", fmt.Errorf("%q is not a domain name: %w", s, err)
	}
	return name, nil
}

// UnicodeDomain is a normalized domain in its own letters (U-labels, RFC 5890, section 2.3.2.1), for customers to read.
// One that would not be the same domain when it is given back stays as it is.
func UnicodeDomain(domain string) string {
	name, err := domains.ToUnicode(domain)
	if err != nil {
		return domain
	}
	if again, err := NormalizeDomain(name); err != nil || again != domain {
		return domain
	}
	return name
}

// plain reports whether s is ASCII without A-labels, which needs no mapping: nearly all of them,
// and the way on which a policy request is answered.
func plain(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= 0x80 {
			return false
		}
		if s[i] == '-' && i+1 < len(s) && s[i+1] == '-' {
			return false
		}
	}
	return true
}

// checkLabels applies RFC 1123, section 2.1, and refuses what reads as an IPv4 address.
func checkLabels(name string) error {
	if len(name) > maxDomain {
		return fmt.Errorf("it is longer than %d octets", maxDomain)
	}
	var label string
	for rest, more := name, true; more; {
		label, rest, more = strings.Cut(rest, ".")
		switch {
		case label == "":
			return errors.New("it has an empty label")
		case len(label) > 63:
			return errors.New("it has a label longer than 63 octets")
		case label[0] == '-' || label[len(label)-1] == '-':
			return errors.New("a label begins or ends with a hyphen")
		}
		for i := 0; i < len(label); i++ {
			c := label[i]
			if c != '-' && (c < 'a' || c > 'z') && (c < '0' || c > '9') {
				return fmt.Errorf("it has the character %q", c)
			}
		}
	}
	if strings.Trim(label, "0123456789") == "" {
		return errors.New("its last label is a number")
	}
	return nil
}
