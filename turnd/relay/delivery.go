package relay

import (
	"bytes"
	"slices"
	"strings"
	"time"
)

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
	begun    bool     // MAIL is on its way
	shown    bool     // and some of the content
	ended    bool     // and the end of it
	since    time.Time
	mail     Reply
	answered int     // replies to RCPT
	accepted []bool  // by recipient: RCPT was answered 2yz
	replies  []Reply // by recipient: what is reported; zero while nothing is known
	data     Reply   // to DATA
	failed   Reply   // the first refusal of a chunk
	examined bool    // it was asked whether a parameter is what was refused
	doubted  bool    // a parameter of MAIL or RCPT may be what was refused
	fate     Fate
	settled  chan struct{} // closed when replies and fate are complete
}

// A Fate is what came of a delivery besides the replies.
type Fate int

const (
	// Answered: the server spoke of this message, for each recipient.
	Answered Fate = iota
	// Unsent: nothing was said of it. The channel was over before, or was left because of a limit or of something else that
	// is no fault of the message.
	Unsent
	// Deferred: the server took no transaction. Whether that was because of the message or of the connection, it does not say.
	Deferred
	// Surplus: the server ended the connection in place of a transaction for it, behind others, as one does that takes so many.
	Surplus
	// Broken: it was under way, maybe with others, when the connection broke.
	Broken
	// Choked: it alone was under way when the connection broke, and the server had been sent of its content.
	Choked
)

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

// Complete says that the content is whole.
func (d *Delivery) Complete() {
	c := d.channel
	c.mu.Lock()
	defer c.mu.Unlock()
	d.complete = true
	d.give()
	c.changed.Broadcast()
}

// Settled is closed when the replies are there.
func (d *Delivery) Settled() <-chan struct{} { return d.settled }

// Commit is Complete, waits for the server's answer, and returns one for each
// recipient. What the server did not answer is 451.
func (d *Delivery) Commit() ([]Reply, Fate) {
	d.Complete()
	<-d.settled
	return d.replies, d.fate // nobody changes them any more
}

// A Word is what a server said to RCPT.
type Word int

const (
	Nothing Word = iota // or something transient
	Taken
	Unknown // refused for good
)

// Recipient says what the server said to RCPT for the i-th recipient. It is known when Commit has returned.
func (d *Delivery) Recipient(i int) Word {
	switch {
	case d.accepted[i]:
		return Taken
	case d.mail.Positive() && d.replies[i].Code/100 == 5:
		return Unknown
	}
	return Nothing
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
	if d.given && !waits && (c.chunks == byData || c.chunks == unasked) {
		return
	}
	d.aborted = true
	if waits {
		c.settle(d, unsent(ErrClosed), Unsent)
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
		c.settle(d, unsent(ErrClosed), Unsent)
	case c.failure != nil:
		c.settle(d, unsent(c.failure), Unsent)
	case c.quit:
		c.settle(d, unsent(ErrClosed), Unsent)
	default:
		c.queue = append(c.queue, d)
		c.changed.Broadcast()
	}
	d.given = true
}

// settle gives a reply to every recipient that has none yet, and ends the delivery. c.mu is held.
func (c *Channel) settle(d *Delivery, r Reply, fate Fate) {
	if d.done() {
		return
	}
	for i := range d.replies {
		if d.doubted && fate != Answered && d.replies[i].parameterRefused() { // nobody knows what it was
			d.replies[i] = Reply{}
		}
	}
	if !slices.ContainsFunc(d.replies, func(r Reply) bool { return r.Code/100 != 5 }) { // the server has spoken of each
		fate = Answered
	}
	d.refuse(r)
	if d.fate = fate; fate == Answered {
		d.judge()
	}
	c.count(d)
	close(d.settled)
	d.content, d.held = nil, 0
	c.changed.Broadcast()
}

// judge looks whether what the server refused says anything of the message.
func (d *Delivery) judge() {
	if d.mail.Transient() {
		d.fate = Deferred
	}
	for i := range d.replies {
		switch r := &d.replies[i]; {
		case r.Code/100 == 5 && !r.speaksOfMessage() && !(d.ended && d.accepted[i]):
			r.Code = 451 // a sender is not to hear for good what is no word on his mail
			d.fate = Deferred
		case !d.examined && !d.accepted[i] && d.mail.Positive() && r.parameterRefused() && address(d.to[i]) != d.to[i]:
			r.Code, r.Text = 451, "4"+strings.TrimPrefix(r.Text, "5") // nobody has asked yet whether it was the parameter
		case r.protocolLimit() && !d.anyAccepted():
			d.fate = Deferred
		}
	}
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

// met reports whether the server has said what it thinks of sender and recipients.
func (d *Delivery) met() bool { return d.mail.Code != 0 && d.answered == len(d.to) }

// allRefused reports whether the server has refused the sender, or every recipient.
func (d *Delivery) allRefused() bool {
	return d.mail.Code != 0 && !d.mail.Positive() ||
		!slices.ContainsFunc(d.replies, func(r Reply) bool { return r.Code == 0 })
}

// traced reports whether the content begins with a Received field, as what an MTA hands on does: it is no command, so a
// server that takes content for commands shows it at once.
func (d *Delivery) traced() bool {
	const name = "received:"
	return len(d.content) > 0 && len(d.content[0]) >= len(name) && strings.EqualFold(string(d.content[0][:len(name)]), name)
}

// address is a path without its parameters.
func address(path string) string {
	return path[:strings.LastIndexByte(path, '>')+1]
}

// parameters are those behind a path, split by the extension that they belong to.
func parameters(path string) map[string][]string {
	groups := map[string][]string{}
	for _, word := range strings.Fields(path[len(address(path)):]) {
		name, _, _ := strings.Cut(word, "=")
		group := strings.ToUpper(name)
		switch group {
		case "RET", "ENVID", "NOTIFY", "ORCPT":
			group = "DSN"
		case "BODY":
			group = "8BITMIME"
		}
		groups[group] = append(groups[group], word)
	}
	return groups
}

// lesson is what follows for a group of parameters.
func lesson(group string) Lessons {
	return Lessons{DSN: group == "DSN", EightBit: group == "8BITMIME", UTF8: group == "SMTPUTF8", Size: group == "SIZE"}
}

// inVain reports whether the delivery has parameters that the server is known by now not to take.
func (d *Delivery) inVain(l Lessons) bool {
	for _, path := range append([]string{d.from}, d.to...) {
		if !bytes.ContainsRune([]byte(path), ' ') {
			continue
		}
		for group := range parameters(path) {
			if learnt := lesson(group); learnt != (Lessons{}) && l.And(learnt) == l {
				return true
			}
		}
	}
	return false
}
