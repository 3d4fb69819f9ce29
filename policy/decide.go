package policy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"mailbag/meter"
)

// A decision is an access(5) action, and what to count it as.
type decision struct {
	kind   kind
	action string
}

// Replies have codes of their own (RFC 5321, section 4.2.3, and RFC 3463): REJECT and DEFER would become
// access_map_reject_code, 554, and access_map_defer_code, which operators set for other things.
var (
	dunno         = decision{passed, "DUNNO"}
	unavailable   = decision{deferred, "451 4.3.0 Mail cannot be accounted for at the moment, please try again later"}
	suspended     = decision{deferred, "450 4.2.1 Mail for this domain is suspended, please try again later"}
	unknownUser   = decision{rejected, "550 5.1.1 User unknown"}
	badRoute      = decision{rejected, "553 5.1.3 Address with routing is not accepted, write user@domain"}
	limitDeferred = decision{limited, "452 4.2.2 The recipient's mail limit is reached, please try again later"}
	limitRejected = decision{limited, "552 5.2.2 The recipient's mail limit is reached"}
	verify        = decision{verified, "reject_unverified_recipient"}
)

// decide answers one request. A state that nothing is said about passes.
func (p *Policy) decide(ctx context.Context, r *request) decision {
	switch string(r.state) {
	case "RCPT", "VRFY":
		return p.mayReceive(ctx, string(r.recipient))
	case "ETRN":
		return p.etrn(ctx, r)
	}
	return dunno
}

// mayReceive decides whether mail for an address is accepted.
func (p *Policy) mayReceive(ctx context.Context, address string) decision {
	directory := p.cfg.Accounts.Directory()
	if directory == nil {
		return unavailable // it may be ours
	}
	to := readRecipient(directory, address)
	a := to.account
	switch {
	case to.refused:
		return badRoute
	case a == nil:
		return dunno
	case p.cfg.Accounts.Available() != nil:
		return unavailable
	case a.Suspended:
		return suspended
	case !directory.Accepts(a, to.address):
		return unknownUser
	}
	if d := p.withinLimit(ctx, a); d != dunno {
		return d
	}
	if a.Recipients == meter.VerifiedRecipient {
		return verify
	}
	return dunno
}

// etrn decides over ETRN with the replies of RFC 1985, section 5.3. A domain that is nobody's here has one too: behind us
// Postfix would say 554, which clients of ETRN such as fetchmail take for a broken server.
func (p *Policy) etrn(ctx context.Context, r *request) decision {
	directory := p.cfg.Accounts.Directory()
	if directory == nil {
		return decision{deferred, "458 4.3.0 Queuing is not possible at the moment, please try again later"}
	}
	a, _ := domainOf(directory, string(r.etrnDomain))
	if a == nil {
		return decision{rejected, "459 4.7.1 Mail of this domain is not held here"}
	}
	if !mayFlush(a, string(r.clientAddress)) {
		return decision{rejected, "459 4.7.1 ETRN for this domain is not allowed from your address"}
	}
	if a.Suspended {
		return decision{rejected, "459 4.7.1 Service for this domain is suspended, please call your provider"}
	}
	if a.Mode == meter.Backup {
		return decision{flushed, "OK"} // Postfix flushes by itself
	}
	turns, client := p.cfg.Turns, string(r.clientAddress)
	open := turns != nil && a.Mode != meter.ETRN && turns.TurnOpen(ctx, a)
	switch {
	case open: // what waits is part of it
	case a.Mode != meter.ETRN:
		return decision{rejected, fmt.Sprintf("459 4.7.1 Mail of this domain is not fetched by ETRN but by %s", fetchedBy[a.Mode])}
	case turns == nil:
		return notOpened
	default:
		if err := turns.OpenTurn(ctx, a, client); err != nil {
			if n, ok := p.notOpened.Allow(); ok { // ETRN needs no log-in
				p.log.Warn("ETRN opened no turn", "account", a.Name, "client", client, "error", err, "more", n)
			}
			if errors.Is(err, ErrUnreachable) {
				return decision{deferred, "458 4.4.1 Your mail server cannot be reached, please try again later"}
			}
			return notOpened
		}
	}
	return decision{flushed, "OK"}
}

var notOpened = decision{deferred, "458 4.3.0 Delivery on ETRN is not possible now, please try again later"}

var fetchedBy = map[meter.Mode]string{meter.ATRN: "ATRN", meter.POP3: "POP3"}

// mayFlush reports whether a client, as Postfix names it, may say ETRN for the account.
func mayFlush(a *meter.Account, client string) bool {
	addr, err := netip.ParseAddr(client)
	return err == nil && a.MayFlush(addr)
}
