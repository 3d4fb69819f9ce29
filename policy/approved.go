package policy

import (
	"sync"
	"time"
)

// answerTime is how long Postfix may take to answer an ETRN after it was approved: it asks flush(8) for
// the domain's mail and says 250.
const answerTime = 5 * time.Second

// approved are the domains for which an ETRN has just been approved. Postfix's own flush of a domain's mail
// would put all of it into the active queue at once, so held domains are not in fast_flush_domains
// (the lookup held-domains takes them out) and Postfix keeps no log of their mail that a flush could go by.
// But smtpd answers an ETRN for a domain that is not there with 459. For the moment that this takes the
// domain is there, and the flush finds an empty log.
type approved struct {
	mu      sync.Mutex
	domains map[string]time.Time // and until when
}

// add lets Postfix answer an ETRN for the domain. Those that are over go at the same time.
func (a *approved) add(domain string, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for d, until := range a.domains {
		if !now.Before(until) {
			delete(a.domains, d)
		}
	}
	if a.domains == nil {
		a.domains = map[string]time.Time{}
	}
	a.domains[domain] = now.Add(answerTime)
}

// has reports whether Postfix is about to answer an ETRN for the domain.
func (a *approved) has(domain string, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return now.Before(a.domains[domain])
}
