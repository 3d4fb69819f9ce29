package turn

import (
	"context"
	"errors"
	"fmt"
	"time"

	"mailbag/turnd/relay"
)

// Bounds of the connections that a turn dials.
const (
	maxFruitless = 5  // in succession that bring nothing to an end: a poisonous message among others can be in each of the first
	maxSuspicion = 30 // in all that the server closed at a message, having brought nothing
)

// A line is a turn's connections, one after another, as far as they teach something about the next one.
type line struct {
	*turn
	many      bool // messages are to be expected
	number    int  // of the present one
	fruitless int  // in succession
	brought   int  // messages that came to an end, in all
	chokes    int  // messages under which a connection broke while they were alone, in all
	wasted    int  // connections that the server closed at a message, having brought nothing
	served    int  // transactions that the server took on the last one before it ended it; 0: it did not
	most      int  // transactions that the next one is to have; 0: nobody knows
	lessons   relay.Lessons
	hunch     bool // that BDAT does not work follows from a connection that broke: it may have been a message
	clear     bool // TLS failed in this turn
}

// serve carries mail over the channel, and where it was dialled over further ones, until the turn is over.
func (t *turn) serve(l *line, channel *relay.Channel) error {
	t.log.Info("turn began", t.attributes()...)
	outcome, err := "", error(nil)
	for over := false; !over; {
		unwatch := context.AfterFunc(t.immediate, channel.Close)
		l.open(channel)
		outcome, over = l.carry(channel)
		if over {
			t.gate.refuse("4.3.2 The turn is over, the message waits for the next one")
		}
		err = channel.Quit()
		unwatch()
		t.window.disconnect()
		l.study(channel)
		if !over {
			var next *relay.Channel
			if next, outcome, err = l.next(err); next == nil {
				t.gate.refuse("4.3.2 The turn is over, the message waits for the next one")
				break
			}
			channel = next
		}
	}
	l.remember()
	switch {
	case t.immediate.Err() != nil:
		outcome = "cut off"
	case err != nil:
		outcome = "failed"
	}
	t.end(outcome, err)
	return err
}

// open puts a channel into use.
func (l *line) open(channel *relay.Channel) {
	l.number++
	l.refusals.Store(0)
	l.turn.mu.Lock()
	l.record.Connections = l.number
	l.record.TLS = channel.TLS()
	l.turn.mu.Unlock()
	l.pace.watch(channel)
	l.window.connect()
	l.gate.serve(channel)
}

// carry waits until a channel is over, or is not needed any more. It returns whether the turn is over, and how it ended.
func (l *line) carry(channel *relay.Channel) (outcome string, over bool) {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		select {
		case <-l.window.drained:
			return l.done(), true
		case <-l.stop:
			return l.why().Error(), true
		case <-channel.Ended():
			return "", false
		case <-look.C:
			// A server that takes no more of some messages here may take them on a new connection.
			if l.window.exhausted() {
				return "", false
			}
		}
	}
}

// done is the outcome of a turn at whose end nothing is left to be carried.
func (l *line) done() string {
	l.turn.mu.Lock()
	chokes := l.turn.chokes
	l.turn.mu.Unlock()
	outcome := "done"
	if l.window.unread() {
		outcome += ", but what waits could not be read"
	}
	if n := l.window.left(); n > 0 {
		outcome += fmt.Sprintf(", but the MTA did not bring %d of what was released", n)
	}
	if chokes > 0 {
		outcome += fmt.Sprintf(", but the customer's server breaks off at %d of the messages", chokes)
	}
	return outcome
}

// study learns from a connection that is over.
func (l *line) study(channel *relay.Channel) {
	brought, chokes := channel.Brought(), channel.Fates(relay.Choked)
	l.brought += brought
	l.chokes += chokes
	switch {
	case brought > 0 || chokes > 0:
		l.fruitless = 0
	case channel.Fates(relay.Broken) > 0 && l.wasted < maxSuspicion && errors.Is(channel.Err(), relay.ErrDismissed): // it goes last now, others before
		l.wasted++
		l.fruitless = 0
	default:
		l.fruitless++
	}
	fresh := channel.Lessons()
	l.hunch = l.hunch || fresh.Chunking && !l.lessons.Chunking && channel.Err() != nil
	l.lessons = fresh
	if chokes > 0 && l.hunch { // it was the message, then
		l.lessons.Chunking, l.hunch = false, false
	}
	if brought == 0 && channel.Fates(relay.Deferred) > 0 { // so few perhaps because of those that were put off before
		l.most = 0
	}
	served := channel.Served()
	if brought > 0 && served > 0 && served == l.served {
		l.most = served
	}
	l.served = served
}

// remember keeps what was learnt, where anything was brought with it.
func (l *line) remember() {
	if l.brought == 0 {
		return
	}
	lessons := l.lessons
	lessons.Chunking = lessons.Chunking && !(l.hunch && l.chokes > 0)
	l.memory.learn(l.account.ID, lessons, l.most)
}

// next waits until there is something for another connection to carry, and opens it. Without a channel the turn is over; the
// error is why, where there is one.
func (l *line) next(broken error) (*relay.Channel, string, error) {
	if l.reversed() {
		if broken == nil && l.window.wants() {
			broken = ErrLimited
		}
		return nil, l.done(), broken
	}
	if outcome, over := l.awaitWork(); over {
		return nil, outcome, nil
	}
	switch {
	case l.fruitless >= maxFruitless, l.chokes >= maxFruitless+l.brought:
		if broken == nil {
			broken = relay.ErrRefused
		}
		return nil, "", fmt.Errorf("%d connections in succession brought nothing: %w", max(l.fruitless, l.chokes), broken)
	}
	return l.redial()
}

// awaitWork waits until there is something for another connection to carry.
func (l *line) awaitWork() (outcome string, over bool) {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for !l.window.wants() {
		select {
		case <-l.window.drained:
			return l.done(), true
		case <-l.stop:
			return l.why().Error(), true
		case <-look.C:
		}
	}
	select {
	case <-l.stop:
		return l.why().Error(), true
	default:
		return "", false
	}
}

// pauses are how long to wait before each try to reach a server again that has just ended a connection: some allow so many in
// a time.
var pauses = []time.Duration{0, time.Second, 5 * time.Second, 20 * time.Second}

// redial opens a further connection.
func (l *line) redial() (*relay.Channel, string, error) {
	var failure error
	for _, pause := range pauses {
		select {
		case <-time.After(pause):
		case <-l.stop:
			return nil, l.why().Error(), nil
		case <-l.immediate.Done():
			return nil, "", l.immediate.Err()
		}
		l.many = true
		channel, peer, err := l.connect(l.immediate)
		if err == nil {
			l.turn.mu.Lock()
			l.record.Peer = peer
			l.turn.mu.Unlock()
			return channel, "", nil
		}
		failure = err
		if errors.Is(err, ErrSelf) {
			break
		}
	}
	select {
	case <-l.stop:
		return nil, l.why().Error(), nil
	default:
		return nil, "", failure
	}
}
