package turnd

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"mailbag/cmd/door"
	"mailbag/meter/login"
	"mailbag/turnd/turn"
)

// A line has at most so many octets with its end: what AUTH's mechanisms here can need (RFC 4954, section 4), and
// enough for an ATRN that names hundreds of domains.
const maxLine = 6 << 10

// maxSkipped is how much of a line that is too long is skipped before the connection is closed.
const maxSkipped = 64 << 10

// Buffers are small because a client is a stranger at first. The last is the kernel's, for what comes while nobody reads,
// as during the delay of a log-in; what a customer's server says in a turn is short, too.
const (
	inputSize   = 1 << 10
	outputSize  = 1 << 10
	receiveSize = 8 << 10
)

// maxLong is how many commands of a session may have long answers, EHLO, HELO and HELP. A client has use for two or three.
const maxLong = 20

// A session is one client, from its connection to the reversal or the end. It belongs to one goroutine, but
// for Drain and Close.
type session struct {
	server *Server
	log    *slog.Logger
	client netip.Addr
	local  bool     // the client is on this machine, and did not come through a proxy
	socket net.Conn // as it was accepted

	conn     net.Conn // the socket, or TLS over it
	in       *bufio.Reader
	out      *bufio.Writer
	tls      *tls.ConnectionState // nil: none
	implicit bool                 // TLS is to begin at once
	ends     time.Time

	greeted  bool // EHLO or HELO was said
	extended bool // it was EHLO
	identity *login.Identity

	commands, long, failures, failedLogins int
	refusalLogged                          bool

	mu      sync.Mutex
	reading bool // waiting for a command, which shutdown may cut short
}

func newSession(s *Server, conn net.Conn, from door.Client, implicitTLS bool) *session {
	c := &session{
		server: s, client: from.Addr, local: from.Local, socket: conn, conn: conn, implicit: implicitTLS,
		in:   bufio.NewReaderSize(conn, inputSize),
		ends: time.Now().Add(s.cfg.Limits.Session),
	}
	c.out = bufio.NewWriterSize(timely{c}, outputSize)
	c.log = s.log.With("client", c.client.String())
	return c
}

// Serve is the session's life.
func (c *session) Serve() {
	defer func() { c.conn.Close() }() // which TLS may have taken over, and a turn has closed already
	door.Confine(c.socket, receiveSize, 0)
	if c.implicit {
		if err := c.startTLS(c.server.cfg.TLS()); err != nil {
			c.log.Debug("TLS failed", "error", err)
			return
		}
	}
	c.send("", say(220, "", "%s ESMTP mailbag", c.server.cfg.Hostname))
	for {
		verb := ""
		line, err := c.readLine()
		r := reply{}
		if err != nil {
			r = c.farewell(err)
		} else {
			verb, r = c.answer(line)
		}
		c.send(verb, r)
		if r.close {
			c.flush()
			return
		}
	}
}

// answer does what a line says.
func (c *session) answer(line []byte) (verb string, r reply) {
	c.commands++
	if c.commands > c.server.cfg.Limits.Commands {
		return "", tooMany
	}
	r = syntaxError
	if line == nil {
		r = lineTooLong
	} else if cmd, err := parseCommand(line); err == nil {
		verb, r = cmd.verb, c.execute(cmd)
	}
	if r.code >= 500 {
		c.failures++
	}
	if r.code == 535 {
		c.failedLogins++
	}
	if !r.close && (c.failures >= c.server.cfg.Limits.Failures || c.failedLogins >= c.server.cfg.Limits.Logins) {
		// The answer to this one first; 421 may follow at any time (RFC 5321, section 3.8).
		c.send(verb, r)
		return "", bye("4.7.0", "Too many errors, please come again")
	}
	return verb, r
}

