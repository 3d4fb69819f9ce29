package relay

import "slices"

// A Delivery is one mail transaction on its way through a [Channel]. One goroutine uses it: it writes the
// content, then calls Commit or Abort. Another may Withdraw it.
type Delivery struct {
	channel *Channel
	from    string   // reverse-path and parameters: "<a@b> SIZE=1000"
	to      []string // forward-paths and parameters

	// All of the following is under the channel's mu.
	content  [][]byte // written and not taken by the channel
	held     int      // octets of it
	complete bool     // all of the content is there
	given    bool     // it is in one of the channel's lists, or past them
	aborted  bool     // its owner does not want it any more
	mail     Reply
	accepted []bool        // by recipient: RCPT was answered 2yz
	replies  []Reply       // by recipient: what is reported; zero while nothing is known
	data     Reply         // to DATA
	ended    bool          // the end of the content is on its way
	failed   Reply         // the first refusal of a chunk
	settled  chan struct{} // closed when replies are complete
}

// Begin makes a delivery from a reverse-path to forward-paths, each in angle brackets and with its
// parameters behind it, as they stand in MAIL and RCPT.
func (c *Channel) Begin(from string, to []string) *Delivery {
	return &Delivery{channel: c, from: from, to: to, accepted: make([]bool, len(to)), replies: make([]Reply, len(to)),
		settled: make(chan struct{})}
}

// Write adds to the content. It blocks while as much as the limits allow waits for the line. It always
// takes all of p: where the channel is over, Commit tells.
func (d *Delivery) Write(p []byte) (int, error) {
	c := d.channel
	n := len(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(p) > 0 && !d.done() && c.failure == nil {
		room := c.limits.Content - d.held
		if room <= 0 {
			// The line may begin with what is there.
			d.give()
			c.changed.Wait()
			continue
		}
		part := p[:min(room, len(p))]
		d.add(part)
		p = p[len(part):]
		if d.given {
			c.changed.Broadcast()
		}
	}
	return n, nil
}

// add copies part behind the content, in pieces of the size in which it is going to leave.
func (d *Delivery) add(part []byte) {
	d.held += len(part)
	if last := len(d.content) - 1; last >= 0 {
		room := cap(d.content[last]) - len(d.content[last])
		n := min(room, len(part))
		d.content[last] = append(d.content[last], part[:n]...)
		part = part[n:]
	}
	if len(part) > 0 {
		piece := make([]byte, 0, max(len(part), min(2*d.held, d.channel.limits.Content)))
		d.content = append(d.content, append(piece, part...))
	}
}

// Commit says that the content is whole, waits for the server's answer, and returns one for each
// recipient. What the server did not answer is 451.
func (d *Delivery) Commit() []Reply {
	c := d.channel
	c.mu.Lock()
	d.complete = true
	d.give()
	c.changed.Broadcast()
	c.mu.Unlock()
	<-d.settled
	return d.replies // nobody changes them any more
}

// Abort gives the delivery up. Nothing of it counts at the server.
func (d *Delivery) Abort() {
	c := d.channel
	c.mu.Lock()
	defer c.mu.Unlock()
	d.aborted = true
	d.content, d.held = nil, 0
	c.changed.Broadcast()
}

// Withdraw is Abort for a delivery that may have been committed, as far as it hurts no other: where content travels by
// DATA, one that has been begun goes on, because it could be taken back only with an end of the channel. Any goroutine
// may call it.
func (d *Delivery) Withdraw() {
	c := d.channel
	c.mu.Lock()
	defer c.mu.Unlock()
	waits := slices.Contains(c.queue, d)
	if d.given && !waits && !c.extensions.Chunking {
		return
	}
	d.aborted = true
	if waits {
		c.settle(d, lost(ErrClosed))
	}
	d.content, d.held = nil, 0
	c.changed.Broadcast()
}

// give hands the delivery to the channel, unless that has been done or the channel takes none.
func (d *Delivery) give() {
	c := d.channel
	switch {
	case d.given:
		return
	case d.aborted:
		c.settle(d, lost(ErrClosed))
	case c.failure != nil:
		c.settle(d, lost(c.failure))
	case c.quit:
		c.settle(d, lost(ErrClosed))
	default:
		c.queue = append(c.queue, d)
		c.changed.Broadcast()
	}
	d.given = true
}

// settle gives a reply to every recipient that has none yet. c.mu is held.
func (c *Channel) settle(d *Delivery, r Reply) {
	if d.done() {
		return
	}
	d.refuse(r)
	close(d.settled)
	d.content, d.held = nil, 0
	c.changed.Broadcast()
}

// refuse gives a reply to every recipient that has none yet, without ending the delivery.
func (d *Delivery) refuse(r Reply) {
	for i := range d.replies {
		if d.replies[i].Code == 0 {
			d.replies[i] = r
		}
	}
}

// done reports whether the delivery is settled.
func (d *Delivery) done() bool {
	select {
	case <-d.settled:
		return true
	default:
		return false
	}
}

// anyAccepted reports whether the server goes on with the transaction.
func (d *Delivery) anyAccepted() bool {
	return d.mail.Positive() && slices.Contains(d.accepted, true)
}
