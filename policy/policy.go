// Package policy stands beside the MTA and decides over the mail of accounts: who may have mail accepted, and which message
// counts for whom. It speaks two protocols: Postfix's policy delegation (SMTPD_POLICY_README), by which it decides at RCPT,
// VRFY and ETRN and remembers nothing, and the milter protocol, by which it counts what was accepted. Exim, which has no
// milters, asks all by the first, from its ACLs: at RCPT and ETRN, at the end of a message, which is counted then, and
// when it deleted one that was counted because its client had gone.
//
// # Promises
//
// A message is counted if and only if the MTA was told to accept it, once, for each account that a RCPT
// which was accepted named, with its true size, and before that is durable the MTA does not hear so. That holds
// through a kill of the process, and for what a content filter gives back. Without a ledger that can be written to nothing of
// ours is accepted; other domains are answered as before. No spelling of an address that Postfix delivers to
// an account's domain passes uncounted: it is read as Postfix reads it, or refused. Where an account's
// mail is not accepted above a limit, the message that crosses it is the last one, on however many
// connections they come.
//
// # What it does not do
//
// It cannot see what a milter behind it refuses, nor a failure of cleanup(8) to close the queue file after the last
// milter was asked; nor that Exim was killed between its question and the end of its writing, of which its spool tells.
// It does not deliver, hold or release mail.
//
// # Security
//
// Peers are trusted to be the MTA: whoever can reach the sockets can ask what domains exist and can
// have messages counted. What they send is nonetheless bounded in size, number and time, and a bad
// request costs its sender the connection and nobody else anything. Neither bodies nor headers are
// kept. That a message was counted when it came in is believed of one that comes from this host alone.
// What is answered is one line of ASCII, with nothing in it that a client sent: Exim gives it to the client as it is.
package policy

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"mailbag/cmd/door"
	"mailbag/meter"

	"github.com/prometheus/client_golang/prometheus"
)

// Accounts is the live view of the ledger, usually a [meter.Follower].
type Accounts interface {
	// Directory is the latest snapshot, or nil while the ledger has never been read.
	Directory() *meter.Directory
	// Available is nil when the ledger can be written to, else it says why not.
	Available() error
}

// Recorder makes messages durable, usually a [meter.Recorder].
type Recorder interface {
	// Record counts the message for each of its accounts if answer, which it calls once that is durable, returns nil. It
	// returns [meter.ErrLimit] without a call where one of them is at its limit.
	Record(m meter.Message, answer func() error) error
	// Unheard takes back a message whose answer nobody read.
	Unheard(instance string)
	// CountedUnder returns the accounts for which a message was counted under one of the queue IDs, since then.
	CountedUnder(ctx context.Context, queueIDs []string, since time.Time) ([]int64, error)
}

// Lists tells which recipients an account accepts, usually a [meter.Ledger].
type Lists interface {
	Accepts(ctx context.Context, d *meter.Directory, a *meter.Account, addr meter.Address) (bool, error)
}

// Usage tells what an account has used, usually a [meter.Ledger]. It is asked only for accounts
// that have a limit beyond which mail is not accepted.
type Usage interface {
	Usage(ctx context.Context, accountID int64, month meter.Month) (meter.Usage, error)
	// NearUsage may lack what was counted last, and costs less.
	NearUsage(ctx context.Context, accountID int64, month meter.Month) (meter.Usage, error)
}

// Turns opens turns: the live channels through which held mail goes to its account.
type Turns interface {
	// OpenTurn opens a turn to the account for a client (its IP address), which waits for it, and which
	// the MTA lets go after 100 s. It returns nil when the customer's server is ready to take the mail, and
	// also when a turn is open already or nothing waits. The error is [ErrUnreachable], or says why no
	// turn is to be had now.
	OpenTurn(ctx context.Context, a *meter.Account, client string) error
	// TurnOpen reports whether a turn to the account is open.
	TurnOpen(ctx context.Context, a *meter.Account) bool
}

