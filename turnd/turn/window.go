package turn

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"mailbag/meter"
)

const (
	lookEvery   = 200 * time.Millisecond // how often the window is looked at when nothing happens
	pollEvery   = 500 * time.Millisecond // how often the index is read when it had nothing new
	againSoon   = 100 * time.Millisecond // when a message that the MTA has just been given back is released again, at first
	againAfter  = time.Second            // and one that it has not brought
	againAtMost = 5 * time.Second
	refill      = 20          // how many messages are released together, so that the MTA has fewer wake-ups
	releaseStep = 50          // messages released between two looks at the turn's end
	quietTime   = time.Second // after which the MTA brings no more of what it was given
	busySession = 10          // sessions with a message, from which on the MTA is at work: half of its 20
)

// A window is what a turn has had the MTA release, and what became of it. It releases more as messages are
// answered, so that never more than its size is under way; what is to go last when nothing else is left, and suspects
// one at a time when nothing at all is under way.
type window struct {
	turn    *turn
	drained chan struct{}      // closed when nothing is left, or left that the MTA brings
	moved   chan struct{}      // holds a token when something was answered
	strike  chan struct{}      // and when something is to be written into the index
	hold    context.CancelFunc // stops releasing
	closing chan struct{}      // closed when all is to be written
	work    sync.WaitGroup

	mu         sync.Mutex
	messages   map[string]*message // by queue ID, until they are struck off
	in         [stages]int         // how many of them are at each stage
	alone      string              // the suspect that was released, and for which all others wait
	connection int                 // the turn's, from 1 on; 0: there was none yet
	connected  bool                // it is there
	active     int                 // messages that the MTA has begun with
	last       time.Time           // when anything happened
	brought    time.Time           // when the MTA last brought a message
	low        int                 // how few have to be outstanding for more to be released
	through    bool                // the index was read to its end, and all of it was released
	unreadable bool                // it could not be read the last time
	widened    time.Time           // when a message last became late, so that others are released in its place
	book       book
	batches    int // of it that were written
}

func newWindow(t *turn) *window {
	now := time.Now()
	return &window{turn: t, drained: make(chan struct{}), closing: make(chan struct{}), moved: make(chan struct{}, 1), strike: make(chan struct{}, 1),
		messages: map[string]*message{}, last: now, brought: now, widened: now, book: newBook()}
}

func (w *window) start() {
	ctx, hold := context.WithCancel(w.turn.immediate)
	w.hold = hold
	w.work.Go(func() { w.run(ctx) })
	w.work.Go(w.strikeOff)
}

// connect notes that there is a connection: from now on it is the window that sees whether something is left.
func (w *window) connect() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.connection++
	w.connected, w.last = true, time.Now()
	signal(w.moved)
}

// disconnect notes that it is over.
func (w *window) disconnect() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.connected = false
}

// wants reports whether there is something for another connection to carry.
func (w *window) wants() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.through || w.active > 0 || w.in[asked]+w.in[inHand]+w.in[last]+w.in[alone] > 0
}

// exhausted reports whether all that is left for now is what this connection has been tried for.
func (w *window) exhausted() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.in[last] == 0 || !w.idle() {
		return false
	}
	for _, m := range w.messages {
		if m.stage == last && m.connection != w.connection {
			return false
		}
	}
	return true
}

// idle reports whether nothing is under way that is to go before what is last. w.mu is held.
func (w *window) idle() bool { return w.through && w.active == 0 && w.outstanding() == 0 }

// close writes what became of messages. Nothing is answered any more.
func (w *window) close() {
	w.hold()
	close(w.closing)
	w.work.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.turn.released.Add(-int64(w.outstanding()))
}

