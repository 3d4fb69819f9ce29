package relay

import (
	"bytes"
	"fmt"
	"io"
	"slices"
)

const (
	writeBuffer = 16 << 10 // octets
	writePiece  = 8 << 10  // octets that a line has to take within Limits.Stall
)

// write writes deliveries onto the line until the channel is over. It is the only writer.
func (c *Channel) write() {
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
	switch {
	case c.failure != nil:
		c.settle(d, lost(c.failure))
	case c.unsent != nil && !d.ended:
		c.settle(d, lost(fmt.Errorf("%w: %w", ErrLost, c.unsent)))
	}
}

// A step is what the writer does next.
type step int

const (
	over     step = iota // the channel ended
	leave                // say QUIT
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
		case len(c.queue) > 0:
			d := c.queue[0]
			c.queue = slices.Delete(c.queue, 0, 1)
			switch {
			case c.abandoned(d):
				continue
			case !c.extensions.Pipelining || !c.extensions.Chunking:
				return d, converse
			case c.knows(d):
				return d, send
			}
			return d, meet
		case c.quit && len(c.due) == 0:
			return nil, leave
		}
		c.await()
	}
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

// abandoned ends a delivery whose owner gave it up. c.mu is held.
func (c *Channel) abandoned(d *Delivery) bool {
	if d.aborted {
		c.settle(d, lost(ErrClosed))
	}
	return d.aborted
}

// send writes a whole transaction, of which the server knows sender and recipients or is to answer first. The RSET
// behind it puts the server into a known state whatever it said, and shows by its own reply that both
// sides count the same. Exim lets one RSET behind each message pass uncounted, and few besides
// (smtp_accept_max_nonmail), which is why no transaction is made only to ask.
func (c *Channel) send(d *Delivery, known bool) {
	c.envelope(d)
	if !known {
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
	c.settle(d, d.data)
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
	for !d.complete && d.held < c.limits.Content && !d.aborted && d.failed.Code == 0 && c.failure == nil && c.unsent == nil {
		c.await()
	}
	switch {
	case d.aborted:
		c.settle(d, lost(ErrClosed))
		return nil, false, false
	case d.failed.Code != 0: // RFC 3030, section 2: the transaction is to be given up
		c.settle(d, d.failed)
		return nil, false, false
	case c.failure != nil || c.unsent != nil:
		return nil, false, false
	}
	content, d.content, d.held = d.content, nil, 0
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
		c.owe(due{to: toEnd, delivery: d})
		c.put(fmt.Sprintf("BDAT %d LAST", size))
	} else {
		c.owe(due{to: toChunk, delivery: d})
		c.put(fmt.Sprintf("BDAT %d", size))
	}
	for _, piece := range content {
		c.out.Write(piece)
	}
}

// converse is a transaction that waits for the server where it has to: after each group of commands with
// PIPELINING, after each command without.
func (c *Channel) converse(d *Delivery) {
	chunking := c.extensions.Chunking
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
	if !chunking && (c.extensions.Pipelining || c.goesOn(d)) {
		c.owe(due{to: toData, delivery: d})
		c.put("DATA")
	}
	if !c.sync() {
		return
	}
	switch {
	case chunking && c.goesOn(d):
		c.sendChunks(d)
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

// sendChunks sends the content by BDAT, a chunk at a time.
func (c *Channel) sendChunks(d *Delivery) {
	for {
		content, last, ok := c.content(d)
		if !ok {
			c.reset()
			return
		}
		c.chunk(d, content, last)
		if !c.sync() || last {
			return
		}
	}
}

// sendLines sends the content behind DATA. It cannot be taken back once it is begun.
func (c *Channel) sendLines(d *Delivery) {
	stuffing := stuffing{to: c.out, lineStart: true}
	for last := false; !last; {
		var content [][]byte
		var ok bool
		if content, last, ok = c.content(d); !ok {
			c.fail(fmt.Errorf("%w: a message broke off on its way", ErrLost))
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
		if d.delivery != nil {
			c.settle(d.delivery, lost(c.failure))
		}
		return
	}
	c.due = append(c.due, d)
	if d.to == toEnd {
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

// progressWriter writes to the connection and tells the channel what moves.
type progressWriter struct{ *Channel }

func (w *progressWriter) Write(p []byte) (written int, err error) {
	for len(p) > 0 {
		w.mu.Lock()
		w.writing = true // behind DATA no reply is due, and the server has to read all the same
		w.moved()
		w.mu.Unlock()
		n, err := w.conn.Write(p[:min(len(p), writePiece)])
		written += n
		p = p[n:]
		w.mu.Lock()
		w.writing = false
		if err != nil {
			// What the server said before still counts, and the reader finds it.
			w.unsent = err
			w.changed.Broadcast()
		}
		w.moved()
		w.mu.Unlock()
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

// lineLength is what fetchmail takes from the line at a time: its buffer less the final NUL.
const lineLength = 8191 // octets

// A lineWriter makes one write of each line, and of each lineLength octets of a longer one. A client
// that relays between its mail server and us, as fetchmail does in ODMR mode, reads a line at a time and
// waits for its socket in between: over TLS it does not see what is left of a record then, so that a
// record must not hold more than it reads.
type lineWriter struct {
	to     io.Writer
	column int
}

func (w *lineWriter) Write(p []byte) (written int, err error) {
	for len(p) > 0 {
		n := min(len(p), lineLength-w.column)
		if end := bytes.IndexByte(p[:n], '\n'); end >= 0 {
			n = end + 1
		}
		m, err := w.to.Write(p[:n])
		written += m
		if err != nil {
			return written, err
		}
		if w.column += n; p[n-1] == '\n' || w.column == lineLength {
			w.column = 0
		}
		p = p[n:]
	}
	return written, nil
}

// A stuffing doubles the dots that lines begin with (RFC 5321, section 4.5.2).
type stuffing struct {
	to        io.Writer
	lineStart bool // behind CRLF, or at the beginning
	cr        bool // behind CR
}

func (s *stuffing) Write(p []byte) {
	begin := 0
	for i, b := range p {
		if s.lineStart && b == '.' {
			s.to.Write(p[begin:i])
			io.WriteString(s.to, ".")
			begin = i
		}
		s.lineStart = s.cr && b == '\n'
		s.cr = b == '\r'
	}
	s.to.Write(p[begin:])
}
