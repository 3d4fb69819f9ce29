package popd

import (
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"github.com/emersion/go-smtp"
)

// maxSize is the largest message that go-smtp can be told of with SIZE. The MTA's own limit is what counts.
const maxSize = 1<<32 - 1

// newLMTP makes the server that the MTA delivers to. Limits of time and of command lines are those of lmtpConn.
func (s *Server) newLMTP() *smtp.Server {
	l := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		return &delivery{server: s, conn: c.Conn().(*lmtpConn)}, nil
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

// ServeDeliveries takes mail by LMTP until Shutdown, then returns nil. The listener is closed when it returns.
// Whoever reaches it may put mail into any mailbox: it has to be the MTA.
func (s *Server) ServeDeliveries(l net.Listener) error {
	defer l.Close()
	return s.lmtp.Serve(&lmtpListener{l, s})
}

type lmtpListener struct {
	net.Listener
	server *Server
}

// Accept returns the next connection that there is room for.
func (l *lmtpListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &lmtpConn{Conn: conn, server: l.server}
		if l.server.mta.Enter(c, netip.Addr{}) == nil {
			return c, nil
		}
		conn.Close()
	}
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

func (c *lmtpConn) Close() error {
	c.server.mta.Leave(c)
	return c.Conn.Close()
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