// run releases what waits until nothing is left. What the turn does not take any more is not released.
func (w *window) run(ctx context.Context) {
	index := &reading{window: w}
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		if w.turn.ending() {
			return
		}
		now := time.Now()
		w.release(ctx, w.overdue(now)) // first, since what is late leaves room
		if ids := w.add(index.page(ctx, w.room())); len(ids) > 0 {
			w.release(ctx, ids)
			continue
		}
		if ids := w.lastOnes(); len(ids) > 0 {
			w.release(ctx, ids)
			continue
		}
		if w.finished(now) {
			if struck, _ := w.verify(ctx); struck > 0 {
				index.again() // there may be more behind what was in the way
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

// A reading is how far a window has read the index.
type reading struct {
	*window
	ahead []meter.WaitingMessage // read, and not released yet, but for what was struck off
	at    meter.WaitingMessage   // the last one of what was read
	next  time.Time              // when it is read from its beginning again
}

// page returns at most so many messages that come next.
func (r *reading) page(ctx context.Context, n int) []meter.WaitingMessage {
	if n <= 0 {
		return nil
	}
	if len(r.ahead) == 0 && !time.Now().Before(r.next) {
		written := r.written()
		page, err := r.turn.cfg.Ledger.WaitingAfter(ctx, r.turn.account.ID, r.turn.domains, r.at, 4*releaseStep)
		r.looked(err, len(page))
		switch {
		case r.written() != written: // what was struck off meanwhile may be in the page
			return nil
		case err != nil && ctx.Err() == nil:
			r.turn.log.Error("what waits for a turn cannot be read", "account", r.turn.account.Name, "error", err)
			r.next = time.Now().Add(pollEvery)
		case len(page) == 0:
			r.at, r.next = meter.WaitingMessage{}, time.Now().Add(pollEvery)
		default:
			r.ahead, r.at = page, page[len(page)-1]
		}
	}
	n = min(n, releaseStep, len(r.ahead))
	page := r.ahead[:n]
	r.ahead = r.ahead[n:]
	return page
}

// written is how many batches were written into the index.
func (r *reading) written() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.batches
}

// again has the index read from its beginning at once.
func (r *reading) again() {
	r.ahead, r.at, r.next = nil, meter.WaitingMessage{}, time.Time{}
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
	return w.outstanding() + w.in[late]
}

// room is how many messages may be released, 0 until it is worth a look at the index, or while a suspect is alone.
func (w *window) room() int {
	size, free := w.turn.share()
	size = min(size, w.turn.pace.window(time.Now()))
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.alone != "" {
		return 0
	}
	// Older turns may have released more than their share is since this one began.
	out := w.outstanding()
	size = min(size, max(minWindow, out+free))
	if w.low = size - max(1, min(size/2, refill)); out <= w.low {
		return size - out
	}
	return 0
}

// add notes those of a page that are new here and returns the IDs of those that are to be released now. Suspects wait.
func (w *window) add(page []meter.WaitingMessage) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var ids []string
	for _, m := range page {
		if old := w.messages[m.ID]; old != nil {
			old.indexed = true
			continue
		}
		fresh := w.track(m.ID, &message{size: m.Size, since: m.Since, suspicion: m.Suspicion, indexed: true})
		w.last = time.Now()
		if m.Suspicion > 0 {
			w.move(fresh, alone)
			continue
		}
		w.ask(fresh, againAfter)
		ids = append(ids, m.ID)
	}
	if len(page) > 0 {
		signal(w.moved)
	}
	return ids
}

// lastOnes returns messages that were to go last, once nothing else is left, and after them a suspect, once nothing is under
// way. Those that were tried on this connection wait for another. Of suspects of the same suspicion the newest comes first: it
// was the oldest, in front of the others, that the server looked at when the connection broke.
func (w *window) lastOnes() (ids []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.connected && !(w.connection == 0 && w.turn.reversed()) || !w.idle() {
		return nil
	}
	if w.in[last] > 0 {
		for id, m := range w.messages {
			if m.stage == last && m.connection != w.connection {
				w.ask(m, againSoon) // the MTA may have just got it back
				ids = append(ids, id)
				if len(ids) == usualWindow {
					break
				}
			}
		}
		return ids
	}
	if w.in[alone] == 0 {
		return nil
	}
	var suspects []string
	for id, m := range w.messages {
		if m.stage == alone {
			suspects = append(suspects, id)
		}
	}
	w.alone = slices.MinFunc(suspects, func(a, b string) int {
		ma, mb := w.messages[a], w.messages[b]
		return cmp.Or(cmp.Compare(ma.suspicion, mb.suspicion), mb.since.Compare(ma.since), cmp.Compare(b, a))
	})
	w.ask(w.messages[w.alone], againSoon)
	return []string{w.alone}
}

// admits says why a message that the MTA brings is not taken now, and the verdict on it; empty: it is.
func (w *window) admits(id string, to []string) (why string, v verdict) {
	w.mu.Lock()
	defer w.mu.Unlock()
	m := w.messages[id]
	switch {
	case m == nil: // without an ID
		return "", gone
	case m.choked: // it was released more than once, since the MTA was slow to bring it
		return "4.3.2 The message was tried in this turn and waits for the next one", untried
	case w.alone != "" && w.alone != id:
		return "4.3.2 Another message is tried by itself", postponed
	case m.suspicion > 0 && w.alone != id:
		return "4.3.2 The message is tried by itself when nothing else is left", again
	case !m.postponed && w.alone != id && w.turn.putsOff(to):
		return "4.3.2 Other messages go before", postponed
	}
	return "", gone
}

// passed notes that the turn takes nothing of a message that the MTA brings, because it is over, or nothing of it is for
// this turn.
func (w *window) passed(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.brought = time.Now()
	if m := w.messages[id]; m != nil && (m.stage == asked || m.stage == late) {
		if w.alone == id {
			w.alone = ""
		}
		w.move(m, over)
	}
	signal(w.moved)
}

// overdue returns messages to be released again. A release does nothing to a message that the MTA has
// in work at that moment, such as one that has just been accepted, and nobody is told.
//
// One that was not brought in FirstWait, while the MTA has nothing else to do for the turn, is late: the MTA may hold it
// for good, and those behind it must not wait for it. An MTA that brings nothing at all gets no more than that to do.
func (w *window) overdue(now time.Time) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	busy := w.active >= busySession || now.Sub(w.brought) < againAfter
	delivers, widened := w.brought.After(w.widened), w.widened
	var ids []string
	for id, m := range w.messages {
		if m.stage != asked && m.stage != late || busy && m.wait > againSoon {
			continue
		}
		if !busy && m.stage == asked && now.Sub(m.asked) >= w.turn.cfg.Bounds().FirstWait && (delivers || m.asked.Before(widened) || w.alone == id) {
			w.move(m, late)
			w.widened = now
			if w.alone == id {
				w.alone = ""
			}
		}
		if now.Sub(m.released) >= m.wait {
			m.released, m.wait = now, max(2*m.wait, againAfter)
			if m.stage != late {
				m.wait = min(m.wait, againAtMost)
			}
			ids = append(ids, id)
		}
	}
	return ids
}

