package main

import (
	"context"
	"iter"
	"slices"
	"time"

	"mailbag/cmd/internal/mta"
	"mailbag/meter"
)

// Times between two passes over the queue. What the MTA makes itself, such as a bounce to an address of an account, is
// unknown until a pass has found it, so they follow one another as closely as their cost allows.
const (
	reconcileShare   = 30 // so many times what a pass took is between it and the next: it has a thirtieth of the time
	reconcileAtLeast = 15 * time.Second
	reconcileAtMost  = 5 * time.Minute
	reconcileRetry   = 30 * time.Second
)

// untilNextPass is how long to wait after a pass that took so long.
func untilNextPass(took time.Duration) time.Duration {
	return min(max(reconcileShare*took, reconcileAtLeast), reconcileAtMost)
}

// reconcileRepeatedly brings the index of waiting mail in line with the MTA's queue, and then the queue with what waits, at
// once and then again and again. Trouble is logged when it is another than the last time, so that a host without
// an MTA is not told of it every half minute.
func (d *service) reconcileRepeatedly(ctx context.Context, l *meter.Ledger, f *meter.Follower, r *meter.Recorder) {
	var unfinished []string
	timer := time.NewTimer(0)
	defer timer.Stop()
	trouble := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		next := reconcileRetry
		// While the ledger is away the follower says so; there is nothing to add.
		if directory := f.Directory(); directory != nil && f.Available() == nil {
			begun := time.Now()
			done, err := d.reconcile(ctx, l, r, directory)
			if err == nil {
				unfinished, err = d.takeBack(ctx, r, unfinished)
			}
			switch {
			case ctx.Err() != nil:
				return
			case err != nil && err.Error() != trouble:
				trouble = err.Error()
				d.log.Warn("the index of waiting mail could not be compared with the queue of the MTA; it is tried again", "error", err)
			case err == nil:
				next, trouble = untilNextPass(time.Since(begun)), ""
				d.metrics.reconciled(done)
				d.log.Debug("the index of waiting mail was compared with the queue", "queued", done.Queued, "added", done.Added, "removed", done.Removed, "next", next)
			}
		}
		timer.Reset(next)
	}
}

// reconcile is one pass.
func (d *service) reconcile(ctx context.Context, l *meter.Ledger, r *meter.Recorder, accounts *meter.Directory) (meter.Reconciled, error) {
	var hold, unhold, uncounted []string
	done, err := l.Reconcile(ctx, accounts, waiting(d.mta.Queue(ctx), func(e mta.Entry) {
		if e.Uncounted && !e.OnHold && len(uncounted) < maxMoved {
			uncounted = append(uncounted, e.ID)
		}
		switch toHold, toUnhold := e.Misplaced(accounts); {
		case len(hold)+len(unhold) == maxMoved:
		case toHold:
			hold = append(hold, e.ID)
		case toUnhold:
			unhold = append(unhold, e.ID)
		}
	}))
	if err == nil && len(uncounted) > 0 {
		uncounted, err = d.count(ctx, r, uncounted)
		hold = slices.DeleteFunc(hold, func(id string) bool { return slices.Contains(uncounted, id) })
	}
	if err == nil && len(hold) > 0 {
		err = d.mta.Hold(ctx, hold...)
	}
	if err == nil && len(unhold) > 0 {
		err = d.mta.Unhold(ctx, unhold...)
	}
	return done, err
}

// count has the MTA try those of the messages that are not counted still, and returns them.
func (d *service) count(ctx context.Context, r *meter.Recorder, ids []string) (uncounted []string, err error) {
	for _, id := range ids {
		accounts, err := r.CountedUnder(ctx, []string{id}, time.Time{})
		if err != nil {
			return nil, err
		}
		if len(accounts) == 0 {
			uncounted = append(uncounted, id)
		}
	}
	return uncounted, d.mta.Release(ctx, uncounted...)
}

// maxMoved bounds what one pass holds or does not hold any more; the next has the rest.
const maxMoved = 10_000

// takeBack takes back what was counted and then not accepted, because the MTA was killed in between. What it leaves lying
// is there in the next pass too, and is taken back once.
func (d *service) takeBack(ctx context.Context, r *meter.Recorder, before []string) (now []string, err error) {
	now, err = d.mta.Unfinished(ctx)
	if err != nil {
		return before, err
	}
	for _, id := range now {
		if !slices.Contains(before, id) {
			r.Unheard(meter.SpoolInstance(id))
			d.log.Info("a message was taken back, because the MTA was killed before it accepted it", "queue_id", id)
		}
	}
	return now, nil
}

// What the MTA was doing when this process began is done after settleAfter: a message that it accepted is in its queue.
const settleAfter = 5 * time.Second

// settle asks the MTA's queue about the messages of which the process before this one left it open whether they were accepted. A
// graceful stop waits for it, where it can be done.
func (d *service) settle(graceful, ctx context.Context, r *meter.Recorder, f *meter.Follower) {
	for {
		doubts, err := r.Doubtful()
		directory := f.Directory()
		if err == nil && doubts == 0 {
			return
		}
		enough := ctx.Done()
		if err != nil || directory == nil { // there is no ledger
			enough = graceful.Done()
		}
		select {
		case <-time.After(settleAfter):
		case <-enough:
			return
		}
		if err != nil || directory == nil {
			continue
		}
		err = r.Settle(ctx, directory, func() iter.Seq2[meter.QueuedMessage, error] { return waiting(d.mta.Queue(ctx), func(mta.Entry) {}) })
		if err == nil {
			left, _ := r.Doubtful()
			d.log.Info("messages were being accepted when mailbag-policyd was killed, or the machine went down", "messages", doubts, "doubtful", left)
			return
		}
		if ctx.Err() == nil {
			d.log.Warn("it could not be seen whether messages were accepted when mailbag-policyd was killed; it is tried again", "messages", doubts, "error", err)
		}
	}
}

// waiting hands the MTA's listing on as the ledger takes it, and shows it on the way.
func waiting(entries iter.Seq2[mta.Entry, error], show func(mta.Entry)) iter.Seq2[meter.QueuedMessage, error] {
	return func(yield func(meter.QueuedMessage, error) bool) {
		for e, err := range entries {
			if err == nil {
				show(e)
			}
			if !yield(e.Waiting(), err) {
				return
			}
		}
	}
}
