package turn

import (
	"context"
	"errors"
	"sync"
	"time"

	"mailbag/meter"
)

const (
	lookEvery   = 200 * time.Millisecond // how often the window is looked at when nothing happens
	pollEvery   = 500 * time.Millisecond // how often the index is read when it had nothing new
	againAfter  = time.Second            // when a message that the MTA has not brought is released again, at first
	againAtMost = 5 * time.Second
	strikeEvery = 100 * time.Millisecond // the least time between two batches that strike off what was delivered
	releaseStep = 50                     // messages released between two looks at the turn's end
	quietTime   = time.Second            // after which the MTA brings no more of what it was given
	busySession = 10                     // sessions with a message, from which on the MTA is at work: half of its 20

	// recipientLimit is how many recipients of a message the MTA brings at once
	// (mailbag-turn_destination_recipient_limit). A transaction with fewer is all of the message.
	recipientLimit = 1000
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

// knows reports whether the turn waits for a message, or has had it.
func (w *window) knows(id string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.messages[id] != nil
}

// bring notes that the MTA brings a message.
func (w *window) bring(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.active++
	w.last = time.Now()
	w.brought = w.last
	if id == "" { // the MTA does not tell
		return
	}
	m := w.messages[id]
	if m == nil { // released by somebody else, or struck off although the MTA did not hear the answer
		m = &message{since: w.turn.cfg.Now()}
		w.messages[id] = m
	}
	w.owe(m)
	if m.inHand == 0 {
		m.refused = false
	}
	m.inHand++
}

// pass notes that the turn takes nothing of a message that the MTA brings.
func (w *window) pass(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.brought = time.Now()
	if m := w.messages[id]; m != nil && m.inHand == 0 {
		w.settled(m)
	}
	token(w.moved)
}

// A fate is what became of a message.
type fate int

const (
	taken   fate = iota // for good, for all of its recipients
	shared              // for good for all in the turn's domains; others of the account's wait for a turn of theirs
	partly              // for good for some, to be tried again for the others
	kept                // the MTA keeps it
	dropped             // the MTA went away before the answer
)

// answer notes what the MTA was told about a message that it brought, of so many octets and with so many
// recipients.
func (w *window) answer(id string, size int64, recipients int, f fate) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.active--
	w.last = time.Now()
	token(w.moved)
	m := w.messages[id]
	if m == nil { // without an ID
		return
	}
	m.size = max(m.size, size)
	m.inHand--
	m.refused = m.refused || f == kept
	switch {
	case f == dropped || f == partly:
		m.asked, m.released, m.wait = w.last, w.last, againAfter
	case m.inHand > 0:
	case f == shared && m.known && !m.refused && recipients < recipientLimit:
		w.settled(m)
		w.parted = append(w.parted, id)
		token(w.strike)
	case f != shared && !m.refused && recipients < recipientLimit:
		w.settled(m)
		m.known = false
		w.struck = append(w.struck, id)
		token(w.strike)
	default:
		w.settled(m)
		if !m.known {
			w.kept = append(w.kept, meter.WaitingMessage{ID: id, Size: m.size, Since: m.since})
			token(w.strike)
		}
	}
}

// owe puts a message among those that the MTA is to bring.
func (w *window) owe(m *message) {
	if m.pending && !m.late {
		return
	}
	if m.late {
		w.late--
	}
	m.pending, m.late = true, false
	w.count(1)
}

// settled takes a message out of those that are under way.
func (w *window) settled(m *message) {
	switch {
	case m.late:
		w.late--
	case m.pending:
		w.count(-1)
	}
	m.pending, m.late = false, false
}

// count adds to what is outstanding, here and in all.
func (w *window) count(n int) {
	w.outstanding += n
	w.turn.released.Add(int64(n))
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

// token leaves a token where none is.
func token(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
