// Package turn runs turns: live channels to accounts, through which the mail goes that is held for them.
//
// A turn is a socket that exists only while it is open. The MTA's lmtp client delivers an account's mail
// there ([Config.Listen]) and nowhere else, so without a turn no held message moves. What the turn
// delivers it has released by queue ID, a window at a time and oldest first, and hands it on to the
// customer's server (package relay): over the customer's own connection, reversed
// (On-Demand Mail Relay, RFC 2645: [Turns.Reverse]), or over one dialled to the account's host (ETRN, RFC
// 1985: [Turns.Dial]), and a next one for as long as the last one brought anything to its end.
//
// A server that limits what it takes on one connection, or closes one, ends no turn that can dial. What was under way when a
// connection broke is suspect, and goes last and alone, in this turn and in the next ones, so that a message at which a
// server breaks off holds up no other; it is tried once in each turn. What a server taught is remembered for a day.
//
// # Promises
//
// The MTA is told that a message is delivered only when the customer's server has said so, and what that has taken is not
// sent again when the MTA did not hear it and brings it once more in the same turn. Only recipients
// in the account's own domains are taken, and where ATRN named domains, only in those. An account has one
// turn at a time. A turn ends when nothing waits any more, when there is no further connection, when nothing moves
// for too long, or when it is told to; what was not delivered by then is still in the MTA's queue.
//
// # What it does not do
//
// It decides neither who may have a turn nor for which domains: its callers do. It keeps no mail: the
// index of what waits is the ledger's, and what it strikes off there the MTA has been told before.
//
// # Security
//
// Whoever can connect to an account's socket while its turn is open can have mail delivered to that
// account, so the directory of the sockets must be closed to everybody but the MTA. The customer's server
// is not trusted. Nothing of a message is logged but its queue ID.
package turn

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"mailbag/meter"
	"mailbag/turnd/relay"
)

// Why there is no turn. [meter.ErrUnavailable] is one more.
var (
	ErrNothingWaits = errors.New("no mail waits")
	ErrOpen         = errors.New("a turn is open already")
	ErrTooMany      = errors.New("too many turns are open")
	ErrNotDelivered = errors.New("the mail system does not deliver at the moment")
	ErrUnreachable  = errors.New("the customer's server cannot be reached")
	ErrSelf         = relay.ErrSelf
	ErrLimited      = errors.New("the customer's server takes no more on this connection")
	ErrClosing      = errors.New("mailbag-turnd was stopped")
	ErrEnded        = errors.New("ended by the operator")
	ErrSuspended    = errors.New("the account was suspended")
	ErrDeleted      = errors.New("the account was deleted")
)

// A Releaser makes the MTA try held messages now.
type Releaser interface {
	// Release has the MTA try each of the messages, and no other. One that is gone keeps it from none of the others.
	Release(ctx context.Context, ids ...string) error
	// Flush has the MTA try all mail of a domain that it relays by itself.
	Flush(ctx context.Context, domain string) error
}

// Config is what turns act on.
type Config struct {
	Accounts interface{ Directory() *meter.Directory }
	Ledger   *meter.Ledger
	Release  Releaser
	// Missing returns those of the messages that the MTA's queue does not have for delivery; nil: nobody can tell. It is
	// asked only about messages that the MTA did not bring.
	Missing func(ctx context.Context, ids []string) ([]string, error)
	// Listen opens the socket of an account's turn. Closing the listener removes the socket.
	Listen   func(ctx context.Context, account string) (net.Listener, error)
	Hostname string      // in greetings and EHLO
	TLS      *tls.Config // for STARTTLS at accounts' hosts; nil: opportunistic, no certificate is verified (RFC 7435)
	// Dial connects to an account's host; nil: a net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Self tells an address of this mail system, to which no turn goes; nil: none is.
	Self func(netip.AddrPort) bool

	Bounds func() Bounds // asked again and again, also by turns that are open
	Limits relay.Limits

	Now     func() time.Time // nil: time.Now
	Logger  *slog.Logger     // nil: discard
	Metrics prometheus.Registerer
}

// Bounds are what turns may take.
type Bounds struct {
	Window    int           // messages released and not yet answered, of one turn
	MaxTurns  int           // open at once
	FirstWait time.Duration // for the MTA to deliver what was released
	IdleWait  time.Duration // for more mail when nothing waits
}

