package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mailbag/cmd/internal/mta"
	"mailbag/cmd/internal/units"
	"mailbag/meter"
)

func (c *console) expireCommand() *cobra.Command {
	var dryRun, asJSON bool
	cmd := &cobra.Command{
		Use:   "expire",
		Short: "Return mail whose hold time is over, and prune old records",
		Long: `Return to its sender what waits in the MTA's queue for longer than the hold time of its account: a message
when that is over for every recipient that is left. Mail of others goes back after the time that the MTA
has for it; where "mailbag postfix setup" raised that, after the time before. What the operator put on hold stays.

Then delete records older than [retention] in the settings says, and move the evidence of days that have been over
for two days from the ledger to files, evidence/DAY.csv.gz beside it. Of messages that are still in the queue it stays in the
ledger. Run it by a timer, hourly; it needs root.`,
		Example: `  mailbag expire --dry-run
  mailbag expire`,
		Args: arguments(),
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "list what would be returned, and change nothing")
	jsonFlag(cmd, &asJSON)
	cmd.RunE = c.atLedger(func(ctx context.Context, d *desk, _ *cobra.Command, _ []string) error {
		listing := jsonList{console: c}
		show := func(m dueMessage) error {
			if asJSON {
				return listing.add(m)
			}
			d.say("%-18s %s %9s  %s", m.ID, d.stamp(m.Arrived),
				units.RoundSize(m.Bytes), m.whose())
			return nil
		}
		n, err := d.expire(ctx, dryRun, show)
		if asJSON {
			err = errors.Join(err, listing.end())
		}
		switch {
		case errors.Is(err, mta.ErrMissing):
			d.note("%s is not installed here, so no mail was returned", d.mta.Words().Name)
			err = nil
		case err == nil && !asJSON && dryRun:
			d.say("%s would be returned to the senders", amountOf(n))
		case err == nil && !asJSON && n > 0:
			d.say("%s returned to the senders", amountOf(n))
		}
		if dryRun {
			return err
		}
		return errors.Join(err, d.prune(ctx), d.archive(ctx))
	})
	return cmd
}

// prune deletes old records. What went is nobody's concern but of who looks for it.
func (d *desk) prune(ctx context.Context) error {
	pruned, err := d.ledger.Prune(ctx, meter.Keep{Messages: d.settings.Retention.Messages, Turns: d.settings.Retention.Turns, Sessions: d.settings.Retention.Sessions})
	if err != nil {
		return fmt.Errorf("old records cannot be deleted: %w", err)
	}
	if pruned != (meter.Pruned{}) {
		d.note("deleted old records: %s of evidence, %s of turns, %s of sessions, %s of notices, %s of recipient lists that are out of force; %s sessions that fetched nothing are counts of their day now",
			grouped(pruned.Messages), grouped(pruned.Turns), grouped(pruned.Sessions), grouped(pruned.Notices), grouped(pruned.Recipients), grouped(pruned.Idle))
	}
	return nil
}

// archive moves evidence to files. An MTA that is not there has no queue.
func (d *desk) archive(ctx context.Context) error {
	moved, err := d.ledger.Archive(ctx, func() iter.Seq2[string, error] {
		return func(yield func(string, error) bool) {
			for e, err := range d.mta.Queue(ctx) {
				if errors.Is(err, mta.ErrMissing) || !yield(e.ID, err) {
					return
				}
			}
		}
	})
	if moved.Days > 0 {
		d.note("moved the evidence of %d %s to files: %s records", moved.Days, verb(int64(moved.Days), "day", "days"), grouped(moved.Messages))
	}
	if err != nil {
		return fmt.Errorf("evidence cannot be moved to files: %w", err)
	}
	return nil
}

// A dueMessage is one whose hold time is over.
type dueMessage struct {
	ID       string    `json:"queue_id"`
	Arrived  time.Time `json:"arrived"`
	Bytes    int64     `json:"bytes"`
	Accounts []string  `json:"accounts"` // without any it is mail of others
}

func (m dueMessage) whose() string {
	if len(m.Accounts) == 0 {
		return "(mail of others)"
	}
	return strings.Join(m.Accounts, ", ")
}

const (
	maxDue      = 20_000      // messages that one round finds; more take more rounds
	expireBatch = 100         // messages that are returned at once
	expireDelay = time.Second // what is found does not wait longer for its batch to be full
)