// release asks the MTA for messages, and remembers for which it took the request.
func (w *window) release(ctx context.Context, ids []string) {
	if len(ids) == 0 {
		return
	}
	err := w.turn.cfg.Release.Release(ctx, ids...)
	if err != nil && ctx.Err() == nil {
		w.turn.log.Error("held mail cannot be released; it is tried again", "account", w.turn.account.Name, "error", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range ids {
		if m := w.messages[id]; m != nil {
			m.heard = err == nil
		}
	}
}

// finished reports whether nothing is under way, and nothing left that the MTA can be expected to bring.
func (w *window) finished(now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	bounds := w.turn.cfg.Bounds()
	patience := bounds.IdleWait
	if w.outstanding() > 0 {
		patience = max(patience, bounds.FirstWait)
	}
	if !w.connected && w.connection > 0 && w.in[last]+w.in[alone] > 0 {
		return false // there is to be another connection, or the turn is ended
	}
	return w.connection > 0 && w.active == 0 && (w.in[last]+w.in[alone] == 0 || w.outstanding() > 0) && now.Sub(w.last) >= patience
}

// unread reports whether the index could not be read the last time.
func (w *window) unread() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.unreadable
}

// looked notes whether the look at the index found its end.
func (w *window) looked(err error, found int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.through, w.unreadable = err == nil && found == 0, err != nil
}

// unbegun says why the MTA has not come to the turn in FirstWait. Nil: what it was asked for was gone, what waits behind
// that is released now, and it has to be given time again.
func (w *window) unbegun(ctx context.Context) error {
	struck, left := w.verify(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.in[last]+w.in[alone] > 0 && w.outstanding() == 0:
		signal(w.moved)
		return nil
	case left == 0 && w.through:
		return ErrNothingWaits // the index did not know it yet
	case struck > 0 && !w.through:
		signal(w.moved)
		return nil
	}
	return ErrNotDelivered
}

// drain waits, when the turn takes no more, until the MTA has taken back what was released, or brings
// nothing for a while. Messages that it still tried when the socket is gone would only be a noise in its
// log.
func (w *window) drain(ctx context.Context) {
	w.hold()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for begun := time.Now(); ; {
		w.mu.Lock()
		last := w.brought
		if last.Before(begun) {
			last = begun
		}
		over := w.active == 0 && (w.outstanding() == 0 || time.Since(last) >= quietTime)
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

// signal leaves a token where none is.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
