package policy

import (
	"context"
	"time"

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
	waitsTooMuch  = decision{full, "452 4.2.2 Too much mail waits for the recipient, please try again later"} // X.2.2: it is the recipient's bound, not the system's (X.3.1)
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

// patience is for how long the ledger is asked before a recipient or a message is decided over. Where nodes have no quorum nobody
// answers, and the MTA has only so many processes to wait with.
const patience = 10 * time.Second

// mayReceive decides whether mail for an address is accepted.
func (p *Policy) mayReceive(ctx context.Context, address string) decision {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
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
	}
	switch accepts, err := p.cfg.Lists.Accepts(ctx, directory, a, to.address); {
	case err != nil:
		return unavailable
	case !accepts:
		return unknownUser
	}
	if d := p.withinLimit(ctx, a); d != dunno {
		return d
	}
	if d := p.withinBound(ctx, a); d != dunno {
		return d
	}
	if a.Recipients == meter.VerifiedRecipient {
		return verify
	}
	return dunno
}
