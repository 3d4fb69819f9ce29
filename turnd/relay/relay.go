// Package relay carries mail over one connection to a customer's mail server, as its SMTP client
// (RFC 5321), at the speed of the line.
//
// Several senders hand messages over at once ([Channel.Begin]); the channel writes them onto the one
// connection back to back and tells each what the server said, and what came of it ([Fate]). How depends on what the server
// offers:
//
//   - CHUNKING and PIPELINING (RFC 3030, RFC 2920): once there is more than one message, a probe asks the server what it does with
//     a chunk behind what it refused. Where it reads it, as RFC 3030, section 2, has it, MAIL, RCPT, BDAT and the content go out
//     together and the channel does not wait, whoever sender and recipients are. Where it takes it for commands, it gets no
//     chunk before the recipients are accepted.
//   - PIPELINING alone, and for a message that is the only one: one round trip a message. The end of one message, and MAIL, RCPT
//     and DATA of the next, are one group (RFC 2920, section 3.1).
//   - neither: lock step.
//
// What is offered and does not work is found out where the protocol has a way to, and left alone from then on ([Lessons]).
//
// # Promises
//
// A message counts as taken only when the server has said so, in sequence. A reply that is out of
// sequence, or none at all for too long, ends the channel, and everything unanswered is reported as
// transient. A refusal that says nothing of the message (RFC 5321: 500, 502, 503, 504, 530) is transient too. Content passes
// octet for octet; where it has to travel by DATA, leading dots are doubled (RFC
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
// opportunistic (RFC 7435) unless it is required: the certificate is whatever the caller's TLS configuration accepts.
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
	ErrLost = errors.New("the connection to the customer's server was lost")
	// ErrDismissed is an ErrLost: the server said that it closes. What it did not answer it has not looked at.
	ErrDismissed = fmt.Errorf("%w: it closes", ErrLost)
	ErrStalled   = errors.New("the customer's server did nothing for too long")
	ErrSequence  = errors.New("the customer's server answered out of sequence")
	ErrRefused   = errors.New("the customer's server does not take mail now")
	ErrSelf      = errors.New("the customer's server is this mail system itself")
	ErrTLS       = errors.New("the customer's server offers STARTTLS and does not do it")
	ErrNoTLS     = errors.New("the customer's server does not offer STARTTLS, which is required")
	ErrClosed    = errors.New("the channel is closed")
)

var (
	// errUnsettled: it cannot be told to what its replies belong any more; no message under way has harmed it.
	errUnsettled = fmt.Errorf("%w", ErrSequence)
	errBrokenOff = fmt.Errorf("%w: a message broke off on its way", ErrLost)
	errProbe     = fmt.Errorf("%w: to a chunk without recipients", ErrSequence)

	// errParameter is told to the MTA when the message waits for another try.
	errParameter = errors.New("the customer's server does not take a parameter of an extension that it offers")
)

// Limits of a channel. Zero fields stand for the defaults.
type Limits struct {
	Greeting time.Duration // for greeting, EHLO and STARTTLS in all; 60 s
	Stall    time.Duration // without an octet taken or a reply given while one of them is due; 10 min (RFC 5321, section 4.5.3.2), half for those to MAIL, RCPT and DATA
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
	Hostname   string      // in EHLO; a server of this name is ErrSelf
	StartTLS   *tls.Config // for STARTTLS where the server offers it; nil: not tried
	RequireTLS bool        // without it there is no channel: ErrNoTLS, ErrTLS
	Reversed   bool        // the server is behind a client that relays line by line (see lineWriter)
	Many       bool        // more than one message is to be expected
	Without    Lessons     // what is known not to work
	// MaxMessages is how many transactions the connection may have, as far as is known; 0: nobody knows. The server may
	// name fewer (RFC 9422).
	MaxMessages int
	Limits      Limits
}

// A Channel is one connection to a customer's server that is ready for mail. Its methods may be called
// by any number of goroutines.
type Channel struct {
	conn        net.Conn
	in          *bufio.Reader
	out         *bufio.Writer
	extensions  Extensions
	limits      Limits
	hostname    string
	many        bool
	dialled     bool
	maxMessages int // 0: no limit
	tls         string

	mu           sync.Mutex
	changed      *sync.Cond      // of everything below
	queue        []*Delivery     // to be sent, oldest first
	working      *Delivery       // on which the writer works
	due          []due           // replies that the server owes, in their order
	doubted      []*Delivery     // refused, maybe for a parameter
	chunks       chunkUse        // how content travels
	withoutData  bool            // DATA is not known
	probed       []Reply         // to a probe, so far
	doubt        bool            // a chunk behind refused recipients may have been taken for commands
	lessons      Lessons         // what does not work
	transactions int             // begun
	opened       int             // MAIL commands that were accepted
	probes       int             // among them
	fates        [Choked + 1]int // of settled deliveries
	brought      int             // messages with a last word on some recipient
	chunked      bool            // a chunk was accepted
	spurned      int             // messages whose chunk was put off before any was accepted
	weary        int             // MAIL commands in succession that were put off
	wary         int             // how much was refused lately, see waryStep
	pace         pace
	writing      bool  // the line has been given octets that it has not taken yet
	quit         bool  // nothing more is to come
	limited      bool  // the last MAIL was put off because of a limit of the protocol
	boundary     bool  // the server ended the connection between two messages
	failure      error // why the channel is over; nil while it is not
	unsent       error // why nothing can be written any more, while replies are still read
	stall        *time.Timer

	ended chan struct{}  // closed when the channel is over
	over  sync.WaitGroup // the reader and the writer
}

