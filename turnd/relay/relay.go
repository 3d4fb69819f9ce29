// Package relay carries mail over one connection to a customer's mail server, as its SMTP client
// (RFC 5321), at the speed of the line.
//
// Several senders hand messages over at once ([Channel.Begin]); the channel writes them onto the one
// connection back to back and tells each what the server said. How depends on what the server
// offers:
//
//   - CHUNKING and PIPELINING (RFC 3030, RFC 2920): MAIL, RCPT, BDAT and the content go out together and the
//     channel does not wait, unless the sender or a recipient is one whom this server has not accepted
//     before on this connection. Then it waits for its answers first: some servers answer BDAT after a
//     refusal without reading the chunk, and then take the content for commands.
//   - PIPELINING alone: one round trip a message. The end of one message, and MAIL, RCPT and DATA of the
//     next, are one group (RFC 2920, section 3.1).
//   - neither: lock step, with BDAT where CHUNKING is offered.
//
// # Promises
//
// A message counts as taken only when the server has said so, in sequence. A reply that is out of
// sequence, or none at all for too long, ends the channel, and everything unanswered is reported as
// transient. Content passes octet for octet; where it has to travel by DATA, leading dots are doubled (RFC
// 5321, section 4.5.2) and undone by the server. Nothing within a message can end it or become a command.
//
// # What it does not do
//
// It does not retry, keep mail, or choose recipients: what it is given it passes on, and envelope
// parameters as they are. Content with a bare LF must not be given to it.
//
// # Security
//
// The server is not trusted: replies are bounded, and reach the caller as printable ASCII. STARTTLS is
// opportunistic (RFC 7435): the certificate is whatever the caller's TLS configuration accepts.
package relay

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"
)

// What ends a channel, or keeps it from opening.
var (
	ErrLost     = errors.New("the connection to the customer's server was lost")
	ErrStalled  = errors.New("the customer's server did nothing for too long")
	ErrSequence = errors.New("the customer's server answered out of sequence")
	ErrRefused  = errors.New("the customer's server does not take mail now")
	ErrSelf     = errors.New("the customer's server is this mail system itself")
	ErrTLS      = errors.New("the customer's server offers STARTTLS and does not do it")
	ErrClosed   = errors.New("the channel is closed")
)

// Limits of a channel. Zero fields stand for the defaults.
type Limits struct {
	Greeting time.Duration // for greeting, EHLO and STARTTLS in all; 60 s
	Stall    time.Duration // without an octet taken or a reply given while one of them is due; 10 min (RFC 5321, section 4.5.3.2)
	Quit     time.Duration // for the answer to QUIT; 10 s
	Content  int           // octets of one message's content that wait in memory; 64 KiB
}

func (l Limits) withDefaults() Limits {
	for _, d := range []struct {
		value *time.Duration
		std   time.Duration
	}{{&l.Greeting, time.Minute}, {&l.Stall, 10 * time.Minute}, {&l.Quit, 10 * time.Second}} {
		if *d.value == 0 {
			*d.value = d.std
		}
	}
	if l.Content == 0 {
		l.Content = 64 << 10
	}
	return l
}

// Options of a channel.
type Options struct {
	Hostname string      // in EHLO; a server of this name is ErrSelf
	StartTLS *tls.Config // for STARTTLS where the server offers it; nil: not tried
	Reversed bool        // the server is behind a client that relays line by line (see lineWriter)
	Limits   Limits
}

// A Channel is one connection to a customer's server that is ready for mail. Its methods may be called
// by any number of goroutines.
type Channel struct {
	conn       net.Conn
	in         *bufio.Reader
	out        *bufio.Writer
	extensions Extensions
	limits     Limits
	tls        string

	mu      sync.Mutex
	changed *sync.Cond      // of everything below
	queue   []*Delivery     // to be sent, oldest first
	due     []due           // replies that the server owes, in their order
	known   map[string]bool // what the server accepted on this connection: MAIL or RCPT, and a path
	writing bool            // the line has been given octets that it has not taken yet
	quit    bool            // nothing more is to come
	failure error           // why the channel is over; nil while it is not
	unsent  error           // why nothing can be written any more, while replies are still read
	stall   *time.Timer

	ended chan struct{}  // closed when the channel is over
	over  sync.WaitGroup // the reader and the writer
}

// Open reads the greeting of the server at the other end of conn, and introduces itself. in, which may be
// nil, holds what the server already sent. The channel owns conn, whether or not there is an error;
// errors are ErrLost, ErrStalled, ErrRefused, ErrSelf and ErrTLS, wrapped with what the server said.
func Open(ctx context.Context, conn net.Conn, in *bufio.Reader, o Options) (*Channel, error) {
	c := &Channel{conn: conn, in: in, limits: o.Limits.withDefaults(), known: map[string]bool{}, ended: make(chan struct{})}
	c.changed = sync.NewCond(&c.mu)
	if c.in == nil {
		c.in = bufio.NewReader(conn)
	}
	conn.SetDeadline(time.Now().Add(c.limits.Greeting))
	unwatch := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	err := c.introduce(ctx, o)
	if !unwatch() {
		err = fmt.Errorf("%w: %w", ErrClosed, ctx.Err())
	}
	if err != nil {
		c.conn.Close()
		return nil, err
	}
	c.conn.SetDeadline(time.Time{})
	c.out = bufio.NewWriterSize(&progressWriter{c}, writeBuffer)
	if o.Reversed && c.tls != "" {
		c.out = bufio.NewWriterSize(&lineWriter{to: &progressWriter{c}}, writeBuffer)
	}
	c.stall = time.AfterFunc(time.Hour, c.stalled)
	c.stall.Stop()
	c.over.Go(c.read)
	c.over.Go(c.write)
	return c, nil
}

