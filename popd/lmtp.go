package popd

import (
	"log/slog"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/emersion/go-smtp"

	"mailbag/cmd/door"
)

// maxSize is the largest message that go-smtp can be told of with SIZE. The MTA's own limit is what counts.
const maxSize = 1<<32 - 1

// replySize bounds the replies that the MTA has not read, in octets.
const replySize = 8 << 10

// ServeDeliveries takes mail by LMTP until Shutdown, then returns nil. The listener is closed when it returns.
// Whoever reaches it may put mail into any mailbox: it has to be the MTA.
func (s *Server) ServeDeliveries(l net.Listener) error {
	return s.mta.Serve(l, func(peer net.Conn, _ door.Client) door.Guest {
		door.Confine(peer, 0, replySize)
		return &lmtpConn{Conn: peer, server: s}
	}, nil)
}

// Serve is the connection's session.
func (c *lmtpConn) Serve() {
	_ = c.server.lmtp(c).Serve(door.Sole(c)) // its error is that there is no second connection
}

// lmtp makes the server of one connection, so that it is the door alone which starts and ends them. Limits of time
// and of command lines are those of lmtpConn.
func (s *Server) lmtp(conn *lmtpConn) *smtp.Server {
	l := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) {
		return &delivery{server: s, conn: conn}, nil
	}))
	l.LMTP = true
	l.Domain = s.cfg.Hostname
	l.MaxRecipients = s.cfg.Bounds.Recipients
	l.MaxMessageBytes = maxSize
	l.MaxLineLength = 0 // lines of content are as long as they are
	l.EnableSMTPUTF8 = true
	l.ErrorLog = slog.NewLogLogger(s.log.Handler(), slog.LevelWarn)
	return l
}

// maxCommand is what a command line may have, in octets. It is far above RFC 5321's 512 and what extensions
// add, because go-smtp reads some of a chunk of content (BDAT) ahead, before it is known as one.
const maxCommand = 64 << 10

// An lmtpConn bounds what the MTA may take of us: the time of every read and write, and the length of a line
// that is not content.
type lmtpConn struct {
	net.Conn
	server  *Server
	busy    atomic.Bool // with a message, which a graceful stop lets finish
	content atomic.Bool // being read
	lost    atomic.Bool // nothing more can be read
	line    int         // octets read of the present line
}

func (c *lmtpConn) Read(p []byte) (int, error) {
	if c.line > maxCommand && !c.content.Load() {
		return 0, os.ErrDeadlineExceeded // go-smtp ends the session with 421
	}
	c.Conn.SetReadDeadline(time.Now().Add(c.server.cfg.Bounds.Delivery))
	if c.server.mta.Closing() {
		c.Drain()
	}
	n, err := c.Conn.Read(p)
	if err != nil {
		c.lost.Store(true)
	}
	if c.content.Load() {
		c.line = 0
	} else {
		for _, b := range p[:n] {
			if c.line++; b == '\n' {
				c.line = 0
			}
		}
	}
	return n, err
}

func (c *lmtpConn) Write(p []byte) (int, error) {
	c.Conn.SetWriteDeadline(time.Now().Add(c.server.cfg.Bounds.Delivery))
	return c.Conn.Write(p)
}

// rest is the end of a message.
func (c *lmtpConn) rest() {
	c.busy.Store(false)
	if c.server.mta.Closing() {
		c.Drain()
	}
}

// Drain ends the session, unless a message is on its way.
func (c *lmtpConn) Drain() {
	if !c.busy.Load() {
		c.Conn.SetReadDeadline(time.Now())
	}
}
