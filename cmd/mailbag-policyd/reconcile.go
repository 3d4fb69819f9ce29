package main

import (
	"context"
	"iter"
	"time"

	"mailbag/cmd/internal/postfix"
	"mailbag/meter"
)

// Times between two passes over the queue. What Postfix makes itself, such as a bounce to an address of an account, is
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

// reconcileRepeatedly brings the index of waiting mail in line with Postfix's queue, at once and then again and
// again. Trouble is logged when it is another than the last time, so that a host without
// Postfix is not told of it every half minute.
func (d *service) reconcileRepeatedly(ctx context.Context, l *meter.Ledger, f *meter.Follower) {
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
			done, err := l.Reconcile(ctx, directory, waiting(postfix.Instance{}.Queue(ctx)))
			switch {
			case ctx.Err() != nil:
				return
			case err != nil && err.Error() != trouble:
				trouble = err.Error()
				d.log.Warn("the index of waiting mail could not be compared with Postfix's queue; it is tried again", "error", err)
			case err == nil:
				next, trouble = untilNextPass(time.Since(begun)), ""
				d.metrics.reconciled(done)
				d.log.Debug("the index of waiting mail was compared with the queue", "queued", done.Queued, "added", done.Added, "removed", done.Removed, "next", next)
			}
		}
		timer.Reset(next)
	}
}

// What Postfix was doing when this process began is done after settleAfter: a message that it accepted is in its queue.
const settleAfter = 5 * time.Second

// settle asks Postfix's queue about the messages of which the process before this one left it open whether they were accepted. A
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
		err = r.Settle(ctx, directory, func() iter.Seq2[meter.QueuedMessage, error] { return waiting(postfix.Instance{}.Queue(ctx)) })
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

// waiting hands Postfix's listing on as the ledger takes it.
func waiting(entries iter.Seq2[postfix.Entry, error]) iter.Seq2[meter.QueuedMessage, error] {
	return func(yield func(meter.QueuedMessage, error) bool) {
		for e, err := range entries {
			if !yield(e.Waiting(), err) {
				return
			}
		}
	}
}