// introduce is the dialogue up to the first MAIL.
func (c *Channel) introduce(ctx context.Context, o Options) error {
	greeting, err := readReply(c.in)
	switch {
	case err != nil:
		return opening("no greeting", err)
	case greeting.Code != 220:
		return fmt.Errorf("%w: it greeted with %v", ErrRefused, greeting)
	}
	if name, _, _ := strings.Cut(greeting.Text, " "); strings.EqualFold(name, o.Hostname) {
		return ErrSelf
	}
	c.noteTLS()
	if err := c.hello(o.Hostname); err != nil {
		return err
	}
	if o.StartTLS == nil || !c.extensions.StartTLS || c.tls != "" {
		return nil
	}
	reply, err := c.say("STARTTLS")
	if err != nil {
		return opening("no reply to STARTTLS", err)
	}
	if reply.Code != 220 {
		return nil // opportunistic: RFC 3207, section 4.1, leaves it to the client to go on
	}
	if c.in.Buffered() > 0 {
		return fmt.Errorf("%w: it sent more behind its reply", ErrTLS)
	}
	secured := tls.Client(c.conn, o.StartTLS)
	if err := secured.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("%w: %w", ErrTLS, err)
	}
	c.conn, c.in = secured, bufio.NewReader(secured)
	c.noteTLS()
	return c.hello(o.Hostname) // section 4.2: what was learned before is discarded
}

func (c *Channel) hello(hostname string) error {
	reply, err := c.say("EHLO " + hostname)
	if err == nil && !reply.Positive() && reply.Code != 421 {
		reply, err = c.say("HELO " + hostname) // RFC 5321, section 3.2
		reply.Text, _, _ = strings.Cut(reply.Text, "\n")
	}
	switch {
	case err != nil:
		return opening("no reply to EHLO", err)
	case !reply.Positive():
		return fmt.Errorf("%w: it answered EHLO with %v", ErrRefused, reply)
	}
	var name string
	name, c.extensions = parseExtensions(reply)
	if strings.EqualFold(name, hostname) {
		return ErrSelf
	}
	return nil
}

func (c *Channel) say(command string) (Reply, error) {
	if _, err := c.conn.Write([]byte(command + "\r\n")); err != nil {
		return Reply{}, err
	}
	return readReply(c.in)
}

func (c *Channel) noteTLS() {
	if t, ok := c.conn.(*tls.Conn); ok {
		c.tls = tls.VersionName(t.ConnectionState().Version)
	}
}

// opening says why a channel did not come about.
func opening(what string, err error) error {
	var timeout net.Error
	switch {
	case errors.Is(err, errReply):
		return fmt.Errorf("%w: %w", ErrRefused, err)
	case errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("%w: %s", ErrStalled, what)
	}
	return fmt.Errorf("%w: %s: %w", ErrLost, what, err)
}

// Extensions are what the server offers.
func (c *Channel) Extensions() Extensions { return c.extensions }

// TLS is the version in force, such as "TLS 1.3"; empty: none.
func (c *Channel) TLS() string { return c.tls }

// Ended is closed when the channel is over.
func (c *Channel) Ended() <-chan struct{} { return c.ended }

// Err is why the channel ended, nil while it has not or when it ended by Quit.
func (c *Channel) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if errors.Is(c.failure, ErrClosed) {
		return nil
	}
	return c.failure
}

// Quit lets what was begun be finished, says QUIT and waits for the end. Messages that are handed over
// later are refused as transient.
func (c *Channel) Quit() error {
	c.mu.Lock()
	c.quit = true
	c.changed.Broadcast()
	c.mu.Unlock()
	c.over.Wait()
	return c.Err()
}

// Close drops the connection. Everything unanswered is reported as transient.
func (c *Channel) Close() {
	c.fail(ErrClosed)
	c.over.Wait()
}

// fail ends the channel, once, and answers everybody who waits.
func (c *Channel) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failure != nil {
		return
	}
	c.failure = err
	close(c.ended)
	c.stall.Stop()
	c.drop()
	for _, d := range c.due {
		if d.delivery != nil {
			c.settle(d.delivery, lost(err))
		}
	}
	for _, d := range c.queue {
		c.settle(d, lost(err))
	}
	c.due, c.queue = nil, nil
	c.changed.Broadcast()
}

// drop closes the connection, politely only where there is nothing left to be said.
func (c *Channel) drop() {
	if t, ok := c.conn.(*tls.Conn); ok && len(c.due) > 0 {
		t.NetConn().Close() // tls.Conn would wait for its alert to be written
		return
	}
	c.conn.Close()
}

// lost is what is said of a message that the server did not answer.
func lost(err error) Reply {
	if errors.Is(err, ErrClosed) {
		return Reply{451, "4.3.2 The turn is over, the message waits for the next one"}
	}
	return Reply{451, "4.4.2 " + printable([]byte(err.Error()))}
}

// stalled is called when nothing has moved for Limits.Stall while replies are due or something is being written, or
// for Limits.Quit after QUIT.
func (c *Channel) stalled() {
	c.mu.Lock()
	quit := len(c.due) == 1 && c.due[0].to == toQuit
	c.mu.Unlock()
	if quit {
		c.fail(ErrClosed)
		return
	}
	c.fail(ErrStalled)
}

// moved is called, with c.mu held, when something has moved.
func (c *Channel) moved() {
	switch {
	case c.failure != nil:
	case c.unsent != nil || len(c.due) > 0 && c.due[len(c.due)-1].to == toQuit:
		c.stall.Reset(c.limits.Quit) // what the server has said already is there soon
	case len(c.due) == 0 && !c.writing:
		c.stall.Stop()
	default:
		c.stall.Reset(c.limits.Stall)
	}
}
