package relay

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// write writes deliveries onto the line until the channel is over. It is the only writer.
func (c *Channel) write() {
	if c.chunks == unasked && c.many {
		c.probe()
	}
	for {
		d, how := c.next()
		switch how {
		case over:
			return
		case leave:
			c.owe(due{to: toQuit})
			c.put("QUIT")
			c.flush()
			return
		case ask:
			c.probe()
			continue
		case examine:
			c.examine(d)
		case send:
			c.send(d, true)
		case meet:
			c.send(d, false)
		case converse:
			c.converse(d)
		}
		c.giveUp(d)
	}
}

// giveUp settles a delivery on which the writer worked when the channel broke. One whose end was written
// may have arrived: its answer may still come.
func (c *Channel) giveUp(d *Delivery) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.working = nil
	switch {
	case c.failure != nil:
		c.settle(d, unsent(c.failure), Unsent) // it was not begun, or fail would have ended it
	case c.unsent != nil && !d.ended:
		c.settle(d, unsent(fmt.Errorf("%w: %w", ErrLost, c.unsent)), Broken)
	}
}

// A step is what the writer does next.
type step int

const (
	over     step = iota // the channel ended
	leave                // say QUIT
	ask                  // find out what the server does with chunks
	examine              // find out which parameter the server refused
	send                 // send a delivery without waiting
	meet                 // send one when the server has said whether it takes it
	converse             // send one, waiting for replies where the server needs it
)

// next waits for something to do. What is buffered is written before it waits.
func (c *Channel) next() (*Delivery, step) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case c.failure != nil || c.unsent != nil:
			return nil, over
		case c.doubt: // until the reply to RSET is there
		case len(c.doubted) > 0:
			if len(c.due) == 0 {
				d := c.doubted[0]
				c.doubted = c.doubted[1:]
				c.working = d
				return d, examine
			}
		case len(c.queue) > 0:
			if d, how := c.first(); how != over {
				return d, how
			}
			continue
		case c.quit && len(c.due) == 0:
			return nil, leave
		}
		c.await()
	}
}

// first takes the first delivery of the queue and says what to do with it; over: nothing, look again.
func (c *Channel) first() (*Delivery, step) {
	d := c.queue[0]
	if c.chunks == unasked && (c.transactions > 0 || len(c.queue) > 1) {
		return nil, ask
	}
	c.queue = slices.Delete(c.queue, 0, 1)
	switch {
	case d.aborted:
		c.settle(d, unsent(ErrClosed), Unsent)
		return nil, over
	case d.inVain(c.lessons):
		c.settle(d, unsent(errParameter), Unsent)
		return nil, over
	}
	if c.transactions++; c.maxMessages > 0 && c.transactions >= c.maxMessages {
		c.retire()
	}
	c.working, d.since = d, time.Now()
	switch {
	case c.chunks == byData || c.chunks == unasked:
		return d, converse
	case c.wary < waryFrom && (c.chunks == atOnce || c.chunks == guarded && d.traced()):
		return d, send
	}
	return d, meet
}

// retire lets the channel end after what is on its way: the rest is for another connection. c.mu is held.
func (c *Channel) retire() {
	c.quit = true
	for _, d := range c.queue {
		c.settle(d, unsent(ErrClosed), Unsent)
	}
	c.queue = nil
	c.changed.Broadcast()
}

// await waits for a change, having written what is buffered. c.mu is held before and after, not between.
func (c *Channel) await() {
	if c.out.Buffered() > 0 {
		c.mu.Unlock()
		c.flush()
		c.mu.Lock()
		return
	}
	c.changed.Wait()
}

// send writes a whole transaction, whose refusal either does no harm or is not to be expected, or which the server is to
// answer first. The RSET behind it puts the server into a known state whatever it said, and shows by its own reply that both
// sides count the same. Exim lets one RSET behind each message pass uncounted, and few besides
// (smtp_accept_max_nonmail), which is why no transaction is made only to ask, but for the probe.
func (c *Channel) send(d *Delivery, atOnce bool) {
	c.envelope(d)
	if !atOnce {
		if !c.sync() {
			return
		}
		if !c.goesOn(d) {
			c.refused(d)
			return
		}
	}
	for last := false; !last; {
		var content [][]byte
		var ok bool
		if content, last, ok = c.content(d); !ok {
			break
		}
		c.chunk(d, content, last)
	}
	c.reset()
	c.mu.Lock()
	defer c.mu.Unlock()
	if d.doubted && d.allRefused() { // before any chunk
		c.question(d)
	}
}

// envelope writes MAIL and RCPT.
func (c *Channel) envelope(d *Delivery) {
	c.owe(due{to: toMail, delivery: d})
	c.put("MAIL FROM:", d.from)
	for i, to := range d.to {
		c.owe(due{to: toRcpt, delivery: d, rcpt: i})
		c.put("RCPT TO:", to)
	}
}

