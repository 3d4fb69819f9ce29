package relay

import (
	"crypto/tls"
	"errors"
	"slices"
	"time"
)

// fail ends the channel, once, and answers everybody who waits.
func (c *Channel) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failure != nil {
		return
	}
	c.failure = err
	close(c.ended)
	c.stall.Stop()
	c.drop()
	c.study(err)
	underWay := c.underWay()
	for i, d := range underWay {
		c.settle(d, unsent(err), c.fateIn(err, d, i == 0, len(underWay) == 1))
	}
	for _, d := range append(c.queue, c.doubted...) {
		c.settle(d, unsent(err), Unsent)
	}
	c.due, c.queue, c.doubted = nil, nil, nil
	c.changed.Broadcast()
}

// underWay are the deliveries of which the server has been told, the one that it works on first.
func (c *Channel) underWay() (list []*Delivery) {
	add := func(d *Delivery) {
		if d != nil && d.begun && !d.done() && !slices.Contains(list, d) {
			list = append(list, d)
		}
	}
	for _, due := range c.due {
		add(due.delivery)
	}
	add(c.working)
	return list
}

// fateIn is what became of a delivery under way when the channel ended.
func (c *Channel) fateIn(err error, d *Delivery, first, alone bool) Fate {
	suspect := Broken
	if alone && d.shown {
		suspect = Choked
	}
	switch {
	case errors.Is(err, ErrClosed), errors.Is(err, errUnsettled), errors.Is(err, errBrokenOff), errors.Is(err, errProbe):
		return Unsent
	case errors.Is(err, ErrDismissed):
		// What was not answered the server has not looked at, but for the one to which it said so. Where that one had only
		// begun, and others came before it, it was one too many.
		switch {
		case !first || len(c.due) == 0 || c.due[0].delivery != d:
			return Unsent
		case c.others(d) > 0 && (c.due[0].to == toMail || c.due[0].to == toRcpt):
			return Surplus
		case c.others(d) > 0: // what it had enough of may have been before
			return Broken
		}
	case errors.Is(err, ErrLost) && alone && len(c.due) > 0 && c.due[0].delivery == d && c.due[0].to == toMail && c.others(d) > 0:
		return Surplus // of a server that does not say so
	}
	return suspect
}

// others is how many transactions the server has opened besides a delivery's and the probe's.
func (c *Channel) others(d *Delivery) int {
	n := c.opened - c.probes
	if d.mail.Positive() {
		n--
	}
	return n
}

// study learns from the end of the connection.
func (c *Channel) study(err error) {
	if errors.Is(err, ErrClosed) || errors.Is(err, errBrokenOff) {
		return
	}
	head := toQuit
	if len(c.due) > 0 {
		head = c.due[0].to
	}
	c.boundary = errors.Is(err, ErrLost) && c.opened > 0 && (len(c.due) == 0 || head == toMail || head == toRset)
	unheard := slices.ContainsFunc(c.due, func(d due) bool { return d.to == toChunk || d.to == toLastChunk })
	switch {
	case head == toProbe:
		c.lessons.Chunking = true
		c.lessons.Pipelining = c.lessons.Pipelining || errors.Is(err, ErrStalled)
	case c.doubt: // the chunk was taken for commands
		c.lessons.Chunking = true
	case !c.chunked && (unheard && !errors.Is(err, ErrDismissed) || c.spurned > 0 && errors.Is(err, errUnsettled)):
		c.lessons.Chunking = true
	case c.brought == 0 && len(c.due) > 1 && c.chunks == byData && !errors.Is(err, ErrDismissed) && (head == toRcpt || head == toData):
		c.lessons.Pipelining = true
	}
}

// drop closes the connection, politely only where there is nothing left to be said.
func (c *Channel) drop() {
	if t, ok := c.conn.(*tls.Conn); ok && len(c.due) > 0 {
		t.NetConn().Close() // tls.Conn would wait for its alert to be written
		return
	}
	c.conn.Close()
}

// unsent is what is said of a message that the server did not answer.
func unsent(err error) Reply {
	if errors.Is(err, ErrClosed) {
		return Reply{451, "4.3.2 The turn is over, the message waits for the next one"}
	}
	return Reply{451, "4.4.2 " + printable([]byte(err.Error()))}
}

// stalled is called when nothing has moved for as long as patience while replies are due or something is being written.
func (c *Channel) stalled() {
	c.mu.Lock()
	quit := c.owes(toQuit)
	c.mu.Unlock()
	if quit {
		c.fail(ErrClosed)
		return
	}
	c.fail(ErrStalled)
}

// probeTime is how long the replies to a probe may take, for which nothing has to be looked up, and the others of the first
// groups of commands on a connection that was dialled: those that do not come are perhaps of commands that the server lost, and
// on the next connection each command has all of its time.
const probeTime = time.Minute

// moved is called, with c.mu held, when something has moved.
func (c *Channel) moved() {
	switch {
	case c.failure != nil:
	case c.unsent != nil || len(c.due) > 0 && c.due[len(c.due)-1].to == toQuit:
		c.stall.Reset(c.limits.Quit) // what the server has said already is there soon
	case len(c.due) == 0 && !c.writing:
		c.stall.Stop()
	default:
		c.stall.Reset(c.patience())
	}
}

// patience is how long the server may do nothing.
func (c *Channel) patience() time.Duration {
	if len(c.due) == 0 || c.writing {
		return c.limits.Stall
	}
	switch to := c.due[0].to; {
	case to == toProbe, c.dialled && c.brought == 0 && len(c.due) > 1 && (to == toRcpt || to == toData):
		return min(probeTime, c.limits.Stall)
	case to <= toData:
		return c.limits.Stall / 2
	}
	return c.limits.Stall
}