func (c *session) execute(cmd command) reply {
	switch cmd.verb {
	case "EHLO", "HELO", "HELP":
		if c.long++; c.long > maxLong {
			return tooMany
		}
	}
	switch cmd.verb {
	case "EHLO", "HELO":
		return c.hello(cmd)
	case "STARTTLS":
		return c.starttls(cmd.args)
	case "AUTH":
		return c.auth(cmd.args)
	case "ATRN":
		return c.atrn(cmd.args)
	case "ETRN":
		return c.etrn(cmd.args)
	case "NOOP": // its argument is ignored (RFC 5321, section 4.1.1.9)
		return ok
	case "HELP":
		return reply{code: 214, status: "2.0.0", lines: []string{
			"This is On-Demand Mail Relay (RFC 2645). Commands:",
			"EHLO HELO STARTTLS AUTH ATRN ETRN NOOP RSET HELP QUIT"}}
	}
	if cmd.verb != "RSET" && cmd.verb != "QUIT" {
		return notImplemented // RFC 2645, section 5.4
	}
	if cmd.args != "" {
		return noArguments
	}
	if cmd.verb == "RSET" {
		return ok
	}
	r := say(221, "2.0.0", "%s closing connection", c.server.cfg.Hostname)
	r.close = true
	return r
}

// hello answers EHLO and HELO (RFC 5321, section 4.1.1.1).
func (c *session) hello(cmd command) reply {
	if cmd.args == "" || strings.ContainsAny(cmd.args, " \t") {
		return say(501, "", "%s needs your name and nothing else", cmd.verb)
	}
	c.greeted, c.extended = true, cmd.verb == "EHLO"
	r := say(250, "", "%s", c.server.cfg.Hostname)
	if !c.extended {
		return r
	}
	r.lines = append(r.lines, "PIPELINING", "ENHANCEDSTATUSCODES")
	if c.tls == nil && c.server.cfg.TLS() != nil {
		r.lines = append(r.lines, "STARTTLS")
	}
	if mechanisms := c.server.cfg.Logins.Mechanisms(c.peer()); len(mechanisms) > 0 {
		r.lines = append(r.lines, "AUTH "+strings.Join(mechanisms, " "))
	}
	r.lines = append(r.lines, "ATRN", "ETRN", "HELP")
	return r
}

// starttls answers STARTTLS (RFC 3207, section 4).
func (c *session) starttls(args string) reply {
	switch {
	case args != "":
		return noArguments
	case c.tls != nil:
		return say(503, "5.5.1", "TLS is in use already")
	case c.identity != nil:
		// What was learnt before would have to be forgotten (section 4.2), and the password went in the clear.
		return say(503, "5.5.1", "STARTTLS has to come before AUTH")
	}
	config := c.server.cfg.TLS()
	if config == nil {
		return say(454, "4.7.0", "TLS is not available, please try again later")
	}
	c.send("STARTTLS", say(220, "2.0.0", "Go ahead"))
	err := c.flush()
	if err == nil {
		err = c.startTLS(config)
	}
	if err != nil {
		c.log.Debug("TLS failed", "error", err)
		return reply{close: true}
	}
	c.greeted, c.extended = false, false
	return reply{}
}

// startTLS has TLS from here on. What the client sent before is dropped.
func (c *session) startTLS(config *tls.Config) error {
	if config == nil {
		return errors.New("there is no certificate")
	}
	ctx, cancel := context.WithTimeout(c.server.door.Context(), c.server.cfg.Limits.Handshake)
	defer cancel()
	c.socket.SetDeadline(time.Time{}) // the context bounds the handshake
	t, err := door.Handshake(ctx, c.socket, config)
	if err != nil {
		return err
	}
	state := t.ConnectionState()
	c.conn, c.tls = t, &state
	c.in.Reset(t)
	return nil
}

// peer is the client as package login sees it.
func (c *session) peer() login.Peer { return login.Peer{Addr: c.client, Local: c.local, TLS: c.tls} }

