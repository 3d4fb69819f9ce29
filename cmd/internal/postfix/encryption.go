package postfix

import (
	"fmt"
	"slices"
	"strings"

	"mailbag/cmd/internal/mta"
)

// encryption names what keeps the TLS of accounts from being what they demand.
func encryption(c configuration, w mta.Needs) []mta.Finding {
	relay, ok := c.service("relay/unix")
	if !ok || !w.RequireTLS && !w.VerifyTLS {
		return nil
	}
	var out []mta.Finding
	if own, ok := relay.options[tlsPolicyMaps]; ok && !strings.Contains(own, tables(w.Tables).tls()) {
		out = append(out, fault(fmt.Sprintf("master.cf: the service relay/unix overrides %s: mail of accounts that require TLS can leave there in the clear", tlsPolicyMaps),
			fmt.Sprintf("put into its -o %s what main.cf has", tlsPolicyMaps)))
	}
	if len(words(c.expanded["smtp_tls_per_site"])) > 0 {
		out = append(out, warning(fmt.Sprintf("smtp_tls_per_site is set, and Postfix does not look there once it has %s", tlsPolicyMaps),
			"move its entries to a table behind ours in "+tlsPolicyMaps))
	}
	if fallback := c.value(relay, "smtp_fallback_relay"); len(words(fallback)) > 0 {
		out = append(out, warning(fmt.Sprintf("smtp_fallback_relay = %s gets mail of accounts that require TLS too while their hosts are away, by what TLS its own name has", fallback),
			"add -o smtp_fallback_relay= to relay/unix in master.cf"))
	}
	// What authenticates servers is replaced where an account asks for less.
	level := c.value(relay, "smtp_tls_security_level")
	if w.RequireTLS && slices.Contains([]string{"dane", "dane-only", "fingerprint", "verify", "secure"}, level) {
		out = append(out, warning(fmt.Sprintf("smtp_tls_security_level = %s authenticates servers, but not those of accounts with --tls require: there any certificate will do", level),
			"set these accounts to --tls verify, or to --tls opportunistic, which leaves them to smtp_tls_security_level"))
	}
	if w.VerifyTLS && c.value(relay, "smtp_tls_CAfile") == "" && c.value(relay, "smtp_tls_CApath") == "" && c.value(relay, "tls_append_default_CA") != "yes" {
		out = append(out, fault("smtp_tls_CAfile and smtp_tls_CApath are empty, so Postfix trusts no certificate: mail of accounts with --tls verify is not delivered",
			"set smtp_tls_CAfile = /etc/ssl/certs/ca-certificates.crt"))
	}
	return out
}
