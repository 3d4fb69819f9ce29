package routes

import (
	"maps"
	"slices"
	"strings"

	"mailbag/meter"
)

// tlsPolicies are what the connections to next hops have to be, as smtp_tls_policy_maps has it. Mail of several accounts
// can share a connection, so the strictest of them decides. A suspended account's word counts too, for what was on its
// way before. Where nobody demands anything it is as main.cf says.
func tlsPolicies(d *meter.Directory) constantDatabase {
	levels := map[string]meter.TLSLevel{}
	for a := range d.Accounts() {
		if a.Mode != meter.Backup || !a.TLS.Mandatory() {
			continue
		}
		for _, hop := range hops(a) {
			if levels[hop] != meter.TLSVerify {
				levels[hop] = a.TLS
			}
		}
	}
	hops := slices.Sorted(maps.Keys(levels))
	return func(yield func(string, string) bool) {
		for _, hop := range hops {
			if !yield(hop, tlsPolicy(hop, levels[hop])) {
				return
			}
		}
	}
}

// hops are where mail of a backup account goes, as way has them.
func hops(a *meter.Account) []string {
	if a.Host == "" {
		return a.Domains
	}
	host, err := meter.ParseHost(a.Host)
	if err != nil {
		return nil // its mail goes nowhere
	}
	return []string{nextHop(host)}
}

func tlsPolicy(hop string, level meter.TLSLevel) string {
	if level == meter.TLSRequire {
		return "encrypt"
	}
	literal, named := strings.CutPrefix(hop, "[")
	if !named {
		// Hardly any certificate of a mail server has the mail's domain in it, so the name is that of the MX record.
		return "verify"
	}
	name, _, _ := strings.Cut(literal, "]")
	return "secure match=" + name
}
