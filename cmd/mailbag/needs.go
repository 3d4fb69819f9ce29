package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"mailbag/cmd/internal/mta"
	"mailbag/cmd/internal/settings"
	"mailbag/meter"
)

// needs is what the accounts and the settings need of the MTA; without a ledger that is the least.
func (c *console) needs(ctx context.Context) (mta.Needs, error) {
	d, err := c.open(ctx, false)
	if errors.Is(err, meter.ErrNoLedger) {
		s, _, err := c.load(c.config)
		if err != nil {
			return mta.Needs{}, err
		}
		return needsOf(s), nil
	}
	if err != nil {
		return mta.Needs{}, err
	}
	defer d.ledger.Close()
	return d.needs(ctx)
}

func needsOf(s *settings.Settings) mta.Needs {
	return mta.Needs{Tables: s.Policy.Tables, Policy: s.Policy.Listen.Address, Turns: s.Turn.Sockets, Deliver: s.POP.Deliver.Address}
}

func (d *desk) needs(ctx context.Context) (mta.Needs, error) {
	n, err := d.setupNeeds(ctx)
	if err != nil {
		return mta.Needs{}, err
	}
	n.Domains, err = d.ledger.Domains(ctx)
	return n, err
}

// setupNeeds are the needs without the domains, which the MTA's setup does not depend on.
func (d *desk) setupNeeds(ctx context.Context) (mta.Needs, error) {
	demands, err := d.ledger.Demands(ctx)
	n := needsOf(d.settings)
	n.LongestHold, n.Verify, n.RequireTLS, n.VerifyTLS = demands.LongestHold, demands.Verify, demands.RequireTLS, demands.VerifyTLS
	return n, err
}

// lifetime is Postfix's own maximal_queue_lifetime, which setup raises only for longer holds. Exim's setup keeps what the
// accounts hold in any case.
const lifetime = 5 * 24 * time.Hour

// pointOutSetup says that the MTA does not fit new or changed accounts yet, where it can be seen that it does not.
func (d *desk) pointOutSetup(ctx context.Context, accounts ...*meter.Account) {
	var unfit []string
	encrypted := false
	for _, a := range accounts {
		encrypts := a.Mode == meter.Backup && a.TLS.Mandatory()
		if encrypts || a.Recipients == meter.VerifiedRecipient || a.HoldTime() > lifetime {
			unfit = append(unfit, a.Name)
			encrypted = encrypted || encrypts
		}
	}
	if len(unfit) == 0 {
		return
	}
	needs, err := d.setupNeeds(ctx)
	if err != nil {
		return
	}
	if fits, err := d.mta.Fits(ctx, needs); err == nil && !fits {
		w := d.mta.Words()
		d.note(`%s does not fit %s yet; run "mailbag %s setup" (again), with --dry-run to see what it changes%s`, w.Name, few(unfit), w.Command,
			map[bool]string{true: "; until then " + verb(int64(len(unfit)), "its", "their") + " mail can leave in the clear"}[encrypted])
	}
}

// refuseConflicts refuses domains that the MTA would deliver in another way. Where none is installed there is nothing to be
// in conflict with; of one that is broken its check will tell.
func (d *desk) refuseConflicts(ctx context.Context, domains ...string) error {
	conflicts, err := d.conflicts(ctx, domains...)
	if len(conflicts) > 0 {
		return fmt.Errorf("%s; take it out of %s first, nothing was changed", conflicts[0], conflicts[0].Parameter)
	}
	return err
}

// conflicts are the domains among these that the MTA would deliver in another way, as far as that can be seen.
func (d *desk) conflicts(ctx context.Context, domains ...string) ([]mta.Conflict, error) {
	conflicts, err := d.mta.Conflicts(ctx, domains...)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, mta.ErrMissing):
		return nil, nil
	case err != nil:
		w := d.mta.Words()
		d.note(`warning: it cannot be seen whether %s has %s already, as its own or in another way: %v; "mailbag %s check" tells when that is repaired`, w.Name, few(domains), err, w.Command)
		return nil, nil
	}
	return conflicts, nil
}
