package policy

import (
	"context"
	"path"
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
	noSuchMap = reply{"permanent", "PERM mailbag knows the maps relay-domains, transport, relay-recipients and held-domains"}
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
	// In brackets, so that no MX is looked up, an IPv6 address as it is. Postfix wants a port behind
	// them, not within.
	hop := "relay:[" + host.Name + "]"
	if host.Port != 0 {
		hop += host.String()[strings.LastIndexByte(host.String(), ':'):]
	}
	return found(hop)
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
