package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"path/filepath"
	"strings"
	"time"

	"mailbag/cmd/internal/postfix"
	"mailbag/meter"
)

const (
	inForceWithin = 5 * time.Second  // the daemons promise one second
	movedWithin   = 50 * time.Second // trivial-rewrite(8) looks at its tables every 10 s, and qmgr(8) remembers the way of the latest address for 30 s
	moveLook      = 500 * time.Millisecond
	movePause     = 4 * time.Second
)

// moveWaiting takes what waits in Postfix's queue for an account to its new way of delivery, after
// its mode or its suspension changed.
func (d *desk) moveWaiting(ctx context.Context, a *meter.Account) error {
	d.out.Flush() // what was done is said before the wait; a failure shows again at the end
	inForce := d.awaitDaemon(ctx, a)
	ids, err := d.reconcile(ctx, a)
	switch {
	case errors.Is(err, postfix.ErrMissing):
		return nil
	case err != nil:
		return fmt.Errorf("the change is made, but what waits for %s could not be looked at; it moves to its new way at Postfix's next attempts: %w", a.Name, err)
	case len(ids) == 0:
		return nil
	case !inForce:
		d.note("mailbag-policyd has not written the change into %s; %s for %s %s when it does, at Postfix's next attempt",
			d.settings.Policy.Tables, amountOf(len(ids)), a.Name, verb(int64(len(ids)), "moves", "move"))
		return nil
	case a.Held():
		d.say("%s held for %s", amountOf(len(ids)), a.Name)
		return nil
	}
	return d.release(ctx, a, ids)
}

// reconcile brings the ledger's index of waiting mail up to date, and returns the IDs of the queued
// messages for the account.
func (d *desk) reconcile(ctx context.Context, a *meter.Account) ([]string, error) {
	all, err := d.ledger.Load(ctx)
	if err != nil {
		return nil, err
	}
	var ids []string
	ours := newMatch(a.Domains)
	messages := func(yield func(meter.QueuedMessage, error) bool) {
		for e, err := range d.mta.Queue(ctx) {
			if err == nil && e.Queue != "hold" && ours.count(e) > 0 {
				ids = append(ids, e.ID)
			}
			if !yield(e.Waiting(), err) {
				return
			}
		}
	}
	_, err = d.ledger.Reconcile(ctx, all, iter.Seq2[meter.QueuedMessage, error](messages))
	return ids, err
}

// release has Postfix try the messages now, and again those that still took the way on which they were
// held: qmgr(8) remembers where the latest address went for a while.
func (d *desk) release(ctx context.Context, a *meter.Account, ids []string) error {
	total := len(ids)
	ours, formerly := newMatch(a.Domains), d.formerWays(a)
	defer d.endProgress()
	pause := moveLook
	for deadline := time.Now().Add(movedWithin); ; pause = min(2*pause, movePause) {
		if err := d.mta.Release(ctx, ids...); err != nil {
			return fmt.Errorf("the change is made, but %s for %s cannot be released; the new way is taken at Postfix's next attempt: %w", amountOf(len(ids)), a.Name, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		ids = ids[:0]
		for e, err := range d.mta.Queue(ctx) {
			if err != nil {
				return fmt.Errorf("the change is made, but whether the mail of %s moved cannot be seen: %w", a.Name, err)
			}
			if e.Queue == "deferred" && ours.deferred(e, formerly) {
				ids = append(ids, e.ID)
			}
		}
		if len(ids) == 0 {
			d.say("%s for %s released to the new way", amountOf(total), a.Name)
			return nil
		}
		if time.Now().After(deadline) {
			d.endProgress()
			d.note("%s for %s %s still held; the new way is taken at Postfix's next attempt", amountOf(len(ids)), a.Name, verb(int64(len(ids)), "is", "are"))
			return nil
		}
		d.showProgress("%s still to move", amountOf(len(ids)))
	}
}

// formerWays are what the reason of a deferral has in it when the message was tried by a way that is
// not the account's any more: defer_transports, or a socket that nobody listens on for it.
func (d *desk) formerWays(a *meter.Account) []string {
	ways := []string{"deferred transport", "[" + filepath.Join(d.settings.Turn.Sockets, a.Name+".sock") + "]"}
	if a.Mode != meter.POP3 {
		ways = append(ways, "["+d.settings.POP.Deliver.Address+"]")
	}
	return ways
}

// deferred reports whether the message waits for one of the domains for one of these reasons.
func (m match) deferred(e postfix.Entry, reasons []string) bool {
	for _, r := range e.Recipients {
		for _, reason := range reasons {
			if strings.Contains(r.Reason, reason) && m.has(r.Address) {
				return true
			}
		}
	}
	return false
}

// has reports whether the address is in one of the domains.
func (m match) has(address string) bool {
	domain := address[strings.LastIndexByte(address, '@')+1:]
	if m[domain] {
		return true
	}
	domain, err := meter.NormalizeDomain(domain)
	return err == nil && m[domain]
}