// reset gives the transaction up that may be open.
func (c *Channel) reset() {
	c.owe(due{to: toRset})
	c.put("RSET")
}

// refused ends a delivery of which the server takes nothing. Where it refused MAIL there is no
// transaction to give up.
func (c *Channel) refused(d *Delivery) {
	c.mu.Lock()
	open := d.mail.Positive()
	r := d.data
	if (r.Code == 500 || r.Code == 502) && c.extensions.Chunking && c.extensions.Pipelining && !c.withoutData { // it may know BDAT alone
		c.chunks, c.lessons.Chunking, c.withoutData = afterRecipients, false, true
		c.settle(d, unsent(fmt.Errorf("DATA was answered %v", r)), Unsent)
	}
	if r.Code/100 == 5 && !r.speaksOfMessage() {
		r.Code = 451
	}
	if d.doubted {
		c.question(d)
	} else {
		c.settle(d, r, Answered)
	}
	c.mu.Unlock()
	if open {
		c.reset()
	}
}

// content takes what there is of a delivery's content, waiting until it is whole or worth a chunk. It
// returns false when no more is to be sent.
func (c *Channel) content(d *Delivery) (content [][]byte, last, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	over := func() bool { return c.failure != nil || c.unsent != nil || d.done() || d.doubted && d.allRefused() }
	// Where it is not quite known what the server does with a chunk behind refused recipients, there is one at most, so that
	// the reply to RSET is the next one behind that to the chunk.
	unmet := func() bool { return c.chunks == guarded && d.shown && !d.met() }
	for (c.doubt || unmet() || !d.complete && d.held < c.limits.Content && !d.aborted && d.failed.Code == 0) && !over() {
		c.await()
	}
	switch {
	case over():
		return nil, false, false
	case d.aborted:
		c.settle(d, unsent(ErrClosed), Unsent)
		return nil, false, false
	case d.failed.Code != 0: // RFC 3030, section 2: the transaction is to be given up
		c.settle(d, d.failed, Answered)
		return nil, false, false
	}
	content, d.content, d.held = d.content, nil, 0
	d.shown = true
	c.changed.Broadcast()
	return content, d.complete, true
}

// chunk writes one BDAT (RFC 3030, section 2).
func (c *Channel) chunk(d *Delivery, content [][]byte, last bool) {
	size := 0
	for _, piece := range content {
		size += len(piece)
	}
	if last {
		c.owe(due{to: toLastChunk, delivery: d})
		c.put(fmt.Sprintf("BDAT %d LAST", size))
	} else {
		c.owe(due{to: toChunk, delivery: d})
		c.put(fmt.Sprintf("BDAT %d", size))
	}
	for _, piece := range content {
		c.out.Write(piece)
	}
}

// converse is a transaction by DATA, which waits for the server where it has to: after each group of commands with
// PIPELINING, after each command without.
func (c *Channel) converse(d *Delivery) {
	c.owe(due{to: toMail, delivery: d})
	c.put("MAIL FROM:", d.from)
	if !c.step() {
		return
	}
	for i := range d.to {
		c.mu.Lock()
		refused := d.replies[i].Code != 0
		c.mu.Unlock()
		if refused {
			break
		}
		c.owe(due{to: toRcpt, delivery: d, rcpt: i})
		c.put("RCPT TO:", d.to[i])
		if !c.step() {
			return
		}
	}
	if c.extensions.Pipelining || c.goesOn(d) {
		c.owe(due{to: toData, delivery: d})
		c.put("DATA")
	}
	if !c.sync() {
		return
	}
	switch {
	case d.data.Code == 354 && c.goesOn(d):
		c.sendLines(d)
	case d.data.Code == 354:
		c.owe(due{to: toNoContent, delivery: d})
		c.put(".")
	default:
		c.refused(d)
	}
	c.step()
}

// goesOn reports whether the server accepted the sender and a recipient.
func (c *Channel) goesOn(d *Delivery) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return d.anyAccepted()
}

// sendLines sends the content behind DATA. It cannot be taken back once it is begun.
func (c *Channel) sendLines(d *Delivery) {
	stuffing := stuffing{to: c.out, lineStart: true}
	for last := false; !last; {
		var content [][]byte
		var ok bool
		if content, last, ok = c.content(d); !ok {
			c.fail(errBrokenOff)
			return
		}
		for _, piece := range content {
			stuffing.Write(piece)
		}
	}
	if !stuffing.lineStart {
		io.WriteString(c.out, "\r\n")
	}
	c.owe(due{to: toEnd, delivery: d})
	c.put(".")
}

