package turn

import (
	"context"
	"errors"
	"time"
)

// strikeEvery is the least time between two batches that strike off what was delivered.
const strikeEvery = 100 * time.Millisecond

// strikeOff keeps the index in line with what was answered, a batch at a time, until the window is
// closed. It goes on when the turn is cut off: what was delivered was delivered.
func (w *window) strikeOff() {
	trouble := false
	for closing := false; !closing; {
		select {
		case <-w.closing:
			closing = true
		case <-w.strike:
		}
		ctx, cancel := context.WithTimeout(context.Background(), recordTime)
		err := w.write(ctx)
		cancel()
		if err != nil && (closing || !trouble) {
			w.turn.log.Error("what was delivered cannot be struck off yet; until it is, it seems to wait", "account", w.turn.account.Name, "error", err)
		}
		trouble = err != nil
		if trouble {
			token(w.strike)
		}
		if !closing {
			select {
			case <-w.closing:
			case <-time.After(strikeEvery):
			}
		}
	}
}

// write writes what is to be written about answered messages.
func (w *window) write(ctx context.Context) error {
	w.mu.Lock()
	struck, parted, keep := w.struck, w.parted, w.kept
	w.struck, w.parted, w.kept = nil, nil, nil
	w.mu.Unlock()
	ledger, account := w.turn.cfg.Ledger, w.turn.account.ID
	var errs []error
	if len(struck) > 0 {
		if err := ledger.Delivered(ctx, account, struck...); err != nil {
			errs = append(errs, err)
		} else {
			w.forget(struck)
			struck = nil
		}
	}
	if len(parted) > 0 {
		if err := ledger.DeliveredIn(ctx, w.turn.account, w.turn.domains, parted...); err != nil {
			errs = append(errs, err)
		} else {
			parted = nil
		}
	}
	for len(keep) > 0 {
		if err := ledger.StillWaits(ctx, account, keep[0]); err != nil {
			errs = append(errs, err)
			break
		}
		keep = keep[1:]
	}
	if len(errs) > 0 {
		w.mu.Lock()
		w.struck, w.parted, w.kept = append(struck, w.struck...), append(parted, w.parted...), append(keep, w.kept...)
		w.mu.Unlock()
	}
	return errors.Join(errs...)
}

// forget drops messages that the index has no more, except those that the MTA has brought again.
func (w *window) forget(ids []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range ids {
		if m := w.messages[id]; m != nil && !m.pending {
			delete(w.messages, id)
		}
	}
}

// verify strikes off what the MTA did not bring and does not have: it was removed, or delivered by a turn
// that died before it could strike it off. It returns how many those are, and how many are left.
func (w *window) verify(ctx context.Context) (struck, left int) {
	w.mu.Lock()
	var ids []string
	for id, m := range w.messages {
		if m.pending && m.inHand == 0 {
			ids = append(ids, id)
		}
	}
	w.mu.Unlock()
	missing, err := w.missing(ctx, ids)
	if err != nil {
		w.turn.log.Warn("it cannot be seen whether the MTA has the messages that it did not bring", "account", w.turn.account.Name, "error", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range missing {
		if m := w.messages[id]; m != nil && m.pending && m.inHand == 0 {
			w.settled(m)
			m.known = false
			w.struck = append(w.struck, id)
			token(w.strike)
			struck++
		}
	}
	return struck, w.outstanding + w.late
}

// missing returns those that the MTA does not have by two looks at its queue, one after the other: they were released just
// now, and a look at a queue in motion can miss a message that moves.
func (w *window) missing(ctx context.Context, ids []string) (missing []string, err error) {
	missing = ids
	for range 2 {
		if len(missing) == 0 || w.turn.cfg.Missing == nil {
			return nil, nil
		}
		if missing, err = w.turn.cfg.Missing(ctx, missing); err != nil {
			return nil, err
		}
	}
	return missing, nil
}