// Each message that was released has a process of the MTA's, up to the limit of its transport
// (mailbag-turn_destination_concurrency_limit), so the windows are the bound of processes too: of one turn, and of all
// together. A turn has minWindow whatever the others have.
const (
	maxWindow  = 110 // what 100 processes need not to wait for the next message
	allWindows = 1000
	minWindow  = 5
)

// Turns are the turns of a mail system. Their methods may be called by any number of goroutines.
type Turns struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics

	released  atomic.Int64 // what all windows have outstanding
	confirmed *confirmed   // what customers' servers have
	memory    *memory      // what they taught

	mu      sync.Mutex
	open    map[string]*turn // by account
	closing bool
	running sync.WaitGroup
}

// New returns the turns of a mail system. Its error says which metric is registered already.
func New(cfg Config) (*Turns, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Dial == nil {
		cfg.Dial = (&net.Dialer{Timeout: dialTime}).DialContext
	}
	if cfg.Self == nil {
		cfg.Self = func(netip.AddrPort) bool { return false }
	}
	if cfg.TLS == nil {
		cfg.TLS = opportunistic()
	}
	ts := &Turns{cfg: cfg, log: cfg.Logger, open: map[string]*turn{}, confirmed: newConfirmed(), memory: newMemory(cfg.Now)}
	var err error
	ts.metrics, err = newMetrics(cfg.Metrics, ts)
	return ts, err
}

// opportunistic takes whatever TLS a server has: old TLS is better than none (RFC 7435, section 3).
func opportunistic() *tls.Config {
	c := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10}
	for _, suite := range slices.Concat(tls.CipherSuites(), tls.InsecureCipherSuites()) {
		c.CipherSuites = append(c.CipherSuites, suite.ID)
	}
	return c
}

// A Client is who asked for a turn.
type Client struct {
	Addr string // IP address
	TLS  string // version, such as "TLS 1.3"; empty: none
}

// Waiting is how much waits for the account, or for some of its domains.
func (ts *Turns) Waiting(ctx context.Context, a *meter.Account, domains []string) (meter.Waiting, error) {
	return ts.cfg.Ledger.Waiting(ctx, a.ID, domains...)
}

// Flush has the MTA try the mail of a backup account now.
func (ts *Turns) Flush(ctx context.Context, a *meter.Account) error {
	for _, domain := range a.Domains {
		if err := ts.cfg.Release.Flush(ctx, domain); err != nil {
			return err
		}
	}
	return nil
}

