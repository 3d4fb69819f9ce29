package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"path/filepath"
	"time"

	"mailbag/cmd/internal/mta"
	"mailbag/meter"
)

// inForceWithin is how long a change may take to be in the tables; the daemons promise one second.
const inForceWithin = 5 * time.Second

// moveWaiting takes what waits in the MTA's queue for accounts to their new way of delivery, after their mode or their
// suspension changed, of all in one change and to the same.
func (d *desk) moveWaiting(ctx context.Context, accounts ...*meter.Account) error {
	d.out.Flush() // what was done is said before the wait; a failure shows again at the end
	var all, domains, former []string
	for _, a := range accounts {
		all, domains, former = append(all, a.Name), append(domains, a.Domains...), append(former, d.turnSocket(a))
	}
	names := few(all)
	inForce := d.awaitDaemon(ctx, accounts[0])
	ids, loose, err := d.reconcile(ctx, domains)
	switch {
	case errors.Is(err, mta.ErrMissing):
		return nil
	case err != nil:
		return fmt.Errorf("the change is made, but what waits for %s could not be looked at; it moves to its new way at %s's next attempts: %w", names, d.mta.Words().Name, err)
	case len(ids) == 0:
		return nil
	case !inForce:
		d.note("mailbag-policyd has not written the change into %s; %s for %s %s when it does, at %s's next attempt",
			d.settings.Policy.Tables, amountOf(len(ids)), names, verb(int64(len(ids)), "moves", "move"), d.mta.Words().Name)
		return nil
	case accounts[0].Held():
		if err := d.mta.Hold(ctx, loose...); err != nil {
			return fmt.Errorf("the change is made, but %s of %s %s not held yet; mailbag-policyd tries it again: %w", amountOf(len(loose)), names, verb(int64(len(loose)), "is", "are"), err)
		}
		d.say("%s held for %s", amountOf(len(ids)), names)
		return nil
	}
	if accounts[0].Mode != meter.POP3 {
		former = append(former, d.settings.POP.Deliver.Address)
	}
	return d.reroute(ctx, names, mta.Reroute{IDs: ids, Domains: domains, Former: former})
}

// reconcile brings the ledger's index of waiting mail up to date, and returns the IDs of the queued
// messages for the domains, and of those that are to be held and are not.
func (d *desk) reconcile(ctx context.Context, domains []string) (ids, loose []string, err error) {
	all, err := d.ledger.Load(ctx)
	if err != nil {
		return nil, nil, err
	}
	ours := mta.NewDomains(domains...)
	messages := func(yield func(meter.QueuedMessage, error) bool) {
		for e, err := range d.mta.Queue(ctx) {
			if err == nil && !e.OnHold && ours.Count(e) > 0 {
				ids = append(ids, e.ID)
				if hold, _ := e.Misplaced(all); hold {
					loose = append(loose, e.ID)
				}
			}
			if !yield(e.Waiting(), err) {
				return
			}
		}
	}
	_, err = d.ledger.Reconcile(ctx, all, iter.Seq2[meter.QueuedMessage, error](messages))
	return ids, loose, err
}

// reroute takes the messages of the accounts of these names to their new way.
func (d *desk) reroute(ctx context.Context, names string, r mta.Reroute) error {
	defer d.endProgress()
	left, err := d.mta.Reroute(ctx, r, func(messages int) { d.showProgress("%s still to move", amountOf(messages)) })
	d.endProgress()
	switch {
	case err != nil:
		return fmt.Errorf("the change is made, but it cannot be seen that all of the mail of %s moved; the new way is taken at %s's next attempts: %w", names, d.mta.Words().Name, err)
	case len(left) > 0:
		d.note("%s for %s %s still held; the new way is taken at %s's next attempt", amountOf(len(left)), names, verb(int64(len(left)), "is", "are"), d.mta.Words().Name)
	default:
		d.say("%s for %s released to the new way", amountOf(len(r.IDs)), names)
	}
	return nil
}

// turnSocket is where the account's turns are delivered through.
func (d *desk) turnSocket(a *meter.Account) string {
	return filepath.Join(d.settings.Turn.Sockets, a.Name+".sock")
}
