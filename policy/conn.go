package policy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"
)

// idleBuffer is what an idle connection keeps; a request of Postfix's has some 800 octets.
const idleBuffer = 2 << 10

// busyBuffer takes most messages' content in one or two reads.
const busyBuffer = 16 << 10

// A conn is one peer, with one buffer, small while the peer is idle. Deadlines are renewed only when
// they have come nearer by an eighth, which saves most of what they cost.
type conn struct {
	net.Conn
	server *server
	limit  int           // octets of a request
	idle   time.Duration // between two requests

	in         []byte // read and not yet answered are in[start:end]
	start, end int
	out        []byte

	begun                 bool // part of a request is there, and readUntil is about the rest
	readUntil, writeUntil time.Time

	spoke atomic.Bool // a request was read whole
	busy  atomic.Bool // with something that shutdown lets finish, although the peer has more to send
}

// A framing says how many octets the first request in b has: 0 while it is not whole. The first
// searched octets of b have been looked at before. The error is a badInput.
type framing func(b []byte, searched int) (int, error)

// next returns the next whole request, valid until the call after. io.EOF says that the peer closed
// between two requests, or that shutdown came.
func (c *conn) next(frame framing) ([]byte, error) {
	searched := 0
	for {
		if held := c.in[c.start:c.end]; len(held) > 0 {
			n, err := frame(held, searched)
			if err != nil {
				return nil, err
			}
			if n > 0 {
				if !c.spoke.Load() {
					c.spoke.Store(true)
				}
				c.start += n
				if c.begun {
					c.begun, c.readUntil = false, time.Time{}
				}
				return held[:n], nil
			}
			searched = len(held)
		}
		if err := c.fill(); err != nil {
			return nil, err
		}
	}
}

// fill reads more behind what is held of a request.
func (c *conn) fill() error {
	held := c.end - c.start
	if c.start > 0 {
		copy(c.in, c.in[c.start:c.end])
	}
	c.start, c.end = 0, held
	switch {
	case held >= c.limit:
		return badInput(fmt.Sprintf("a request is longer than %d octets", c.limit))
	case held == 0 && c.busy.Load() && len(c.in) < busyBuffer:
		c.in = make([]byte, busyBuffer)
	case held == 0 && (c.in == nil || len(c.in) > 4*idleBuffer && !c.busy.Load()):
		c.in = make([]byte, idleBuffer)
	case held == len(c.in):
		c.in = append(c.in, make([]byte, held)...)
	}
	for {
		c.readDeadline(held > 0)
		n, err := c.Read(c.in[held:])
		c.end += n
		switch {
		case n > 0:
			return nil
		case errors.Is(err, io.EOF) && held > 0:
			return badInput("the connection ended within a request")
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return err
		case c.server.Closing() && !c.busy.Load():
			return io.EOF
		case time.Now().Before(c.readUntil):
			// Shutdown shortened the deadline while what it waits for had just begun.
			c.readUntil = time.Time{}
		case held > 0:
			return badInput("a request was begun and not finished in time")
		default:
			return io.EOF // idle for long enough
		}
	}
}

// readDeadline sets how long the next read may take.
func (c *conn) readDeadline(within bool) {
	if within && !c.begun {
		c.begun, c.readUntil = true, time.Time{}
	}
	limit := c.idle
	if within {
		limit = c.server.bounds.Request
	}
	if now := time.Now(); c.readUntil.IsZero() || !within && c.readUntil.Sub(now) < limit-limit/8 {
		c.readUntil = now.Add(limit)
		c.SetReadDeadline(c.readUntil)
	}
	if c.server.Closing() {
		c.Drain()
	}
}

// Drain is shutdown's word to a connection: what was sent by now is read, or the first request, and no more.
func (c *conn) Drain() {
	if c.busy.Load() {
		return
	}
	drain := c.server.drain
	if !c.spoke.Load() {
		drain = drainFirst
	}
	c.SetReadDeadline(c.server.stopped.Add(drain))
}

// answer writes b at once. A peer that does not read is not waited for longer than the bound.
func (c *conn) answer(b []byte) error {
	limit := c.server.bounds.Write
	if now := time.Now(); c.writeUntil.Sub(now) < limit-limit/8 {
		c.writeUntil = now.Add(limit)
		c.SetWriteDeadline(c.writeUntil)
	}
	_, err := c.Write(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return badInput("the peer does not read its answers")
	}
	return err
}
