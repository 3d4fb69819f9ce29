package turn

import (
	"context"
	"sync"
	"time"

	"mailbag/meter"
)

const (
	lookEvery   = 200 * time.Millisecond // how often the window is looked at when nothing happens
	pollEvery   = 500 * time.Millisecond // how often the index is read when it had nothing new
	againAfter  = time.Second            // when a message that the MTA has not brought is released again, at first
	againAtMost = 5 * time.Second
	releaseStep = 50          // messages released between two looks at the turn's end
	quietTime   = time.Second // after which the MTA brings no more of what it was given
	busySession = 10          // sessions with a message, from which on the MTA is at work: half of its 20
)

// A window is what a turn has had the MTA release, and what became of it. It releases more as messages are
// answered, so that never more than its size is under way.
type window struct {
	turn    *turn
	drained chan struct{}      // closed when nothing is left, or left that the MTA brings
	moved   chan struct{}      // holds a token when something was answered
	strike  chan struct{}      // and when something is to be struck off
	hold    context.CancelFunc // stops releasing
	closing chan struct{}      // closed when all is to be struck off
	work    sync.WaitGroup

	mu          sync.Mutex
	begun       bool                   // the channel is there
	messages    map[string]*message    // by queue ID, until they are struck off
	outstanding int                    // released and not answered, but for those that are late
	late        int                    // released, and not brought in FirstWait
	active      int                    // transactions under way
	last        time.Time              // when anything happened
	brought     time.Time              // when the MTA last brought a message
	through     bool                   // the index was read to its end, and all of it was released
	widened     time.Time              // when a message last became late, so that others are released in its place
	struck      []string               // to be struck off
	parted      []string               // to be struck off in the turn's domains
	kept        []meter.WaitingMessage // that wait without the index knowing it
}

// A message is one that a turn knows of.
type message struct {
	size     int64
	since    time.Time
	known    bool          // the index has it
	pending  bool          // released, and not answered
	late     bool          // pending, and the MTA seems not to bring it
	inHand   int           // transactions under way
	refused  bool          // some recipient's answer was transient
	asked    time.Time     // since when the MTA owes it
	released time.Time     // for the last time
	wait     time.Duration // until it is released again
}

func newWindow(t *turn) *window {
	now := time.Now()
	return &window{turn: t, drained: make(chan struct{}), closing: make(chan struct{}), moved: make(chan struct{}, 1), strike: make(chan struct{}, 1),
		messages: map[string]*message{}, last: now, brought: now, widened: now}
}

func (w *window) start() {
	ctx, hold := context.WithCancel(w.turn.immediate)
	w.hold = hold
	w.work.Go(func() { w.run(ctx) })
	w.work.Go(w.strikeOff)
}

// begin notes that the channel is there: from now on it is the window that sees whether something is left.
func (w *window) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.begun, w.last = true, time.Now()
}

// close strikes off what was delivered. Nothing is answered any more.
func (w *window) close() {
	w.hold()
	close(w.closing)
	w.work.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.count(-w.outstanding)
}

// run releases what waits until nothing is left. What the turn does not take any more is not released.
func (w *window) run(ctx context.Context) {
	var at meter.WaitingMessage // how far the index was read
	var next time.Time          // when it is read from its beginning again
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		if w.turn.ending() {
			return
		}
		now := time.Now()
		w.release(ctx, w.overdue(now)) // first, since what is late leaves room
		room := w.room()
		if room > 0 && !now.Before(next) {
			page, err := w.turn.cfg.Ledger.WaitingAfter(ctx, w.turn.account.ID, w.turn.domains, at, min(room, releaseStep))
			w.looked(err == nil && len(page) == 0)
			switch {
			case err != nil && ctx.Err() == nil:
				w.turn.log.Error("what waits for a turn cannot be read", "account", w.turn.account.Name, "error", err)
				next = time.Now().Add(pollEvery)
			case len(page) == 0:
				at, next = meter.WaitingMessage{}, time.Now().Add(pollEvery)
			default:
				at = page[len(page)-1]
				w.release(ctx, w.add(page))
				continue
			}
		}
		if w.finished(now) {
			if struck, _ := w.verify(ctx); struck > 0 {
				next = time.Time{} // there may be more behind what was in the way
				continue
			}
			close(w.drained)
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-w.turn.stop:
			return
		case <-w.moved:
		case <-look.C:
		}
	}
}

