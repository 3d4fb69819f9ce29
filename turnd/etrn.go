package turnd

import (
	"errors"
	"strings"

	"mailbag/meter"
	"mailbag/turnd/turn"
)

// etrn answers ETRN (RFC 1985, section 5.3).
func (c *session) etrn(args string) reply {
	if !c.greeted {
		return sayEHLO
	}
	n, err := parseNode(args)
	if err != nil {
		return say(501, "5.5.4", "ETRN takes a domain, @domain or #queue")
	}
	d := c.server.cfg.Accounts.Directory()
	if d == nil {
		return notQueued("4.3.0", n, "please try again later")
	}
	a, domains := c.queueOf(d, n)
	if a == nil || !c.mayAsk(a) {
		// RFC 1985, section 5.3, has no 530: a stranger would learn from it that the domain is one of ours.
		if a != nil && c.identity == nil && dialledAfterLogin(a) {
			c.refused("ETRN", a.Name, "the client has not logged in")
			if c.mayFlush(a) {
				return say(530, "5.7.0", "Authentication required")
			}
		}
		return notAllowed(n, "no mail is delivered on your word")
	}
	c.server.door.Settle(c)
	switch {
	case a.Suspended:
		c.refused("ETRN", a.Name, "the account is suspended")
		return notAllowed(n, "service is suspended, please call your provider")
	case a.Mode == meter.Backup:
		if err := c.server.cfg.Turns.Flush(c.server.door.Context(), a); err != nil {
			return c.notFlushed(a, n, err)
		}
		return say(250, "2.0.0", "OK, queuing for node %s started", n)
	case a.Mode != meter.ETRN && !dialledAfterLogin(a):
		c.refused("ETRN", a.Name, "the account's mode is "+string(a.Mode))
		return notAllowed(n, "its mail is "+fetchedBy[a.Mode])
	}
	return c.dial(a, domains, n)
}

// dial opens a turn to the account's host, which takes along what waits for its other domains. What costs something is asked
// only where a turn comes about: ETRN needs no log-in.
func (c *session) dial(a *meter.Account, domains []string, n node) reply {
	turns := c.server.cfg.Turns
	if turns.Open(a.Name) {
		return say(252, "2.0.0", "OK, pending messages for node %s started", n)
	}
	nothing := say(251, "2.0.0", "OK, no messages waiting for node %s", n)
	waits, err := turns.Asked(c.server.door.Context(), a, domains)
	switch {
	case err != nil:
		return c.notFlushed(a, n, err)
	case !waits:
		return nothing
	}
	err = turns.Dial(c.server.door.Context(), a, c.asker())
	switch {
	case errors.Is(err, turn.ErrNothingWaits):
		return nothing
	case errors.Is(err, turn.ErrOpen):
		return say(252, "2.0.0", "OK, pending messages for node %s started", n)
	case err != nil:
		return c.notFlushed(a, n, err)
	}
	w, err := turns.Waiting(c.server.door.Context(), a, domains)
	if err != nil { // it has begun all the same
		return say(252, "2.0.0", "OK, pending messages for node %s started", n)
	}
	return say(253, "2.0.0", "OK, %d pending messages for node %s started", w.Messages, n)
}

// queueOf finds the account that a node means, and which of its domains; none stands for all.
func (c *session) queueOf(d *meter.Directory, n node) (*meter.Account, []string) {
	switch n.option {
	case '#':
		return d.Account(n.name), nil
	case '@':
		return c.queueBelow(d, n.name)
	}
	return d.Domain(n.name), []string{n.name}
}

// queueBelow finds the account that has a domain and, maybe, some below it. Where the client may not ask
// for that account, or the domain is nobody's here, it is one that has domains below it and for which it may.
func (c *session) queueBelow(d *meter.Directory, domain string) (*meter.Account, []string) {
	a := d.Domain(domain)
	if a == nil || !c.mayAsk(a) {
		for other := range d.Accounts() {
			if len(below(other, domain)) > 0 && c.mayAsk(other) {
				a = other
				break
			}
		}
	}
	if a == nil {
		return nil, nil
	}
	return a, below(a, domain)
}

// below are the account's domains at or below a domain.
func below(a *meter.Account, domain string) []string {
	var domains []string
	for _, name := range a.Domains {
		if name == domain || strings.HasSuffix(name, "."+domain) {
			domains = append(domains, name)
		}
	}
	return domains
}

// mayAsk reports whether the client may have the account's mail delivered: an atrn account by its log-in,
// within its networks if it has any, the others by their networks, which no log-in replaces.
func (c *session) mayAsk(a *meter.Account) bool {
	if a.Mode == meter.ATRN {
		return c.identity != nil && c.identity.Account.ID == a.ID && (len(a.Networks) == 0 || a.Within(c.client))
	}
	return c.mayFlush(a)
}

// mayFlush goes by the client's address. That of this machine is worth something only where the client is here itself.
func (c *session) mayFlush(a *meter.Account) bool {
	return a.Within(c.client) || c.local && a.MayFlush(c.client)
}

// dialledAfterLogin reports whether the account fetches by ATRN and has a host for ETRN besides.
func dialledAfterLogin(a *meter.Account) bool { return a.Mode == meter.ATRN && a.Host != "" }

// notFlushed is the reply where nothing was begun. What became of a turn is in package turn's log.
func (c *session) notFlushed(a *meter.Account, n node, err error) reply {
	switch {
	case errors.Is(err, turn.ErrClosing):
		return shuttingDown
	case errors.Is(err, turn.ErrUnreachable):
		return notQueued("4.4.1", n, "your mail server cannot be reached")
	case errors.Is(err, turn.ErrSelf):
		return notQueued("4.4.6", n, "your mail server's address is ours")
	}
	c.log.Warn("ETRN opened no turn", "account", a.Name, "error", err)
	if errors.Is(err, turn.ErrTooMany) {
		return notQueued("4.3.2", n, "too many fetch their mail now, please try again later")
	}
	return notQueued("4.3.0", n, "please try again later")
}

func notQueued(status string, n node, reason string) reply {
	return say(458, status, "Unable to queue messages for node %s, %s", n, reason)
}

func notAllowed(n node, reason string) reply {
	return say(459, "4.7.1", "Node %s not allowed: %s", n, reason)
}