// expire returns what is due, shows it, and says how much it was. A round of two passes over the queue
// finds what is due, and returns it as it is found a second time, as the same message and due still: in
// between it may have been delivered, its ID may be another message's, its account may have been given
// another hold time. Nothing is kept of the queue but a bounded number of IDs.
func (d *desk) expire(ctx context.Context, dryRun bool, show func(dueMessage) error) (n int, err error) {
	for {
		found := map[string]time.Time{}
		for m, err := range d.due(ctx, nil) {
			if err != nil {
				return n, err
			}
			if dryRun {
				n++
				if err := show(m); err != nil {
					return n, err
				}
				continue
			}
			if found[m.ID] = m.Arrived; len(found) == maxDue {
				break
			}
		}
		if len(found) == 0 {
			return n, nil
		}
		returned, err := d.returnDue(ctx, found, show)
		n += returned
		if err != nil || returned == 0 || len(found) < maxDue {
			return n, err
		}
	}
}

// returnDue returns those of the messages that are due still.
func (d *desk) returnDue(ctx context.Context, found map[string]time.Time, show func(dueMessage) error) (n int, err error) {
	var batch []dueMessage
	var begun time.Time // when the batch was
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		var ids []string
		for _, m := range batch {
			ids = append(ids, m.ID)
		}
		if err := d.mta.Return(ctx, ids...); err != nil {
			return fmt.Errorf("%s cannot be returned now: %w", amountOf(len(ids)), err)
		}
		for _, m := range batch {
			n++
			if err := show(m); err != nil {
				return err
			}
		}
		batch = batch[:0]
		return nil
	}
	inTime := func() error {
		if len(batch) > 0 && time.Since(begun) > expireDelay {
			return flush()
		}
		return nil
	}
	for m, err := range d.due(ctx, inTime) {
		if err != nil {
			return n, err
		}
		if arrived, is := found[m.ID]; is && arrived.Equal(m.Arrived) {
			if len(batch) == 0 {
				begun = time.Now()
			}
			batch = append(batch, m)
		}
		if len(batch) == expireBatch {
			if err := flush(); err != nil {
				return n, err
			}
		}
	}
	return n, flush()
}

// due makes one pass over the queue and yields the messages whose hold time is over now. at, where it is not nil,
// is called at every message, because there may be many between two that are due; its error ends the pass.
func (d *desk) due(ctx context.Context, at func() error) func(yield func(dueMessage, error) bool) {
	return func(yield func(dueMessage, error) bool) {
		all, err := d.ledger.Load(ctx)
		if err != nil {
			yield(dueMessage{}, err)
			return
		}
		former, err := d.mta.FormerLifetimes(ctx)
		if err != nil {
			yield(dueMessage{}, fmt.Errorf("how long %s kept mail before setup cannot be seen: %w", d.mta.Words().Name, err))
			return
		}
		for e, err := range d.mta.Queue(ctx) {
			if err == nil && at != nil {
				err = at()
			}
			if err != nil {
				yield(dueMessage{}, err)
				return
			}
			hold, accounts, ends := holdOf(e, all, former)
			// Postfix tells the arrival to the second, rounded down.
			if !ends || d.now().Sub(e.Arrival) < hold+time.Second {
				continue
			}
			if !yield(dueMessage{e.ID, e.Arrival, e.Size, accounts}, nil) {
				return
			}
		}
	}
}

// holdOf is how long the message may wait: the longest hold time of its remaining recipients, and whose
// they are. It is false where nothing of that is ours to end: the operator holds it, it is on its way
// back already, or the MTA itself keeps to the time of a recipient elsewhere.
func holdOf(e mta.Entry, all *meter.Directory, former mta.Lifetimes) (hold time.Duration, accounts []string, ends bool) {
	if e.Expiring || e.OnHold || len(e.Recipients) == 0 {
		return 0, nil, false
	}
	others := former.Message
	if e.Sender == "" {
		others = former.Bounce
	}
	for _, r := range e.Recipients {
		domain, err := meter.NormalizeDomain(r.Address[strings.LastIndexByte(r.Address, '@')+1:])
		var a *meter.Account
		if err == nil {
			a = all.Domain(domain)
		}
		switch {
		case a != nil:
			hold = max(hold, a.HoldTime())
			if !slices.Contains(accounts, a.Name) {
				accounts = append(accounts, a.Name)
			}
		case !others.Raised:
			return 0, nil, false
		default:
			hold = max(hold, others.Was)
		}
	}
	return hold, accounts, true
}
