package turnd

import (
	"errors"
	"time"

	"mailbag/meter"
	"mailbag/turnd/turn"
)

var (
	suspended = say(450, "4.2.1", "Service is suspended, please call your provider")
	deleted   = say(450, "4.7.1", "There is no such account any more")
)

// fetchedBy is how accounts of the other modes get their mail.
var fetchedBy = map[meter.Mode]string{
	meter.Backup: "delivered to your mail server as it comes",
	meter.ETRN:   "fetched by ETRN",
	meter.ATRN:   "fetched by ATRN",
	meter.POP3:   "fetched by POP3",
}

// atrn answers ATRN (RFC 2645, section 5.2.1). Where it is granted, the turn has the connection from then on.
func (c *session) atrn(args string) reply {
	if c.identity == nil {
		return say(530, "5.7.0", "Authentication required")
	}
	domains, err := parseDomains(args)
	if err != nil {
		return say(501, "5.5.4", "ATRN takes domains, with commas between them and no spaces")
	}
	a, refusal := c.mayReverse(domains)
	if a == nil {
		return refusal
	}
	reversal, err := c.server.cfg.Turns.Reverse(c.server.door.Context(), a, domains, c.asker())
	if err != nil {
		return c.notReversed(a, err)
	}
	c.send("ATRN", say(250, "2.0.0", "OK, now reversing the connection"))
	if err := c.flush(); err != nil {
		reversal.Cancel()
		c.log.Debug("connection lost", "error", err)
		return reply{close: true}
	}
	c.conn.SetDeadline(time.Time{})
	if err := reversal.Run(c.conn, c.in); err != nil {
		c.log.Debug("a turn ended", "account", a.Name, "error", err)
	}
	return reply{close: true}
}

// mayReverse finds the account as it is now, or says why it does not get its mail here.
func (c *session) mayReverse(domains []string) (*meter.Account, reply) {
	d := c.server.cfg.Accounts.Directory()
	if d == nil {
		return nil, tryLater
	}
	a := d.AccountByID(c.identity.Account.ID)
	name := c.identity.Account.Name
	switch {
	case a == nil:
		c.refused("ATRN", name, "there is no such account any more")
		return nil, deleted
	case a.Suspended:
		c.refused("ATRN", name, "the account is suspended")
		return nil, suspended
	case a.Mode != meter.ATRN:
		c.refused("ATRN", name, "the account's mode is "+string(a.Mode))
		return nil, say(450, "4.7.1", "Mail of this account is %s", fetchedBy[a.Mode])
	case len(a.Networks) > 0 && !a.Within(c.client):
		c.refused("ATRN", name, "the client is not in the account's networks")
		return nil, say(450, "4.7.1", "This account may not ask for its mail from your address")
	}
	for _, domain := range domains {
		if d.Domain(domain) != a {
			c.refused("ATRN", name, "a domain that is not the account's: "+domain)
			return nil, say(450, "4.7.1", "ATRN request refused, a domain is not yours")
		}
	}
	return a, reply{}
}

var tryLater = say(451, "4.3.0", "Unable to process ATRN request now, please try again later")

// notReversed is the reply where there is no turn to have. What became of a turn is in package turn's log.
func (c *session) notReversed(a *meter.Account, err error) reply {
	switch {
	case errors.Is(err, turn.ErrNothingWaits):
		return say(453, "4.2.0", "You have no mail")
	case errors.Is(err, turn.ErrOpen):
		return say(451, "4.3.2", "Your mail is being delivered already, please try again later")
	case errors.Is(err, turn.ErrNotDelivered):
		return say(451, "4.3.0", "Mail waits but is not handed over now, please try again later")
	case errors.Is(err, turn.ErrEnded):
		return say(451, "4.3.2", "Your provider has ended this, please try again later")
	case errors.Is(err, turn.ErrSuspended):
		return suspended
	case errors.Is(err, turn.ErrDeleted):
		return deleted
	case errors.Is(err, turn.ErrClosing):
		return shuttingDown
	}
	c.log.Warn("ATRN opened no turn", "account", a.Name, "error", err)
	if errors.Is(err, turn.ErrTooMany) {
		return say(451, "4.3.2", "Too many fetch their mail now, please try again later")
	}
	return tryLater
}
