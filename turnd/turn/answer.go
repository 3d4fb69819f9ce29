package turn

import (
	"time"

	"mailbag/meter"
)

// recipientLimit is how many recipients of a message the MTA brings at once
// (mailbag-turn_destination_recipient_limit). A transaction with fewer is all of the message.
const recipientLimit = 1000

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
