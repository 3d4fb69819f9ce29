package postfix

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"time"

	"mailbag/cmd/internal/mta"
)

// All of the wiring refers to mailbag-policyd by three lines of main.cf that are ours, a macro and two restriction
// classes. Where it cannot be had for longer than a restart takes, mailbag stands aside: these lines then say what
// Postfix can do by itself. Mail of the accounts is put off, others' mail goes on, and nothing else is touched.
const (
	recipientClass = "mailbag_recipients"
	etrnClass      = "mailbag_etrn"
	milterMacro    = "mailbag_milter"
)

const (
	// A restart within four seconds is bridged, also where nobody holds the socket for it, and a daemon that hangs holds
	// up the accounts' mail for half a minute. The reply by default speaks of a server configuration problem.
	policyCheck = "check_policy_service { unix:" + PolicySocket +
		", timeout=5s, try_limit=5, retry_delay=1s, { default_action=451 4.3.0 Temporary failure, try again later } }"
	// A turn is opened before the answer, which takes the time to reach the customer's server.
	etrnCheck = "check_policy_service { unix:" + PolicySocket +
		", timeout=100s, try_limit=2, retry_delay=4s, { default_action=458 4.3.0 Temporary failure, try again later } }"
	// A tap that cannot be reached defers the mail, whatever milter_default_action says: nothing passes unmetered.
	// Protocol 6 is what the tap speaks, whatever milter_protocol says. All mail waits for it, so one that hangs is
	// given up soon; only the commit at the end of a message may take its time.
	milterTap = "{ unix:" + MilterSocket +
		", default_action=tempfail, protocol=6, connect_timeout=5s, command_timeout=10s, content_timeout=30s }"
)

const (
	putOffOpen  = "check_recipient_access static:{451 4.3.0 Mail for this domain is put off since "
	putOffClose = "}"
	noTurns     = "check_etrn_access static:{458 4.3.0 No turns at the moment, try again later}"
)

// stance are the lines that refer to mailbag-policyd, or, since mailbag stands aside, do not.
func stance(aside time.Time) []parameter {
	recipients, etrn, milter := policyCheck, etrnCheck, milterTap
	if !aside.IsZero() {
		recipients, etrn, milter = putOffOpen+aside.UTC().Format(time.RFC3339)+putOffClose, noTurns, ""
	}
	return []parameter{own(recipientClass, recipients), own(etrnClass, etrn), own(milterMacro, milter)}
}

// aside is since when mailbag stands aside; zero: it does not, or is not wired.
func (c configuration) aside() time.Time {
	since, found := strings.CutPrefix(c.explicit[recipientClass], putOffOpen)
	at, err := time.Parse(time.RFC3339, strings.TrimSuffix(since, putOffClose))
	if !found || err != nil {
		return time.Time{}
	}
	return at
}

// PlanAside computes what lets others' mail go on without mailbag-policyd, and puts off that of the accounts. Where
// mailbag stands aside already, there is nothing to change. Neither the ledger nor a sound Postfix is needed. The error
// is mta.ErrMissing, mta.ErrTooOld, mta.ErrBroken or mta.ErrNotWired.
func (in Instance) PlanAside(ctx context.Context, since time.Time) (mta.Plan, error) {
	return in.planStance(ctx, since)
}

// PlanIn computes what ends a PlanAside. The error is as there.
func (in Instance) PlanIn(ctx context.Context) (mta.Plan, error) {
	return in.planStance(ctx, time.Time{})
}

func (in Instance) planStance(ctx context.Context, aside time.Time) (mta.Plan, error) {
	if _, err := in.Version(ctx); err != nil {
		return nil, err
	}
	c, err := in.read(ctx)
	if err != nil {
		return nil, err
	}
	if _, wired := c.explicit[recipientClass]; !wired {
		return nil, fmt.Errorf("%w; %s", errNotWired, runSetup)
	}
	if already := c.aside(); !aside.IsZero() && !already.IsZero() {
		aside = already
	}
	path, err := in.formerPath(ctx)
	if err != nil {
		return nil, err
	}
	old, err := readFormer(path)
	if err != nil {
		return nil, err
	}
	p := &plan{aside: aside, in: in, path: path, old: old, former: former{Main: maps.Clone(old.Main), Master: old.Master}}
	if p.former.Main == nil {
		p.former.Main = map[string]formerLine{}
	}
	for _, par := range stance(aside) {
		p.line(c, old, par, true)
	}
	return p, nil
}
