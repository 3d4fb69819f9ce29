package popd

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"time"
)

// Octets of lines, with CRLF.
const (
	commandLimit  = 255     // RFC 2449, section 4
	responseLimit = 6 << 10 // of a SASL exchange, whose lines may be as long as its mechanisms need (RFC 5034, section 4)
)

// Buffers. What a client that is idle holds is the first alone. Before the log-in anybody is one, so that all of it is
// small then: with the kernel's buffers and TLS, a few commands and the longest line, 32 kB at most.
const (
	inputSize  = 1 << 10
	outputSize = 256 << 10
	flushAt    = 128 << 10

	strangerOutput  = 1 << 10
	strangerReceive = 8 << 10 // of the kernel's; who is logged in says little more
)

var outputs = sync.Pool{New: func() any {
	b := make([]byte, 0, outputSize)
	return &b
}}

// drainPause is how long a client may be silent before a graceful stop ends its session.
const drainPause = 2 * time.Second

// Why a session ended, other than by QUIT. They are what its record says.
var (
	errIdle      = errors.New("the client was silent for too long")
	errSlow      = errors.New("the client did not finish a command")
	errLogin     = errors.New("the client did not log in")
	errStalled   = errors.New("the client did not take what was sent")
	errLong      = errors.New("the client sent a line that is too long")
	errMistakes  = errors.New("the client made too many mistakes")
	errTalk      = errors.New("the client said too much before it logged in")
	errGone      = errors.New("the client went away without QUIT")
	errStopping  = errors.New("the server stopped")
	errInjection = errors.New("the client sent something behind STLS")
	errUnread    = errors.New("a message could not be read to its end")
)

// A conn is one client. It has one reader and one writer, the session; answers are gathered until the
// client has said nothing more.
type conn struct {
	net.Conn // under TLS once there is one
	server   *Server
	tls      *tls.ConnectionState // nil: none

	in         []byte // read and not yet used are in[start:end]
	start, end int
	out        *[]byte // nil: nothing waits to be sent

	until time.Time // to log in; zero: logged in
	begun time.Time // when the present line's first octet came; zero: it did not

	mu sync.Mutex // of Conn, for who is not the session
}

// line returns the next line without its end, valid until the next call. Before it waits for one it sends what
// was answered so far.
func (c *conn) line(limit int) ([]byte, error) {
	searched := 0
	for {
		held := c.in[c.start:c.end]
		if i := bytes.IndexByte(held[searched:], '\n'); i >= 0 {
			i += searched
			if i+1 > limit {
				return nil, errLong
			}
			c.start += i + 1
			c.begun = time.Time{}
			return bytes.TrimSuffix(held[:i], []byte{'\r'}), nil
		}
		if len(held) >= limit {
			return nil, errLong
		}
		searched = len(held)
		if err := c.flush(); err != nil {
			return nil, err
		}
		if err := c.fill(); err != nil {
			return nil, err
		}
	}
}

// fill reads more behind what is held of a line.
func (c *conn) fill() error {
	rest := c.in[c.start:c.end]
	held := len(rest)
	switch {
	case c.in == nil, held == 0 && len(c.in) > inputSize:
		c.in = make([]byte, inputSize)
	case held == len(c.in):
		c.in = make([]byte, min(2*held, responseLimit)) // no line is longer
	}
	copy(c.in, rest)
	c.start, c.end = 0, held
	if held > 0 && c.begun.IsZero() {
		c.begun = time.Now()
	}
	why := c.readDeadline()
	n, err := c.Read(c.in[held:])
	c.end += n
	switch {
	case n > 0:
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		if c.server.clients.Closing() {
			return errStopping
		}
		return why
	case c.server.clients.Context().Err() != nil:
		return errStopping
	case err == nil:
		return io.ErrNoProgress
	}
	return errGone
}

// readDeadline sets how long the next read may take, and returns what is wrong if it takes longer.
func (c *conn) readDeadline() error {
	bounds := &c.server.cfg.Bounds
	until, why := time.Now().Add(bounds.Idle), errIdle
	if !c.begun.IsZero() {
		until, why = c.begun.Add(bounds.Command), errSlow
	}
	if !c.until.IsZero() && c.until.Before(until) {
		until, why = c.until, errLogin
	}
	c.SetReadDeadline(until)
	if c.server.clients.Closing() {
		c.Drain()
	}
	return why
}

// Drain ends the session at the client's next pause, or at once where nobody is logged in.
func (c *conn) Drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.SetReadDeadline(time.Now().Add(drainPause))
}

// say answers with a line.
func (c *conn) say(parts ...string) {
	b := c.output()
	for _, s := range parts {
		*b = append(*b, s...)
	}
	*b = append(*b, "\r\n"...)
}

// number appends one to what is to be sent.
func (c *conn) number(n int64) {
	b := c.output()
	*b = strconv.AppendInt(*b, n, 10)
}

// text appends to what is to be sent.
func (c *conn) text(s string) {
	b := c.output()
	*b = append(*b, s...)
}

func (c *conn) output() *[]byte {
	switch {
	case c.out != nil:
	case c.isStranger():
		b := make([]byte, 0, strangerOutput)
		c.out = &b
	default:
		c.out = outputs.Get().(*[]byte)
	}
	return c.out
}

// isStranger reports whether nobody is logged in yet.
func (c *conn) isStranger() bool { return !c.until.IsZero() }

// relieve sends what is there if it is much.
func (c *conn) relieve() error {
	much := flushAt
	if c.isStranger() {
		much = strangerOutput
	}
	if c.out != nil && len(*c.out) >= much {
		return c.send()
	}
	return nil
}

// flush sends everything and gives the buffer back.
func (c *conn) flush() error {
	if c.out == nil {
		return nil
	}
	err := c.send()
	if cap(*c.out) >= outputSize && cap(*c.out) <= 2*outputSize {
		outputs.Put(c.out)
	}
	c.out = nil
	return err
}

func (c *conn) send() error {
	if len(*c.out) == 0 {
		return nil
	}
	until := time.Now().Add(c.server.cfg.Bounds.Write)
	if c.isStranger() && c.until.Before(until) {
		until = c.until
	}
	c.SetWriteDeadline(until)
	_, err := c.Write(*c.out)
	*c.out = (*c.out)[:0]
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errStalled
	case c.server.clients.Context().Err() != nil:
		return errStopping
	}
	return errGone
}

// close sends what is left and ends the connection.
func (c *conn) close() {
	c.flush()
	c.Conn.Close()
}

// Close ends the connection from outside of the session, without the word of TLS: a client that takes nothing would have
// it wait for seconds.
func (c *conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if secured, ok := c.Conn.(*tls.Conn); ok {
		return secured.NetConn().Close()
	}
	return c.Conn.Close()
}
