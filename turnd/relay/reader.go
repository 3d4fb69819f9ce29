package relay

import (
	"fmt"
	"slices"
	"strings"
)

// due is a reply that the server owes.
type due struct {
	to       command
	delivery *Delivery
	rcpt     int    // which recipient
	answer   *Reply // where an asked reply goes
}

// A command is one that has a reply, as the relay uses it.
type command int

const (
	toMail command = iota
	toRcpt
	toData      // 354 goes on
	toChunk     // BDAT without LAST
	toLastChunk // BDAT LAST: the message is the server's, or not
	toEnd       // the final dot, likewise
	toNoContent // the final dot of a transaction without recipients (RFC 2920, section 3.1)
	toRset
	toAsked // the writer waits for the reply
	toProbe // replies are gathered until the one to EHLO
	toQuit
)

// read matches replies with what is due until the channel is over. It is the only reader.
func (c *Channel) read() {
	for {
		reply, err := readReply(c.in)
		if err != nil {
			c.fail(c.reason(err))
			return
		}
		if !c.take(reply) {
			return
		}
	}
}

// reason is why no more replies come.
func (c *Channel) reason(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.owes(toQuit):
		return ErrClosed
	case c.unsent != nil:
		return fmt.Errorf("%w: %w", ErrLost, c.unsent)
	}
	return fmt.Errorf("%w: %w", ErrLost, err)
}

// owes reports whether the one reply that is due is that to a command.
func (c *Channel) owes(to command) bool { return len(c.due) == 1 && c.due[0].to == to }

// take applies one reply. It returns false when the channel is over.
func (c *Channel) take(r Reply) bool {
	c.mu.Lock()
	if c.failure != nil {
		c.mu.Unlock()
		return false
	}
	more, err := c.apply(r)
	if err == nil && !more {
		c.due = c.due[1:]
	}
	c.moved()
	// The writer waits for single replies only where a channel does not go on without them.
	if len(c.due) == 0 || c.chunks == guarded || c.doubt || len(c.doubted) > 0 {
		c.changed.Broadcast()
	}
	c.mu.Unlock()
	if err != nil {
		c.fail(err)
	}
	return err == nil
}

// apply does what a reply means to the first who waits for one, who may wait for more. Its error ends the channel.
func (c *Channel) apply(r Reply) (more bool, err error) {
	if c.owes(toQuit) {
		return false, ErrClosed
	}
	if r.Code == 421 { // RFC 5321, section 3.8: the server closes
		return false, fmt.Errorf("%w: %v", ErrDismissed, r)
	}
	if len(c.due) == 0 {
		return false, fmt.Errorf("%w: nobody asked for %v", ErrSequence, r)
	}
	to := c.due[0]
	if r.Code/100 == 3 && to.to != toData {
		return false, fmt.Errorf("%w: %v", ErrSequence, r)
	}
	switch to.to {
	case toMail, toRcpt:
		c.envelopeAnswered(to, r)
	case toData:
		if r.Code != 354 && r.Code/100 < 4 {
			return false, fmt.Errorf("%w: DATA was answered %v", ErrSequence, r)
		}
		to.delivery.data = r
	case toChunk, toLastChunk:
		return false, c.chunkAnswered(to, r)
	case toEnd, toNoContent:
		c.settle(to.delivery, r, Answered)
	case toRset:
		if r.Code != 250 {
			return false, fmt.Errorf("%w: RSET was answered %v", errUnsettled, r)
		}
		if c.doubt { // so the chunk behind refused recipients was no command
			c.doubt, c.chunks = false, atOnce
		}
	case toAsked:
		*to.answer = r
	case toProbe:
		return c.probeAnswered(r)
	}
	return false, nil
}

// envelopeAnswered is for the reply to MAIL or RCPT.
func (c *Channel) envelopeAnswered(to due, r Reply) {
	d := to.delivery
	path := d.from
	if to.to == toMail {
		d.mail = r
		c.mailAnswered(r)
	} else {
		path = d.to[to.rcpt]
		d.answered++
		if r.Code == 552 && strings.HasPrefix(r.Text, "5.5.3") { // RFC 5321, section 4.5.3.1.10
			r = Reply{452, "4" + r.Text[1:]}
		}
		d.accepted[to.rcpt] = r.Positive()
	}
	switch {
	case r.Positive():
		return
	case r.parameterRefused() && address(path) != path && (to.to == toMail || d.mail.Positive()):
		d.doubted = true
	}
	switch {
	case to.to == toMail:
		d.refuse(r)
	case d.mail.Positive():
		d.replies[to.rcpt] = r
	}
}

