// Package login checks who logs in: SASL (RFC 4422) and plain user names with passwords, for every
// protocol that customers speak to mailbag, against the verifiers of the ledger.
//
// # What it promises
//
// Mechanisms are SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677; bound to the channel by
// tls-exporter, RFC 9266, with TLS 1.3 and by tls-unique, RFC 5929, with TLS 1.2), CRAM-MD5 (RFC 2195)
// where an account has it, and, where nobody can listen or the operator does not mind, PLAIN (RFC 4616)
// and LOGIN. An [Exchange] is a Server of github.com/emersion/go-sasl.
//
// A log-in that does not exist, or has nothing that the mechanism needs, takes the same steps, the
// same work and the same time as one with a wrong password, and gets the same answer: also where
// verifiers came from elsewhere and have other iteration counts and salts than ours. That an
// account is suspended, or may not log in here, is told only to who knew the password.
//
// Failures slow down what follows, by the client's address and by the log-in that was tried, as
// [Guard] describes.
//
// # What it does not do
//
// It speaks no protocol: base64, the cancelling "*", "=" for an empty initial response and the
// replies are the caller's. It does not bound how many connections a client has, and takes for the
// client's address what the caller says.
//
// # Log
//
// Each failed log-in is one line of level WARN. The first words are the same in every version, for
// fail2ban; the client cannot put anything before them, and not its own address but where it stands:
//
//	msg="log-in failed" service=turnd client=192.0.2.1 user=acme mechanism=PLAIN reason=wrong-password
//
// The client is an IPv4 or IPv6 address without port or brackets. The user is as the client gave it, at most
// 128 octets of it, in quotes with Go's escapes wherever it has anything but printable characters without
// space, quote or equals sign. The mechanism is SASL's name for it, or USER. Reasons are unknown-login,
// wrong-password, no-cram-md5, channel-binding, authorization-identity and malformed.
//
// Who knew the password and is not let in leaves a line with msg="log-in refused" and the reason
// suspended or not-allowed, which is no ground for a ban. What is throttled before it is checked leaves
// no line, so that nobody can fill the disk; all log-ins are counted in mailbag_logins_total.
//
// # Security
//
// Passwords are neither kept nor logged. All comparisons take constant time. Each step of an
// exchange, each name and the number of password derivations that run at once are bounded; what
// [Guard] remembers is bounded too.
package login

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"mailbag/meter"
)

var (
	// ErrFailed says that the log-in or its password is wrong. It does not tell which.
	ErrFailed = errors.New("the user name or the password is wrong")

	// ErrMalformed is the ErrFailed of an exchange that broke the rules of its mechanism.
	ErrMalformed = fmt.Errorf("%w: the exchange does not follow the mechanism", ErrFailed)

	// ErrUnavailable says that nobody can be checked now, because the ledger cannot be read or
	// because the context is done.
	ErrUnavailable = errors.New("log-ins cannot be checked now")

	// ErrThrottled says that the client's network failed too often, or that too many answers wait to it or about the log-in.
	ErrThrottled = errors.New("too many log-ins failed; try again later")

	// ErrSuspended and ErrNotAllowed are for who gave the right password.
	ErrSuspended  = errors.New("the account is suspended")
	ErrNotAllowed = errors.New("the account may not log in here")

	// ErrUnknownMechanism says that the mechanism is not offered to this client.
	ErrUnknownMechanism = errors.New("the mechanism is not offered")

	// ErrEncryptionRequired says that a password would cross the network in the clear.
	ErrEncryptionRequired = errors.New("encryption is required before a password is sent")
)

// Accounts is the live view of the ledger, usually a [meter.Follower].
type Accounts interface {
	// Directory is the latest snapshot, or nil while the ledger has never been read.
	Directory() *meter.Directory
}

// Verifiers is where the verifiers are, usually a [meter.Ledger].
type Verifiers interface {
	// Verifier returns the verifier of a log-in, nil when it has none.
	Verifier(ctx context.Context, login string) (*meter.Verifier, error)
}

// Config is what a [Checker] acts on.
type Config struct {
	Service   string // who asks, for the log: "turnd" or "popd"
	Hostname  string // the server's own, for CRAM-MD5's challenges
	Accounts  Accounts
	Verifiers Verifiers
	Names     Names // AccountNames or MailboxNames

	// Modes are those of the accounts that log in here at all: what others keep is not offered for
	// it. Nil: every one.
	Modes []meter.Mode

	// Admit is asked about who gave the right password and is not suspended. Its error is why this
	// log-in may not be used here, such as the account's mode or the client's network. Nil: all may.
	Admit func(Identity, netip.Addr) error

	Guard   *Guard           // nil: a new one
	Now     func() time.Time // nil: time.Now
	Logger  *slog.Logger     // nil: discard
	Metrics prometheus.Registerer
}

// A Checker checks log-ins. It is safe for concurrent use.
type Checker struct {
	cfg     Config
	metrics *metrics
	derive  chan struct{} // as many password derivations may run at once
}

// New returns a Checker. The error says which metric is registered already.
func New(cfg Config) (*Checker, error) {
	if cfg.Admit == nil {
		cfg.Admit = func(Identity, netip.Addr) error { return nil }
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Guard == nil {
		cfg.Guard = &Guard{Now: cfg.Now}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	m, err := newMetrics(cfg.Metrics)
	if err != nil {
		return nil, err
	}
	// Half of the processors stay free for who is logged in already.
	return &Checker{cfg: cfg, metrics: m, derive: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2))}, nil
}

// Mechanisms returns what is offered to a client, the strongest first.
func (c *Checker) Mechanisms(p Peer) []string {
	var names []string
	for _, m := range mechanisms {
		if m.offered(c, p) && (!m.plain || p.PlainAllowed()) {
			names = append(names, m.name)
		}
	}
	return names
}

// Start begins an exchange by a mechanism, whose name may be in any case. Errors are
// [ErrUnknownMechanism] and [ErrEncryptionRequired]. The context bounds the whole exchange.
func (c *Checker) Start(ctx context.Context, p Peer, mechanism string) (*Exchange, error) {
	for _, m := range mechanisms {
		switch {
		case !strings.EqualFold(m.name, mechanism):
		case m.plain && !p.PlainAllowed():
			return nil, ErrEncryptionRequired
		case m.offered(c, p):
			x := &Exchange{c: c, ctx: ctx, peer: p, mechanism: m.name}
			x.server = m.server(x)
			return x, nil
		}
	}
	return nil, ErrUnknownMechanism
}

// Password checks a user name with its password, as POP3's USER and PASS give them. Errors are
// [ErrEncryptionRequired] and those of [Exchange.Next].
func (c *Checker) Password(ctx context.Context, p Peer, name, password string) (Identity, error) {
	if !p.PlainAllowed() {
		return Identity{}, ErrEncryptionRequired
	}
	return c.password(ctx, p, byPassword, name, password)
}

func (c *Checker) password(ctx context.Context, p Peer, mechanism, name, password string) (Identity, error) {
	a, err := c.attempt(ctx, p, mechanism, name)
	if err != nil {
		return Identity{}, err
	}
	right, err := a.matches(ctx, password)
	if err != nil {
		return Identity{}, err
	}
	return a.finish(ctx, right, wrongPassword)
}