// ending reports whether the turn is to end whatever waits. An account that was suspended or
// deleted meanwhile gets no more.
func (t *turn) ending() bool {
	if a := t.cfg.Accounts.Directory().AccountByID(t.account.ID); a == nil {
		t.halt(ErrDeleted)
	} else if a.Suspended && !t.account.Suspended {
		t.halt(ErrSuspended)
	}
	select {
	case <-t.stop:
		return true
	default:
		return false
	}
}

// left is how many messages the turn had released that the MTA did not bring.
func (w *window) left() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.outstanding + w.late
}

// room is how many messages may be released, 0 until it is worth a look at the index.
func (w *window) room() int {
	size, free := w.turn.share()
	w.mu.Lock()
	defer w.mu.Unlock()
	// Older turns may have released more than their share is since this one began.
	size = min(size, max(minWindow, w.outstanding+free))
	if room := size - w.outstanding; room >= max(1, size/8) {
		return room
	}
	return 0
}

// add notes those of a page that are new here and returns their IDs.
func (w *window) add(page []meter.WaitingMessage) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var ids []string
	now := time.Now()
	for _, m := range page {
		if old := w.messages[m.ID]; old != nil {
			old.known = true
			continue
		}
		fresh := &message{size: m.Size, since: m.Since, known: true, asked: now, released: now, wait: againAfter}
		w.messages[m.ID] = fresh
		w.owe(fresh)
		w.last = now
		ids = append(ids, m.ID)
	}
	return ids
}

// overdue returns messages to be released again. A release does nothing to a message that the MTA has
// in work at that moment, such as one that has just been accepted, and nobody is told.
//
// One that was not brought in FirstWait, while the MTA has nothing else to do for the turn, is late: the MTA may hold it
// for good, and those behind it must not wait for it. An MTA that brings nothing at all gets no more than that to do.
func (w *window) overdue(now time.Time) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.active >= busySession || now.Sub(w.brought) < againAfter {
		return nil
	}
	delivers, widened := w.brought.After(w.widened), w.widened
	var ids []string
	for id, m := range w.messages {
		if !m.pending || m.inHand > 0 {
			continue
		}
		if !m.late && now.Sub(m.asked) >= w.turn.cfg.FirstWait && (delivers || m.asked.Before(widened)) {
			m.late = true
			w.late++
			w.count(-1)
			w.widened = now
		}
		if now.Sub(m.released) >= m.wait {
			m.released, m.wait = now, 2*m.wait
			if !m.late {
				m.wait = min(m.wait, againAtMost)
			}
			ids = append(ids, id)
		}
	}
	return ids
}

func (w *window) release(ctx context.Context, ids []string) {
	if len(ids) == 0 {
		return
	}
	if err := w.turn.cfg.Release.Release(ctx, ids...); err != nil && ctx.Err() == nil {
		w.turn.log.Error("held mail cannot be released; it is tried again", "account", w.turn.account.Name, "error", err)
	}
}

// finished reports whether nothing is under way, and nothing left that the MTA can be expected to bring.
func (w *window) finished(now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	patience := w.turn.cfg.IdleWait
	if w.outstanding > 0 {
		patience = max(patience, w.turn.cfg.FirstWait)
	}
	return w.begun && w.active == 0 && now.Sub(w.last) >= patience
}

// looked notes whether the look at the index found its end.
func (w *window) looked(through bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.through = through
}

// unbegun says why the MTA has not come to the turn in FirstWait. Nil: what it was asked for was gone, what waits behind
// that is released now, and it has to be given time again.
func (w *window) unbegun(ctx context.Context) error {
	struck, left := w.verify(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case left == 0 && w.through:
		return ErrNothingWaits // the index did not know it yet
	case struck > 0 && !w.through:
		token(w.moved)
		return nil
	}
	return ErrNotDelivered
}

// settle waits, when the turn takes no more, until the MTA has taken back what was released, or brings
// nothing for a while. Messages that it still tried when the socket is gone would only be a noise in its
// log.
func (w *window) settle(ctx context.Context) {
	w.hold()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for begun := time.Now(); ; {
		w.mu.Lock()
		last := w.brought
		if last.Before(begun) {
			last = begun
		}
		over := w.active == 0 && (w.outstanding == 0 || time.Since(last) >= quietTime)
		w.mu.Unlock()
		if over {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-w.moved:
		case <-look.C:
		}
	}
}

// token leaves a token where none is.
func token(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
