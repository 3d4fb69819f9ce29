package turn

import (
	"context"
	"errors"
	"time"

	"mailbag/meter"
)

// A book is what is to be written into the index.
type book struct {
	struck    []string       // what waits no more in the turn's domains
	suspicion map[string]int // how much messages are suspected
	kept      []stillWaiting // what waits without the index knowing it
}

type stillWaiting struct {
	meter.WaitingMessage
	domains []string
}

func newBook() book { return book{suspicion: map[string]int{}} }

// strikeEvery is the least time between two batches.
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
			signal(w.strike)
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
	page := w.book
	w.book = newBook()
	w.mu.Unlock()
	ledger, account := w.turn.cfg.Ledger, w.turn.account
	var errs []error
	// What the index did not know comes first: some of it may have been taken since.
	for len(page.kept) > 0 {
		m := page.kept[0]
		if err := ledger.StillWaits(ctx, account, m.domains, m.WaitingMessage); err != nil {
			errs = append(errs, err)
			break
		}
		page.kept = page.kept[1:]
	}
	if len(page.struck) > 0 {
		if err := ledger.Delivered(ctx, account.ID, w.turn.domains, page.struck...); err != nil {
			errs = append(errs, err)
		} else {
			w.forget(page.struck)
			page.struck = nil
		}
	}
	if len(page.suspicion) > 0 {
		if err := ledger.Suspect(ctx, account.ID, page.suspicion); err != nil {
			errs = append(errs, err)
		} else {
			page.suspicion = nil
		}
	}
	if len(errs) > 0 {
		w.mu.Lock()
		w.book.struck, w.book.kept = append(page.struck, w.book.struck...), append(page.kept, w.book.kept...)
		for id, suspicion := range page.suspicion {
			if _, newer := w.book.suspicion[id]; !newer {
				w.book.suspicion[id] = suspicion
			}
		}
		w.mu.Unlock()
	}
	return errors.Join(errs...)
}

// forget drops messages that the index has no more, except those that the MTA has brought again.
func (w *window) forget(ids []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.batches++
	for _, id := range ids {
		if m := w.messages[id]; m != nil && m.stage == over {
			w.in[over]--
			delete(w.messages, id)
		}
	}
}

// verify strikes off what the MTA did not bring and does not have: it was removed, or delivered by a turn
// that died before it could strike it off. It returns how many those are, and how many are left. What the MTA could not be
// asked for is not believed to be gone, whatever its queue seems to be.
func (w *window) verify(ctx context.Context) (struck, left int) {
	missable := func(m *message) bool { return (m.stage == asked || m.stage == late) && m.heard }
	w.mu.Lock()
	var ids []string
	for id, m := range w.messages {
		if missable(m) {
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
		if m := w.messages[id]; m != nil && missable(m) {
			w.move(m, over)
			if w.alone == id {
				w.alone = ""
			}
			m.indexed = false
			w.book.struck = append(w.book.struck, id)
			signal(w.strike)
			struck++
		}
	}
	return struck, w.outstanding() + w.in[late]
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