// mailAnswered counts transactions, and sees where a server takes no more of them on this connection: it says so for one
// after the other, whoever the senders are.
func (c *Channel) mailAnswered(r Reply) {
	switch {
	case r.Positive():
		c.opened++
		c.weary = 0
	case r.Transient():
		c.limited = r.protocolLimit()
		if c.weary++; c.tired() {
			c.retire()
		}
	}
}

// tired reports whether the server takes no more on this connection. Where it has taken nothing of it, or there is no other
// connection, nothing is won by leaving it.
func (c *Channel) tired() bool { return c.weary >= wearyAfter && c.brought > 0 && c.dialled }

// wearyAfter is how many MAIL in succession have to be put off until the connection is left.
const wearyAfter = 2

// chunkAnswered is for the reply to BDAT.
func (c *Channel) chunkAnswered(to due, r Reply) error {
	d, last := to.delivery, to.to == toLastChunk
	switch {
	case !d.anyAccepted():
		return c.chunkInVain(d, r)
	case r.Positive():
		c.chunked = true
		if !last {
			return nil
		}
	case d.failed.Code != 0: // the refusal before made it an error
	case !r.speaksOfMessage() || strings.HasPrefix(r.Text, "5.5.1 ") || strings.HasPrefix(r.Text, "5.5.2 "):
		// It offers BDAT and does not know it. What it made of the content, nobody knows.
		c.lessons.Chunking = true
		c.settle(d, unsent(fmt.Errorf("BDAT was answered %v", r)), Unsent)
		return fmt.Errorf("%w: it offers CHUNKING and answers BDAT with %v", errUnsettled, r)
	case !c.chunked && r.Transient():
		// It may be that BDAT never works here (application gateways): the message is tried by DATA.
		if c.spurned++; c.spurned >= wearyAfter {
			c.lessons.Chunking, c.chunks = true, byData
		}
		d.failed = r
		c.settle(d, r, Unsent)
		return nil
	}
	if !r.Positive() && d.failed.Code == 0 {
		d.failed = r
		c.changed.Broadcast()
	}
	if last {
		if d.failed.Code != 0 {
			r = d.failed
		}
		c.settle(d, r, Answered)
	}
	return nil
}

// chunkInVain is for the reply to a chunk of a delivery that was refused when the chunk had been sent behind it. Where it is
// not known that the server reads such a chunk as content, no more is sent until the reply to RSET has shown it.
func (c *Channel) chunkInVain(d *Delivery, r Reply) error {
	if d.doubted {
		c.question(d)
	} else {
		c.settle(d, r, Answered)
	}
	if c.chunks != atOnce {
		c.doubt = true
	}
	return nil
}

// question puts a refused delivery among those of which a parameter may have been what was refused.
func (c *Channel) question(d *Delivery) {
	if !slices.Contains(c.doubted, d) {
		c.doubted = append(c.doubted, d)
	}
}

// count sees what a settled delivery says of the connection.
func (c *Channel) count(d *Delivery) {
	c.fates[d.fate]++
	final, refused := false, len(d.replies) > 0
	for _, r := range d.replies {
		final = final || r.Code/100 != 4
		refused = refused && r.Code/100 == 5
	}
	switch {
	case refused && !d.anyAccepted():
		c.wary = min(c.wary+waryStep, mostWary)
	case c.wary > 0 && d.anyAccepted():
		c.wary--
	}
	if final {
		c.brought++
	}
	if d.fate == Answered && !d.since.IsZero() {
		c.pace.took(d)
	}
}

// A chunk behind refused recipients is one more error in a Postfix's eyes (20 end the connection, from 10 on each costs a
// second), so at the beginning of a connection, and after the second refusal, it is asked first, until waryStep messages have
// been accepted.
const (
	waryStep = 4
	waryFrom = waryStep + 1
	mostWary = 2 * waryStep
)