// Waiting tells what waits for an account in domains of its, and what the MTA's queue last had for one whose mail is
// relayed, usually a [meter.Ledger].
type Waiting interface {
	Waiting(ctx context.Context, accountID int64, domains ...string) (meter.Waiting, error)
	// Called records that the account's customer asked for mail while none waited.
	Called(ctx context.Context, accountID int64) error
	Queued(ctx context.Context, accountID int64) (meter.Waiting, error)
}

// A Flusher has the MTA try now what it has for a domain.
type Flusher interface {
	Flush(ctx context.Context, domain string) error
}

// ErrUnreachable says that the customer's mail server does not take mail now.
var ErrUnreachable = errors.New("the customer's mail server cannot be reached")

// Limits are what an account has that does not set its own.
type Limits struct {
	Messages int64         // a month; 0: no limit
	Bytes    int64         // octets a month; 0: no limit
	OnLimit  meter.OnLimit // what happens to mail above; empty: [meter.Bill]
}

// Config is what a [Policy] acts on.
type Config struct {
	Accounts Accounts
	Recorder Recorder
	Lists    Lists
	Usage    Usage
	Waiting  Waiting
	Turns    Turns   // nil: nothing opens turns, ETRN is answered 458
	Flusher  Flusher // for Exim's ETRN; nil: that of a backup account is answered 458

	Limits   func() Limits  // asked for each decision; nil: none
	Location *time.Location // the billing time zone; nil: UTC

	Now     func() time.Time // nil: time.Now
	Logger  *slog.Logger     // nil: discard
	Metrics prometheus.Registerer
	Bounds  Bounds // the zero value stands for the defaults
}

// A Policy answers the MTA. Its Serve methods may run at once, each on any number of listeners.
type Policy struct {
	cfg     Config
	log     *slog.Logger
	now     func() time.Time
	metrics *metrics

	backlogs sync.Map // *backlog, by the ID of its account

	requests *server
	milters  *server

	unrecorded door.Throttle
	notOpened  door.Throttle

	trying sync.Map // domains for which a Flusher is at work
}

// New returns a Policy. The error says which metric is registered already.
func New(cfg Config) (*Policy, error) {
	if cfg.Location == nil {
		cfg.Location = time.UTC
	}
	if cfg.Limits == nil {
		cfg.Limits = func() Limits { return Limits{} }
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.Bounds = cfg.Bounds.withDefaults()
	m, err := newMetrics(cfg.Metrics)
	if err != nil {
		return nil, err
	}
	p := &Policy{
		cfg:     cfg,
		log:     cfg.Logger,
		now:     cfg.Now,
		metrics: m,
	}
	b := cfg.Bounds
	p.requests = (&server{name: "policy", limit: requestLimit, idle: b.Idle, drain: drainRequests, session: p.serveRequests,
		bounds: b, log: p.log, metrics: m}).init()
	p.milters = (&server{name: "milter", limit: packetLimit, idle: b.Message, drain: drainMessages, session: p.serveMilter,
		bounds: b, log: p.log, metrics: m}).init()
	return p, nil
}

// ServeRequests answers policy delegation requests until Shutdown, then returns nil. The listener
// is closed when it returns.
func (p *Policy) ServeRequests(l net.Listener) error { return p.requests.serve(l) }

// ServeMilter records messages as a milter until Shutdown, then returns nil. The listener is closed
// when it returns.
func (p *Policy) ServeMilter(l net.Listener) error { return p.milters.serve(l) }

// Shutdown lets the milter finish the messages that it is in, then answers every request that has arrived whole, and closes
// idle connections. The milter is first, because Postfix asks about the recipients of these messages meanwhile. When ctx
// ends first, connections are closed as they are and its error is returned; a message whose answer the MTA then
// lacks is refused for a while by it and comes again.
func (p *Policy) Shutdown(ctx context.Context) error {
	return errors.Join(p.milters.shutdown(ctx), p.requests.shutdown(ctx))
}
