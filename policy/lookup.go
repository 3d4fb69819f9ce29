package policy

import (
	"context"
	"path"
	"slices"
	"strconv"
	"strings"

	"mailbag/meter"
)

// A reply is what socketmap_table(5) lets a server say. TEMP makes Postfix try again later, PERM is an
// error of configuration: Postfix then defers too, and logs it as one.
type reply struct {
	result string // of metrics
	text   string
}

func found(value string) reply { return reply{"found", "OK " + value} }

var (
	notFound  = reply{"not_found", "NOTFOUND "}
	noLedger  = reply{"temporary", "TEMP the ledger of mailbag has not been read yet"}
	noSuchMap = reply{"permanent", "PERM mailbag knows the maps relay-domains, transport, relay-recipients, held-domains and tls-policy"}
)

// serveLookups is the session of one socketmap client.
func (p *Policy) serveLookups(_ context.Context, c *conn) error {
	for {
		frame, err := c.next(frameNetstring)
		if err != nil {
			return err
		}
		name, key, spaced := strings.Cut(string(netstringText(frame)), " ")
		if !spaced {
			return badInput("a lookup is not a map and a key")
		}
		r := p.lookup(name, key)
		counters := p.metrics.lookups[name]
		if counters == nil {
			counters = p.metrics.lookups["other"]
		}
		counters[r.result].Inc()
		c.out = appendNetstring(c.out[:0], r.text)
		if err := c.answer(c.out); err != nil {
			return err
		}
	}
}

// lookup answers from the last snapshot, so mail that is queued finds its way also while the ledger
// is unavailable.
func (p *Policy) lookup(name, key string) reply {
	var in func(*meter.Directory, string) reply
	switch name {
	case "relay-domains":
		in = relayDomain
	case "transport":
		in = p.transport
	case "relay-recipients":
		in = relayRecipient
	case "held-domains":
		in = p.heldDomain
	case "tls-policy":
		in = tlsPolicy
	default:
		return noSuchMap
	}
	directory := p.cfg.Accounts.Directory()
	if directory == nil {
		return noLedger
	}
	return in(directory, key)
}

// relayDomain says OK to a domain of ours. The value is not used by Postfix.
func relayDomain(d *meter.Directory, domain string) reply {
	a, _ := domainOf(d, domain)
	if a == nil {
		return notFound
	}
	return found(a.Name)
}

// heldDomain says OK to a domain whose mail waits for a turn. It is negated in fast_flush_domains, see approved.
func (p *Policy) heldDomain(d *meter.Directory, domain string) reply {
	a, domain := domainOf(d, domain)
	if a == nil || !a.Held() || p.approved.has(domain, p.now()) {
		return notFound
	}
	return found(a.Name)
}

// transport is the way that mail for an address takes (transport(5)). Postfix asks with the full
// address and with "*".
func (p *Policy) transport(d *meter.Directory, key string) reply {
	at := strings.LastIndexByte(key, '@')
	if at < 0 {
		return notFound
	}
	a, domain := domainOf(d, key[at+1:])
	switch {
	case a == nil:
		return notFound
	case a.Held():
		return found("mailbag-turn:unix:" + path.Join(p.cfg.TurnSockets, a.Name+".sock"))
	case a.Mode == meter.POP3:
		return found("mailbag-pop:unix:" + p.cfg.DeliverSocket)
	case a.Host == "":
		// With the next hop named, relayhost does not apply.
		return found("relay:" + domain)
	}
	host, err := meter.ParseHost(a.Host)
	if err != nil {
		return reply{"temporary", "TEMP the host of account " + a.Name + " cannot be read: mailbag account set " + a.Name + " --host"}
	}
	return found("relay:" + nextHop(host))
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

// tlsPolicy is what the connection to a next hop has to be (smtp_tls_policy_maps): Postfix asks with the hop as
// transport gives it, and, with none found for a domain, with its parents, which begin with a dot and are not ours.
// Mail of several accounts can share a connection, so the strictest of them decides. A suspended account's word
// counts too, for what was on its way before.
func tlsPolicy(d *meter.Directory, hop string) reply {
	level, host := meter.TLSOpportunistic, ""
	for a := range d.Accounts() {
		if a.Mode == meter.Backup && slices.Index(meter.TLSLevels, a.TLS) > slices.Index(meter.TLSLevels, level) && relayedTo(a, hop) {
			level, host = a.TLS, a.Host
		}
	}
	switch {
	case level == meter.TLSOpportunistic:
		return notFound // as main.cf says
	case level == meter.TLSRequire:
		return found("encrypt")
	case host == "":
		// Hardly any certificate of a mail server has the mail's domain in it, so the name is that of the MX record.
		return found("verify")
	}
	name, _, _ := strings.Cut(hop[1:], "]")
	return found("secure match=" + name)
}

// relayedTo reports whether mail of a backup account goes to a next hop.
func relayedTo(a *meter.Account, hop string) bool {
	if a.Host == "" {
		return slices.Contains(a.Domains, strings.ToLower(hop))
	}
	host, err := meter.ParseHost(a.Host)
	return err == nil && strings.EqualFold(nextHop(host), hop)
}

// relayRecipient says which recipients exist (relay_recipient_maps): Postfix asks with the address,
// with and without its extension, and with @domain.
func relayRecipient(d *meter.Directory, key string) reply {
	at := strings.LastIndexByte(key, '@')
	if at < 0 {
		return notFound
	}
	a, domain := domainOf(d, key[at+1:])
	if a == nil {
		return notFound
	}
	local := key[:at]
	if strings.HasPrefix(local, `"`) {
		if quoted, err := meter.ParseAddress(local + "@" + domain); err == nil {
			local = quoted.Local
		}
	}
	// For @domain the question is whether any recipient is taken, which an address that no list has
	// answers: an empty local part.
	if !d.Accepts(a, meter.Address{Local: local, Domain: domain}) {
		return notFound
	}
	return found(a.Name)
}