// Reverse begins a turn over a connection that the customer opened and is going to be reversed (ATRN).
// Domains are some of the account's, or none for all. It returns when the MTA delivers: the caller then
// answers 250 and calls Run. Errors are ErrNothingWaits, ErrOpen, ErrTooMany, ErrNotDelivered,
// ErrClosing, ErrEnded, ErrSuspended, ErrDeleted, [meter.ErrUnavailable] and those of ctx.
func (ts *Turns) Reverse(ctx context.Context, a *meter.Account, domains []string, c Client) (*Reversal, error) {
	t := ts.new(a, meter.TurnATRN, c)
	t.domains = slices.Clone(domains)
	t.record.Peer, t.record.TLS = c.Addr, c.TLS
	if err := t.reserve(ctx); err != nil {
		return nil, err
	}
	if err := t.begin(ctx); err != nil {
		t.leave()
		return nil, err
	}
	if err := t.openGate(ctx); err != nil {
		t.end("refused", err)
		return nil, err
	}
	patience := time.NewTimer(ts.cfg.Bounds().FirstWait)
	defer patience.Stop()
	var err error
	for err == nil {
		select {
		case <-t.gate.connected:
			return &Reversal{t}, nil
		case <-patience.C:
			err = t.window.unbegun(ctx)
			select {
			case <-t.gate.connected: // while the queue was listed
				return &Reversal{t}, nil
			default:
			}
			patience.Reset(ts.cfg.Bounds().FirstWait)
		case <-t.stop:
			err = t.why()
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	t.gate.fail(err)
	t.end("not begun", err)
	return nil, err
}

// A Reversal is a turn that waits for its connection.
type Reversal struct{ t *turn }

// Run carries the mail over the reversed connection until the turn is over, and closes it. in holds what
// the client has sent already. It returns nil when the turn ended because nothing was left.
func (r *Reversal) Run(conn net.Conn, in *bufio.Reader) error {
	t := r.t
	l := t.newLine(t.many(t.immediate))
	o := l.options()
	o.Reversed = true
	if o.Limits.Greeting == 0 {
		o.Limits.Greeting = greetTime // nobody waits
	}
	channel, err := relay.Open(t.immediate, conn, in, o)
	if err != nil {
		t.gate.fail(err)
		t.end("no session", err)
		return err
	}
	return t.serve(l, channel)
}

// Cancel ends the turn without one message, where its connection broke before it was reversed.
func (r *Reversal) Cancel() {
	r.t.gate.fail(relay.ErrLost)
	r.t.end("no session", relay.ErrLost)
}

// Dial begins a turn over connections to the account's host (ETRN). It returns nil once the server
// there is ready for mail; the turn then goes on by itself. A host that was not reached is not tried again for
// a minute, but for an operator, who has no address: the error is the one that it was then. Errors are ErrNothingWaits, ErrOpen,
// ErrTooMany, ErrUnreachable, ErrSelf, ErrClosing, ErrEnded, [meter.ErrUnavailable] and those of ctx.
func (ts *Turns) Dial(ctx context.Context, a *meter.Account, c Client) error {
	t := ts.new(a, meter.TurnETRN, c)
	t.record.Peer = a.Host
	if err := ts.memory.failed(a.ID, a.Host); err != nil && c.Addr != "" && !t.Open(a.Name) {
		return err
	}
	if err := t.reserve(ctx); err != nil {
		return err
	}
	l := t.newLine(t.many(ctx))
	channel, peer, err := l.connect(ctx)
	if err != nil {
		if ctx.Err() == nil && (errors.Is(err, ErrUnreachable) || errors.Is(err, ErrSelf)) {
			ts.memory.unreachable(a.ID, a.Host, err)
		}
		t.end("unreachable", err)
		return err
	}
	ts.memory.reached(a.ID)
	t.mu.Lock()
	t.record.Peer, t.record.TLS = peer, channel.TLS()
	t.mu.Unlock()
	if err = t.begin(ctx); err == nil {
		err = t.openGate(ctx)
	}
	if err != nil {
		channel.Close()
		t.end("not begun", err)
		return err
	}
	go t.serve(l, channel) // end, which Shutdown waits for, is the last that it does
	return nil
}

// Open reports whether the account has a turn, or is about to have one.
func (ts *Turns) Open(account string) bool {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	return ts.open[account] != nil
}

// Status is how a running turn is.
type Status struct {
	Account  string         `json:"account"`
	Kind     meter.TurnKind `json:"kind"`
	Client   string         `json:"client"`
	Peer     string         `json:"peer"`
	TLS      string         `json:"tls,omitempty"`
	Began    time.Time      `json:"began"`
	Messages int64          `json:"messages"`
	Bytes    int64          `json:"bytes"`

	Connections int      `json:"connections"`        // begun so far
	Suspects    []string `json:"suspects,omitempty"` // queue IDs under which a connection broke while they went alone
}

// List returns the running turns, oldest first.
func (ts *Turns) List() []Status {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	list := []Status{}
	for _, t := range ts.open {
		r := t.status()
		list = append(list, Status{r.Account, r.Kind, r.Client, r.Peer, r.TLS, r.Began, r.Messages, r.Bytes, r.Connections, r.Suspects})
	}
	slices.SortFunc(list, func(a, b Status) int { return a.Began.Compare(b.Began) })
	return list
}

// End lets the account's turn finish what it has in flight and ends it. It returns false when there is
// none.
func (ts *Turns) End(account string) bool {
	ts.mu.Lock()
	t := ts.open[account]
	ts.mu.Unlock()
	if t != nil {
		t.halt(ErrEnded)
	}
	return t != nil
}

// Shutdown opens no more turns, lets those that are open finish what they have in flight, and waits for
// them. When ctx is over they are cut off, and its error is returned.
func (ts *Turns) Shutdown(ctx context.Context) error {
	ts.mu.Lock()
	ts.closing = true
	open := make([]*turn, 0, len(ts.open))
	for _, t := range ts.open {
		open = append(open, t)
	}
	ts.mu.Unlock()
	for _, t := range open {
		t.halt(ErrClosing)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		ts.running.Wait()
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
	}
	for _, t := range open {
		t.cut()
	}
	<-ended
	return fmt.Errorf("turns were cut off: %w", ctx.Err())
}

// share is how many messages a turn may have released at the most, and free how many more all turns together may.
func (ts *Turns) share() (share, free int) {
	free = allWindows - int(ts.released.Load())
	ts.mu.Lock()
	defer ts.mu.Unlock()
	return max(minWindow, min(ts.cfg.Bounds().Window, maxWindow, allWindows/max(1, len(ts.open)))), free
}
