package turn

import (
	"slices"
	"strings"
	"time"

	"mailbag/meter"
	"mailbag/turnd/relay"
)

// recipientLimit is how many recipients of a message the MTA brings at once
// (mailbag-turn_destination_recipient_limit). A transaction with fewer is all of the message.
const recipientLimit = 1000

// A stage is where a message is in a turn.
type stage int

const (
	fresh  stage = iota // the turn has just heard of it
	asked               // released: the MTA is to bring it
	late                // released, and the MTA seems not to bring it, so it takes no place from others
	inHand              // the MTA brings it
	last                // to be released when nothing but suspects is left
	alone               // a suspect, to be released when nothing else is under way
	over                // the turn has nothing to do with it any more
	stages
)

// A message is one that a turn knows of. Its stage is changed by window.move alone.
type message struct {
	stage      stage
	size       int64
	since      time.Time
	suspicion  int             // as in the index
	indexed    bool            // the index has it
	postponed  bool            // it was put last before
	declines   int             // connections on which no transaction came about for it
	surplus    int             // connections that the server ended in place of one
	brokeAlone bool            // a connection broke while it went alone, before its content was sent
	choked     bool            // the connection broke under it alone: it waits for the next turn
	agains     int             // how often it was asked for once more
	parted     bool            // of the transactions in which it came, one with as many recipients as there can be is not at its end
	shut       map[string]bool // recipients whom the customer's server put off in this turn, where others have not been tried

	transactions int     // in hand
	verdict      verdict // on those that were answered, while others are in hand
	connection   int     // the turn's connection on which no transaction came about for it the last time; 0: none

	asked    time.Time     // since when the MTA owes it
	released time.Time     // for the last time
	heard    bool          // the MTA took the request
	wait     time.Duration // until it is released again
}

// A verdict is what follows for a message from what the MTA was told about it. Where it was brought in several
// transactions, the greatest counts.
type verdict int

const (
	gone      verdict = iota // delivered or refused for good, for all recipients in the turn's domains
	untried                  // the turn took nothing of it
	again                    // for some recipients, or none because of something else: it is asked for once more
	kept                     // the customer's server puts it off: it waits for the next turn
	declined                 // the server opened no transaction for it
	surplus                  // the server ended the connection in its place
	postponed                // it is to go last
	suspected                // the connection broke, and others were under way with it
	choked                   // the connection broke under it alone
)

// verdictOn is the verdict on a message for whose recipients the MTA was told so.
func verdictOn(replies []relay.Reply, fate relay.Fate) verdict {
	transient := 0
	for _, r := range replies {
		if r.Transient() {
			transient++
		}
	}
	if transient == 0 { // the MTA was told so, whatever came of the connection
		return gone
	}
	switch fate {
	case relay.Unsent:
		return again
	case relay.Deferred:
		return declined
	case relay.Surplus:
		return surplus
	case relay.Broken:
		return suspected
	case relay.Choked:
		return choked
	}
	// What is put off because of a limit, as RFC 5321, section 4.5.3.1.10, has it, may be taken in a next transaction.
	limited := func(r relay.Reply) bool {
		return r.Code == 452 && (strings.HasPrefix(r.Text, "4.5.3") || !strings.HasPrefix(r.Text, "4."))
	}
	if transient < len(replies) && slices.ContainsFunc(replies, limited) {
		return again
	}
	return kept
}

// shutOut notes recipients whom the customer's server put off, and reports whether any is new: a next transaction is for
// those behind them.
func (w *window) shutOut(id string, to []string, replies []relay.Reply) (fresh bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	m := w.messages[id]
	if m == nil {
		return false
	}
	for i, path := range to {
		if replies[i].Transient() && !m.shut[path] {
			if m.shut == nil {
				m.shut = map[string]bool{}
			}
			m.shut[path], fresh = true, true
		}
	}
	return fresh
}

// isShut reports whether the customer's server put a recipient of a message off in this turn.
func (w *window) isShut(id, path string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	m := w.messages[id]
	return m != nil && m.shut[path]
}

// move takes a message to a stage, and is the only one that does. w.mu is held.
func (w *window) move(m *message, to stage) {
	w.in[m.stage]--
	w.in[to]++
	before := m.stage == asked || m.stage == inHand
	m.stage = to
	switch after := to == asked || to == inHand; {
	case after && !before:
		w.turn.released.Add(1)
	case before && !after:
		w.turn.released.Add(-1)
	}
}

// outstanding is how many messages the MTA has been given to do. w.mu is held.
func (w *window) outstanding() int { return w.in[asked] + w.in[inHand] }

// track makes a message known. w.mu is held.
func (w *window) track(id string, m *message) *message {
	w.messages[id] = m
	w.in[fresh]++
	return m
}