// asker is the client as package turn records it.
func (c *session) asker() turn.Client {
	who := turn.Client{Addr: c.client.String()}
	if c.tls != nil {
		who.TLS = tls.VersionName(c.tls.Version)
	}
	return who
}

// refused logs why an account, or who wanted its mail, was turned away, once in a session: the client
// does not decide how much is logged.
func (c *session) refused(command, account, reason string) {
	if !c.refusalLogged {
		c.refusalLogged = true
		c.log.Warn(command+" refused", "account", account, "reason", reason)
	}
}

// send puts the reply to a command, if it has any, behind those that are to be said.
func (c *session) send(verb string, r reply) {
	if r.code != 0 {
		c.server.metrics.answered(verb, r.code)
		r.write(c.out)
	}
}

func (c *session) flush() error { return c.out.Flush() }

// timely writes to the session's connection, and waits for its client no longer than Limits say.
type timely struct{ *session }

func (c timely) Write(b []byte) (int, error) {
	c.conn.SetWriteDeadline(time.Now().Add(c.server.cfg.Limits.Write))
	return c.conn.Write(b)
}

var (
	errClosing  = errors.New("the server is being stopped")
	errTooLong  = errors.New("a line far too long")
	errSession  = errors.New("the session took too long")
	errNoAnswer = errors.New("the client said nothing for too long")
)

// readLine reads a line, without its end, valid until the next is read. It is nil where it was too long. Before it
// waits, what is to be said is said (RFC 2920, section 3.2).
func (c *session) readLine() ([]byte, error) {
	if held, _ := c.in.Peek(c.in.Buffered()); bytes.IndexByte(held, '\n') < 0 {
		if err := c.flush(); err != nil {
			return nil, err
		}
	}
	if err := c.await(); err != nil {
		return nil, err
	}
	line, err := c.line()
	c.mu.Lock()
	c.reading = false
	c.mu.Unlock()
	switch {
	case !errors.Is(err, os.ErrDeadlineExceeded):
		return line, err
	case c.server.door.Closing():
		return nil, errClosing
	case time.Now().After(c.ends):
		return nil, errSession
	}
	return nil, errNoAnswer
}

// await sets until when a line has to be there, unless there is to be none any more.
func (c *session) await() error {
	until := time.Now().Add(c.server.cfg.Limits.Idle)
	if c.ends.Before(until) {
		until = c.ends
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.server.door.Closing() {
		return errClosing
	}
	c.reading = true
	return c.conn.SetReadDeadline(until)
}

// Drain ends the wait for a command.
func (c *session) Drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reading {
		c.socket.SetReadDeadline(time.Now())
	}
}

// Close ends the session as it is.
func (c *session) Close() error { return c.socket.Close() }

func (c *session) line() ([]byte, error) {
	part, err := c.in.ReadSlice('\n')
	if !errors.Is(err, bufio.ErrBufferFull) {
		return trimEnd(part), err
	}
	var line []byte
	for read := 0; ; part, err = c.in.ReadSlice('\n') {
		if read += len(part); read <= maxLine {
			line = append(line, part...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			if read > maxLine+maxSkipped {
				return nil, errTooLong
			}
		case err != nil, read > maxLine:
			return nil, err
		default:
			return trimEnd(line), nil
		}
	}
}

func trimEnd(line []byte) []byte {
	return bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
}

// farewell is the last word where no command is to come.
func (c *session) farewell(err error) reply {
	switch {
	case errors.Is(err, errClosing):
		return shuttingDown
	case errors.Is(err, errTooLong):
		return bye("4.5.0", "A line is far too long")
	case errors.Is(err, errSession):
		return bye("4.4.2", "The session takes too long, please come again")
	case errors.Is(err, errNoAnswer):
		return bye("4.4.2", "Nothing was heard of you for too long, please come again")
	case !errors.Is(err, io.EOF):
		c.log.Debug("connection lost", "error", err)
	}
	return reply{close: true}
}
