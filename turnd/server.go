// Package turnd is where customers ask for their mail: a server for On-Demand Mail Relay (RFC 2645: EHLO,
// AUTH, ATRN) that takes ETRN (RFC 1985) on the same port. It decides who may ask for what, and leaves what
// comes then, the turn, to package turn.
//
// # What it promises
//
// Nobody gets mail, or has any delivered, of an account that is not his: ATRN serves the account that
// logged in and no other, ETRN the networks that the account names. A refusal does not tell to whom a
// domain belongs, nor whether it is one of ours. What a client sends behind ATRN belongs to the reversed
// session, to the octet; what it sends behind STARTTLS in the clear is dropped unread (RFC 3207, section 6).
// Answers to commands that came together leave together (RFC 2920).
//
// # What it does not do
//
// It takes no mail: MAIL and all that belongs to it are answered 502. It reads no settings and opens no
// socket; listeners, certificates, log-ins and turns are the caller's.
//
// # Security
//
// Who connects is a stranger. [Limits] bound lines, commands, failures, log-ins, time and connections; log-ins
// are package login's, with its own brakes. Nothing that a client sent is repeated to it, or logged, but
// what was read as a domain or a name.
package turnd

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"mailbag/cmd/door"
	"mailbag/meter"
	"mailbag/meter/login"
	"mailbag/turnd/turn"
)

// Accounts is the live view of the ledger, usually a [meter.Follower].
type Accounts interface {
	// Directory is the latest snapshot, or nil while the ledger has never been read.
	Directory() *meter.Directory
}

// Turns hands the mail over. [Over] makes one of a [turn.Turns].
type Turns interface {
	// Reverse makes a turn ready on the client's own connection; domains nil: all of the account's.
	// Errors are those of [turn.Turns.Reverse].
	Reverse(ctx context.Context, a *meter.Account, domains []string, c turn.Client) (Reversal, error)
	// Dial opens a turn to the account's host.
	Dial(ctx context.Context, a *meter.Account, c turn.Client) error
	// Flush has the MTA try the account's mail now.
	Flush(ctx context.Context, a *meter.Account) error
	// Asked reports whether mail waits for the account, in those of its domains or in all, of which its customer asks. It
	// costs little, however much does.
	Asked(ctx context.Context, a *meter.Account, domains []string) (bool, error)
	// Waiting is how much that is.
	Waiting(ctx context.Context, a *meter.Account, domains []string) (meter.Waiting, error)
	// Open reports whether a turn to the account of that name is open.
	Open(account string) bool
}

// A Reversal is a turn that waits for its connection: one of the two is called.
type Reversal interface {
	// Run has the turn on the connection, of which in holds what was read already, and closes it.
	Run(conn net.Conn, in *bufio.Reader) error
	Cancel()
}

// Over returns the turns as a [Server] takes them.
func Over(t *turn.Turns) Turns { return turns{t} }

type turns struct{ *turn.Turns }

func (t turns) Reverse(ctx context.Context, a *meter.Account, domains []string, c turn.Client) (Reversal, error) {
	r, err := t.Turns.Reverse(ctx, a, domains, c)
	if err != nil {
		return nil, err
	}
	return r, nil
}

// Config is what a [Server] acts on.
type Config struct {
	Hostname string // greets
	Accounts Accounts
	Logins   *login.Checker // with [login.AccountNames] and [Admit]
	Turns    Turns

	// TLS is asked for each connection what to do TLS with; nil, or a nil result: no TLS now.
	TLS func() *tls.Config

	Proxies func() []netip.Addr // whose connections, from then on, have to begin with a PROXY header; nil: nobody's
	Logger  *slog.Logger        // nil: discard
	Metrics prometheus.Registerer
	Limits  Limits // the zero value stands for the defaults
}

// Limits are what clients may take. Zero fields stand for the defaults.
type Limits struct {
	Connections int           // open at once; 1,000
	PerAddress  int           // of them from one IPv4 address or IPv6 /64; twice as many from a /56, four times from a /48; 20
	Grace       time.Duration // a client that may not ask for mail yet keeps its place for, when another wants it; 15 s
	Commands    int           // in a session; 100
	Failures    int           // commands answered 5yz in a session; 10
	Logins      int           // failed log-ins in a session; 3
	Idle        time.Duration // for a whole command to come; 5 min (RFC 5321, section 4.5.3.2.7)
	Session     time.Duration // from connecting to the reversal; 20 min
	Write       time.Duration // for a client to take replies; 1 min
	Handshake   time.Duration // of TLS; 30 s
}

func (l Limits) withDefaults() Limits {
	for _, n := range []struct {
		value *int
		std   int
	}{{&l.Connections, 1000}, {&l.PerAddress, 20}, {&l.Commands, 100}, {&l.Failures, 10}, {&l.Logins, 3}} {
		if *n.value == 0 {
			*n.value = n.std
		}
	}
	for _, d := range []struct {
		value *time.Duration
		std   time.Duration
	}{{&l.Grace, 15 * time.Second}, {&l.Idle, 5 * time.Minute}, {&l.Session, 20 * time.Minute}, {&l.Write, time.Minute}, {&l.Handshake, 30 * time.Second}} {
		if *d.value == 0 {
			*d.value = d.std
		}
	}
	return l
}

// A Server answers customers. Serve and ServeTLS may run at once, each on any number of listeners.
type Server struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics
	door    *door.Door
}

// New returns a Server. The error says which metric is registered already.
func New(cfg Config) (*Server, error) {
	if cfg.TLS == nil {
		cfg.TLS = func() *tls.Config { return nil }
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.Limits = cfg.Limits.withDefaults()
	m, err := newMetrics(cfg.Metrics)
	if err != nil {
		return nil, err
	}
	d := door.New(door.Config{Socket: "odmr", Most: cfg.Limits.Connections, PerNetwork: cfg.Limits.PerAddress, Grace: cfg.Limits.Grace,
		Proxies: cfg.Proxies, Logger: cfg.Logger, Inside: m.connections, Refused: m.refused})
	return &Server{cfg: cfg, log: cfg.Logger, metrics: m, door: d}, nil
}

// Serve answers clients until Shutdown, then returns nil. The listener is closed when it returns.
func (s *Server) Serve(l net.Listener) error { return s.serve(l, false) }

// ServeTLS is Serve where TLS begins at once.
func (s *Server) ServeTLS(l net.Listener) error { return s.serve(l, true) }

func (s *Server) serve(l net.Listener, implicitTLS bool) error {
	words := s.sorry
	if implicitTLS {
		words = nil
	}
	return s.door.Serve(l, func(conn net.Conn, from door.Client) door.Guest { return newSession(s, conn, from, implicitTLS) }, words)
}

// sorry is what a client is told for which there is no room.
func (s *Server) sorry(err error) string {
	var text strings.Builder
	w := bufio.NewWriter(&text)
	s.refusal(err).write(w)
	w.Flush()
	return text.String()
}

func (s *Server) refusal(err error) reply {
	switch {
	case errors.Is(err, door.ErrClosing):
		return shuttingDown
	case errors.Is(err, door.ErrCrowded):
		return bye("", "%s Too many connections from your address, please come again later", s.cfg.Hostname)
	}
	return bye("", "%s Too many connections, please come again later", s.cfg.Hostname)
}

// Shutdown stops accepting, says 421 to clients that have not asked for anything yet, and waits for the
// others: those in a turn end when [turn.Turns.Shutdown] ends it, which the caller has to call at the
// same time. When ctx ends first, connections are closed as they are and its error is returned.
func (s *Server) Shutdown(ctx context.Context) error { return s.door.Shutdown(ctx) }
