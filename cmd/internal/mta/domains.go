package mta

import (
	"strings"

	"mailbag/meter"
)

// Domains are whose mail is looked for in a queue, by their A-labels.
type Domains map[string]bool

// NewDomains are these.
func NewDomains(domains ...string) Domains {
	all := Domains{}
	for _, domain := range domains {
		all[domain] = true
	}
	return all
}

// Has reports whether the address is in one of the domains.
func (d Domains) Has(address string) bool {
	domain := address[strings.LastIndexByte(address, '@')+1:]
	if d[domain] {
		return true
	}
	domain, err := meter.NormalizeDomain(domain)
	return err == nil && d[domain]
}

// Count is how many of a message's recipients are in the domains.
func (d Domains) Count(e Entry) int {
	n := 0
	for _, r := range e.Recipients {
		if d.Has(r.Address) {
			n++
		}
	}
	return n
}