// ask notes that the MTA is asked for a message, after a moment that it may need to put it back. w.mu is held.
func (w *window) ask(m *message, wait time.Duration) {
	now := time.Now()
	m.asked, m.released, m.wait, w.last = now, now, wait, now
	w.move(m, asked)
}

// has reports whether the turn waits for a message, or has had it.
func (w *window) has(id string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.messages[id] != nil
}

// enter notes that the MTA begins with a message, leave that it is answered.
func (w *window) enter() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.active++
	w.last = time.Now()
	w.brought = w.last
}

func (w *window) leave() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.active--
	w.last = time.Now()
	if w.outstanding() <= w.low {
		signal(w.moved)
	}
}

// bring notes that the MTA brings a message.
func (w *window) bring(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if id == "" { // the MTA does not tell
		return
	}
	m := w.messages[id]
	if m == nil { // released by somebody else, or struck off although the MTA did not hear the answer
		m = w.track(id, &message{since: w.turn.cfg.Now()})
	}
	if m.transactions == 0 {
		m.verdict = gone
		w.move(m, inHand)
	}
	m.transactions++
}

// answered applies the verdict on a message of so many octets, brought with so many recipients in these of the account's
// domains.
func (w *window) answered(id string, size int64, recipients int, domains []string, v verdict) {
	w.mu.Lock()
	defer w.mu.Unlock()
	m := w.messages[id]
	if m == nil { // without an ID
		return
	}
	m.size = max(m.size, size)
	m.parted = m.parted || recipients >= recipientLimit && v != gone
	m.verdict = max(m.verdict, v)
	if m.transactions--; m.transactions > 0 {
		return
	}
	w.apply(id, m, recipients, domains)
}

// apply does what follows from the verdict on a message. w.mu is held.
func (w *window) apply(id string, m *message, recipients int, domains []string) {
	byItself := w.alone == id
	if byItself {
		w.alone = ""
	}
	switch m.verdict {
	case gone:
		w.move(m, over)
		if recipients < recipientLimit && !m.parted {
			w.book.struck = append(w.book.struck, id)
			m.indexed, m.suspicion = false, 0
			break
		}
		fallthrough // there may be more of it
	case kept:
		w.move(m, over)
		w.suspect(id, m, 0)
	case untried:
		w.move(m, over)
	case again:
		switch m.agains++; {
		case m.agains > maxAgain:
			w.move(m, over)
		case m.suspicion > 0:
			w.move(m, alone)
			signal(w.moved)
		default:
			w.ask(m, againSoon)
		}
		return
	case declined:
		w.decline(m)
	case surplus:
		if m.surplus++; m.surplus > maxSurplus {
			w.move(m, over)
			break
		}
		w.move(m, last)
	case postponed:
		m.postponed = true
		w.move(m, last)
	case suspected, choked:
		if byItself && m.verdict == suspected {
			if m.brokeAlone || m.suspicion > 1 { // another connection broke under it alone as well
				m.verdict = choked
			}
			m.brokeAlone = true
		}
		w.breaks(id, m)
	}
	if m.verdict != gone && !m.indexed {
		w.book.kept = append(w.book.kept, stillWaiting{meter.WaitingMessage{ID: id, Size: m.size, Since: m.since, Suspicion: m.suspicion}, domains})
		m.indexed = true
	}
	signal(w.strike)
}

const (
	maxAgain    = 1000 // how often a message is asked for once more in a turn: one with many recipients, at a server that takes one at a time
	maxDeclines = 2    // connections on which the server opens no transaction for a message
	maxSurplus  = 3    // connections that the server ends in place of one
)

// decline is for a message for which the server opened no transaction. Whether that was because of the message, another
// connection shows, where there can be one. w.mu is held.
func (w *window) decline(m *message) {
	if m.declines++; m.declines < maxDeclines && !w.turn.reversed() {
		m.connection = w.connection
		w.move(m, last)
		return
	}
	w.move(m, over)
}

// breaks is for a message under which a connection broke. Where it was alone, the turn has tried it once and does no more.
func (w *window) breaks(id string, m *message) {
	if m.verdict == choked {
		m.choked = true
		w.suspect(id, m, max(2, m.suspicion+1))
		w.turn.choked(id)
		w.move(m, over)
		return
	}
	w.suspect(id, m, max(1, m.suspicion))
	w.move(m, alone)
}

// suspect notes how much a message is suspected. w.mu is held.
func (w *window) suspect(id string, m *message, suspicion int) {
	if m.suspicion != suspicion {
		m.suspicion = suspicion
		w.book.suspicion[id] = suspicion
	}
}
