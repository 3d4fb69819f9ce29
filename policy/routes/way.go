package routes

import (
	"path"
	"strconv"
	"strings"

	"golang.org/x/net/idna"
	"golang.org/x/text/cases"

	"mailbag/meter"
)

// Names of transports in master.cf.
const (
	turnTransport  = "mailbag-turn"
	popTransport   = "mailbag-pop"
	relayTransport = "relay"
	retryTransport = "retry" // error(8), which defers
)

// ways are the ways of all accounts' mail, by domain.
func ways(d *meter.Directory, way func(a *meter.Account, domain string) string) constantDatabase {
	return func(yield func(string, string) bool) {
		for a := range d.Accounts() {
			for _, domain := range a.Domains {
				its := way(a, domain)
				if !yield(domain, its) {
					return
				}
				if u := spelled(domain); u != domain && !yield(u, its) {
					return
				}
			}
		}
	}
}

// way is the one that mail for a domain of the account takes, as transport(5) has it.
func (s Sockets) way(a *meter.Account, domain string) string {
	switch {
	case a.Held():
		return turnTransport + ":unix:" + path.Join(s.Turns, a.Name+".sock")
	case a.Mode == meter.POP3:
		return popTransport + ":unix:" + s.Deliver
	case a.Host == "":
		// With the next hop named, relayhost does not apply.
		return relayTransport + ":" + domain
	}
	host, err := meter.ParseHost(a.Host)
	if err != nil {
		// smtpd says this to the sender, and to the log.
		return retryTransport + ":4.3.5 The host that takes this domain's mail cannot be read from the provider's settings"
	}
	return relayTransport + ":" + nextHop(host)
}

// nextHop is a host as smtp(8) has it: in brackets, so that no MX is looked up, an IPv6 address as it is.
// Postfix wants a port behind them, not within.
func nextHop(host meter.Host) string {
	hop := "[" + host.Name + "]"
	if host.Port != 0 {
		hop += ":" + strconv.Itoa(host.Port)
	}
	return hop
}

// spelled is the domain in the letters of its language (RFC 5890, section 2.3.2.1), as the MTA asks for it where a
// sender wrote it so. Exim folds the case of ASCII letters alone. Postfix folds the case of what it asks for, and does not fold keys. Where folding
// would change the domain it is another's name, such as that of strasse for straße: then it is only had as it stands.
func spelled(domain string) string {
	if !strings.Contains(domain, "xn--") {
		return domain // and most are done with
	}
	u, err := idna.Punycode.ToUnicode(domain)
	if err != nil || cases.Fold().String(u) != u {
		return domain
	}
	return u
}