// examine finds out whether it was a parameter that the server refused, and which: it asks without any, and then with those
// of one extension at a time. What it learns it is asked once a connection.
func (c *Channel) examine(d *Delivery) {
	c.mu.Lock()
	d.examined = true
	learntBefore, vain := c.lessons, d.inVain(c.lessons)
	c.mu.Unlock()
	if vain {
		c.conclude(d, Reply{}, learntBefore)
		return
	}
	bare, ok := c.ask("MAIL FROM:" + address(d.from))
	if !ok {
		return
	}
	if !bare.Positive() && !bare.parameterRefused() && bare.Transient() { // so nobody knows
		c.undecided(d, bare)
		return
	}
	c.mu.Lock()
	sender, lessons := !d.mail.Positive(), c.lessons
	c.mu.Unlock()
	var learnt Lessons
	switch {
	case !bare.Positive() && sender: // it is the address, then
		c.conclude(d, bare, Lessons{})
		return
	case sender:
		var putOff Reply
		if learnt, putOff = c.culprit(d, lessons); putOff.Code != 0 {
			c.undecided(d, putOff)
			return
		}
	case bare.Positive():
		for i, to := range d.to {
			if r := d.replies[i]; r.parameterRefused() && address(to) != to {
				if again, ok := c.ask("RCPT TO:" + address(to)); !ok {
					return
				} else if again.Positive() {
					learnt = lesson("DSN")
					break
				} else if again.Transient() {
					d.replies[i] = again
				}
			}
		}
	}
	if bare.Positive() {
		c.ask("RSET")
	}
	c.conclude(d, Reply{}, learnt)
}

// undecided ends a delivery of which the server does not say now whether it was a parameter that it refused.
func (c *Channel) undecided(d *Delivery, r Reply) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range d.replies {
		if d.replies[i].parameterRefused() {
			d.replies[i] = r
		}
	}
	c.settle(d, r, Deferred)
}

// culprit asks for MAIL with the parameters of one extension after the other. Where the server puts one off, nothing is learnt.
func (c *Channel) culprit(d *Delivery, known Lessons) (learnt Lessons, putOff Reply) {
	groups := parameters(d.from)
	for _, group := range []string{"DSN", "8BITMIME", "SMTPUTF8", "SIZE"} {
		words := groups[group]
		if len(words) == 0 || known.And(lesson(group)) == known {
			continue
		}
		if _, ok := c.ask("RSET"); !ok {
			return learnt, unsent(ErrClosed)
		}
		if r, ok := c.ask("MAIL FROM:" + address(d.from) + " " + strings.Join(words, " ")); ok && r.Code/100 == 5 {
			learnt = learnt.And(lesson(group))
		} else if !ok || !r.Positive() {
			return Lessons{}, r
		}
	}
	if learnt == (Lessons{}) { // each for itself is good, all together are not
		for group := range groups {
			learnt = learnt.And(lesson(group))
		}
	}
	return learnt, Reply{}
}

// conclude ends a delivery that was examined: it is for another try where something was learnt.
func (c *Channel) conclude(d *Delivery, r Reply, learnt Lessons) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if learnt == (Lessons{}) {
		c.settle(d, r, Answered)
		return
	}
	c.lessons = c.lessons.And(learnt)
	for i, r := range d.replies { // RCPT without the parameter may be answered otherwise
		if r.parameterRefused() {
			d.replies[i] = unsent(errParameter)
		}
	}
	c.settle(d, unsent(errParameter), Unsent)
}

// ask sends a command and waits for its reply. It returns false when the channel is over.
func (c *Channel) ask(command string) (r Reply, ok bool) {
	c.owe(due{to: toAsked, answer: &r})
	c.put(command)
	if ok = c.sync(); ok && r.Positive() && strings.HasPrefix(command, "MAIL") {
		c.mu.Lock()
		c.transactions++
		c.opened++
		c.mu.Unlock()
	}
	return r, ok
}

// step is sync where the server does not do PIPELINING.
func (c *Channel) step() bool { return c.extensions.Pipelining || c.sync() }

// sync writes what is buffered and waits until the server owes nothing. It returns false when the
// channel is over.
func (c *Channel) sync() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.failure == nil && c.unsent == nil && (len(c.due) > 0 || c.out.Buffered() > 0) {
		c.await()
	}
	return c.failure == nil && c.unsent == nil
}

// owe notes a reply that the server is going to owe. It comes before the command.
func (c *Channel) owe(d due) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failure != nil { // nobody is going to answer any more
		return
	}
	c.due = append(c.due, d)
	switch d.to {
	case toMail:
		d.delivery.begun = true
	case toLastChunk, toEnd:
		d.delivery.ended = true
	}
	if len(c.due) == 1 || d.to == toQuit {
		c.moved()
	}
}

// put buffers a command. Where writing fails the channel learns it from progressWriter.
func (c *Channel) put(parts ...string) {
	for _, part := range parts {
		c.out.WriteString(part)
	}
	c.out.WriteString("\r\n")
}

func (c *Channel) flush() { c.out.Flush() }