// Open reads the greeting of the server at the other end of conn, and introduces itself. in, which may be
// nil, holds what the server already sent. The channel owns conn, whether or not there is an error;
// errors are ErrLost, ErrStalled, ErrRefused, ErrSelf, ErrTLS and ErrNoTLS, wrapped with what the server said.
func Open(ctx context.Context, conn net.Conn, in *bufio.Reader, o Options) (*Channel, error) {
	c := &Channel{conn: conn, in: in, limits: o.Limits.withDefaults(), hostname: o.Hostname, many: o.Many, dialled: !o.Reversed, wary: mostWary, lessons: o.Without, ended: make(chan struct{})}
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
	c.extensions = c.extensions.without(o.Without)
	if c.maxMessages = o.MaxMessages; c.maxMessages == 0 || c.extensions.MaxMessages > 0 && c.extensions.MaxMessages < c.maxMessages {
		c.maxMessages = c.extensions.MaxMessages
	}
	if !c.extensions.Chunking || !c.extensions.Pipelining || c.maxMessages > 0 && c.maxMessages < fewMessages {
		c.chunks = byData
	}
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

// fewMessages on a connection are not worth a probe, which counts as one.
const fewMessages = 4

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
	switch {
	case c.tls != "":
		return nil
	case o.StartTLS == nil || !c.extensions.StartTLS:
		if o.RequireTLS {
			return ErrNoTLS
		}
		return nil
	}
	reply, err := c.say("STARTTLS")
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", ErrTLS, opening("no reply to STARTTLS", err))
	case reply.Code == 220:
	case o.RequireTLS || reply.Code == 421:
		return fmt.Errorf("%w: it answered %v", ErrTLS, reply)
	default:
		return nil // opportunistic: RFC 3207, section 4.1, leaves it to the client to go on
	}
	return c.secure(ctx, o)
}

// secure is the part of the dialogue from STARTTLS on. Whatever fails there, fails for TLS: a server that wants another
// certificate of ours, for one, says so when the handshake is over for us (RFC 8446, section 4.4.2.4).
func (c *Channel) secure(ctx context.Context, o Options) error {
	if c.in.Buffered() > 0 {
		return fmt.Errorf("%w: it sent more behind its reply", ErrTLS)
	}
	secured := tls.Client(c.conn, o.StartTLS)
	if err := secured.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("%w: %w", ErrTLS, err)
	}
	c.conn, c.in = secured, bufio.NewReader(secured)
	c.noteTLS()
	err := c.hello(o.Hostname) // RFC 3207, section 4.2: what was learned before is discarded
	if err != nil && !errors.Is(err, ErrSelf) {
		return fmt.Errorf("%w: %w", ErrTLS, err)
	}
	return err
}

func (c *Channel) hello(hostname string) error {
	reply, err := c.say("EHLO " + hostname)
	if err == nil && reply.Code/100 == 5 { // one that is put off is none that knows no EHLO
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

// Extensions are what the server offers, but for what it turned out not to do.
func (c *Channel) Extensions() Extensions {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.extensions.without(c.lessons)
}

// Lessons are what the server offers and does not do, those that were known before among them.
func (c *Channel) Lessons() Lessons {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lessons
}

// Takes reports whether messages may still be handed over.
func (c *Channel) Takes() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failure == nil && !c.quit
}

// Brought is how many messages came to an end on this channel: delivered or finally refused, for a recipient at least.
func (c *Channel) Brought() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.brought
}

// Fates is how many messages had a fate on this channel.
func (c *Channel) Fates(f Fate) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.fates[f]
}

// Served is how many transactions the server had opened when it ended the connection between two of them, or would take no
// more; 0: it did not.
func (c *Channel) Served() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.boundary || c.tired() && c.limited {
		return c.opened
	}
	return 0
}

// Pace is how long messages take on this channel, from MAIL to the last reply: the least of any, and the smoothed
// mean of the latest. Both are 0 before the first.
func (c *Channel) Pace() (least, mean time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pace.least, c.pace.mean
}

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
