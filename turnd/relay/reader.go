package relay

import "fmt"

// due is a reply that the server owes.
type due struct {
	to       command
	delivery *Delivery
	rcpt     int // which recipient
}

// A command is one that has a reply, as the relay uses it.
type command int

const (
	toMail command = iota
	toRcpt
	toData      // 354 goes on
	toChunk     // BDAT without LAST
	toEnd       // BDAT LAST, or the final dot: the message is the server's, or not
	toNoContent // the final dot of a transaction without recipients (RFC 2920, section 3.1)
	toRset
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
	case len(c.due) == 1 && c.due[0].to == toQuit:
		return ErrClosed
	case c.unsent != nil:
		return fmt.Errorf("%w: %w", ErrLost, c.unsent)
	}
	return fmt.Errorf("%w: %w", ErrLost, err)
}

// take applies one reply. It returns false when the channel is over.
func (c *Channel) take(r Reply) bool {
	c.mu.Lock()
	if c.failure != nil {
		c.mu.Unlock()
		return false
	}
	err := c.apply(r)
	if err == nil {
		c.due = c.due[1:]
	}
	c.moved()
	c.changed.Broadcast()
	c.mu.Unlock()
	if err != nil {
		c.fail(err)
	}
	return err == nil
}

// apply does what a reply means to the first who waits for one. Its error ends the channel.
func (c *Channel) apply(r Reply) error {
	if r.Code == 421 { // RFC 5321, section 3.8: the server closes
		return fmt.Errorf("%w: %v", ErrLost, r)
	}
	if len(c.due) == 0 {
		return fmt.Errorf("%w: nobody asked for %v", ErrSequence, r)
	}
	to := c.due[0]
	if r.Code/100 == 3 && to.to != toData {
		return fmt.Errorf("%w: %v", ErrSequence, r)
	}
	d := to.delivery
	switch to.to {
	case toMail:
		if d.mail = r; r.Positive() {
			c.learn("MAIL", d.from)
		} else {
			d.refuse(r)
		}
	case toRcpt:
		if d.accepted[to.rcpt] = r.Positive(); r.Positive() {
			c.learn("RCPT", d.to[to.rcpt])
		}
		if d.mail.Positive() && !r.Positive() {
			d.replies[to.rcpt] = r
		}
	case toData:
		if r.Code != 354 && r.Code/100 < 4 {
			return fmt.Errorf("%w: DATA was answered %v", ErrSequence, r)
		}
		d.data = r
	case toChunk:
		if !d.anyAccepted() {
			return c.mistrust(d, r)
		}
		if !r.Positive() && d.failed.Code == 0 {
			d.failed = r
		}
	case toEnd:
		if !d.anyAccepted() {
			return c.mistrust(d, r)
		}
		c.end(d, r)
	case toNoContent:
		c.settle(d, r)
	case toRset:
		if r.Code != 250 {
			return fmt.Errorf("%w: RSET was answered %v", ErrSequence, r)
		}
	case toQuit:
		return ErrClosed
	}
	return nil
}

// mistrust ends a delivery that was refused when its content, or a part of it, had been sent behind it. Whether the
// server has read that as content cannot be told from here, so nothing that follows can be trusted.
func (c *Channel) mistrust(d *Delivery, r Reply) error {
	c.settle(d, r)
	return fmt.Errorf("%w: it refused a sender or recipients that it had accepted before", ErrSequence)
}

// end applies the server's word on a whole message.
func (c *Channel) end(d *Delivery, r Reply) {
	if d.failed.Code != 0 {
		r = d.failed
	}
	c.settle(d, r)
}
