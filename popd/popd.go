// Package popd keeps the mail of pop3 accounts: it takes it from the MTA by LMTP (RFC 2033), puts it into Maildirs, and
// lets its owners fetch it by POP3 (RFC 1939).
//
// # What it promises
//
// A recipient is answered 250 when the message is on the disk, whole, in the Maildir of the mailbox or of the catch-all
// that the address belongs to, and 4xx where anything went wrong that the MTA can try again. The envelope
// recipient stands in the message, in X-Envelope-To and Delivered-To, so that also who was only in Bcc can be found.
//
// What RETR sends is what is stored, with CRLF line ends, in exactly as many octets as LIST says, as far as names that
// other programs gave their files say the truth (W=). Messages are deleted
// at QUIT and never before: a session that ends in any other way has deleted nothing. Unique-ids stay for as
// long as a message does. One session at a time has a mailbox, across all processes on the machine.
//
// POP3 here is RFC 1939 without APOP, CAPA with response codes and pipelining (RFC 2449, RFC 3206), STLS (RFC 2595) and TLS from
// the start (RFC 8314), SASL (RFC 5034), and UTF8 and LANG (RFC 6856).
//
// # What it does not do
//
// It asks no questions about content, and changes none: a message with UTF-8 in its header is sent as it is to
// a client that did not say UTF8 too, because clients of every age cope with that and not with a message
// that they can never fetch. It looks at no flags. Lines of the envelope's names that a sender put into a message stay,
// below ours.
//
// # Security
//
// Passwords cross the network under TLS alone, unless the client is on this machine (and not behind a proxy here) or the operator
// says otherwise. An
// address reaches a path only in an encoding that leads nowhere else ([Store]), and a header only without what would
// end a line. Limits of connections, of time and of what a peer may send are in [Bounds]; what comes over them costs
// its sender the connection. LMTP has no log-in: its socket is for the MTA alone. Neither passwords nor
// messages are logged.
package popd

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"mailbag/cmd/door"
	"mailbag/meter"
	"mailbag/meter/login"
	"mailbag/popd/maildir"
)

// Accounts is the live view of the ledger, usually a [meter.Follower].
type Accounts interface {
	// Directory is the latest snapshot, or nil while the ledger has never been read.
	Directory() *meter.Directory
	// Fresh is one that is as new as the ledger. It costs little where nothing has changed.
	Fresh(ctx context.Context) (*meter.Directory, error)
}

// Sessions keeps the records of sessions, usually a [meter.Ledger].
type Sessions interface {
	RecordPopSessions(ctx context.Context, sessions []meter.PopSession) error
}

// Config is what a [Server] acts on.
type Config struct {
	Accounts Accounts
	Logins   *login.Checker
	Sessions Sessions
	Store    *Store

	Hostname string              // in greetings and file names
	TLS      func() *tls.Config  // asked for each connection; nil, or if it returns nil: no TLS is offered
	Plain    func() bool         // asked for each log-in whether passwords may cross the network in the clear; nil: they may not
	Proxies  func() []netip.Addr // whose connections of POP3 clients, from then on, have to begin with a PROXY header; nil: nobody's

	Now     func() time.Time // nil: time.Now
	Logger  *slog.Logger     // nil: discard
	Metrics prometheus.Registerer
	Bounds  Bounds // the zero value stands for the defaults
}

// Bounds are what a peer may take of a server. Zero fields stand for the defaults.
type Bounds struct {
	Connections int           // of POP3 clients open at once; 4,000
	PerAddress  int           // of them from one IPv4 address or IPv6 /64; twice as many from a /56, four times from a /48; 100
	Grace       time.Duration // a client that has not logged in keeps its place for, when another wants it; 15 s
	Login       time.Duration // from the connection to the log-in; 3 min
	Idle        time.Duration // between two commands; 10 min, which RFC 1939, section 3, asks for
	Command     time.Duration // from a command's first octet to its last, and for a TLS handshake; 1 min
	Write       time.Duration // for a client to take what is written at a time, a quarter of a megabyte at most, once logged in; 5 min
	Mistakes    int           // commands that are none, or fail; 50
	Commands    int           // before the log-in; 30

	Deliveries int           // LMTP connections open at once; 500
	Delivery   time.Duration // for the MTA's next octets, or to take a reply; 5 min
	Recipients int           // of one message; 1,000
}

func (b Bounds) withDefaults() Bounds {
	for _, n := range []struct {
		value *int
		std   int
	}{{&b.Connections, 4000}, {&b.PerAddress, 100}, {&b.Mistakes, 50}, {&b.Commands, 30}, {&b.Deliveries, 500}, {&b.Recipients, 1000}} {
		if *n.value == 0 {
			*n.value = n.std
		}
	}
	for _, d := range []struct {
		value *time.Duration
		std   time.Duration
	}{
		{&b.Grace, 15 * time.Second}, {&b.Login, 3 * time.Minute}, {&b.Idle, 10 * time.Minute}, {&b.Command, time.Minute},
		{&b.Write, 5 * time.Minute}, {&b.Delivery, 5 * time.Minute},
	} {
		if *d.value == 0 {
			*d.value = d.std
		}
	}
	return b
}

// A Server takes mail and hands it out. Its Serve methods may run at once, each on any number of listeners.
type Server struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics
	names   *maildir.Names
	syncer  maildir.Syncer
	journal *journal
	trouble door.Throttle

	mta     *door.Door // LMTP connections
	clients *door.Door // POP3 connections
}

// New returns a server. The error says which metric is registered already.
func New(cfg Config) (*Server, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.TLS == nil {
		cfg.TLS = func() *tls.Config { return nil }
	}
	if cfg.Plain == nil {
		cfg.Plain = func() bool { return false }
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.Bounds = cfg.Bounds.withDefaults()
	m, err := newMetrics(cfg.Metrics)
	if err != nil {
		return nil, err
	}
	s := &Server{
		cfg:     cfg,
		log:     cfg.Logger,
		metrics: m,
		names:   maildir.NewNames(cfg.Hostname, cfg.Now),
		journal: newJournal(cfg.Sessions, cfg.Logger),
	}
	s.mta = s.door("deliver", door.Config{Most: cfg.Bounds.Deliveries})
	s.clients = s.door("pop3", door.Config{Most: cfg.Bounds.Connections, PerNetwork: cfg.Bounds.PerAddress, Grace: cfg.Bounds.Grace, Proxies: cfg.Proxies})
	return s, nil
}

func (s *Server) door(socket string, cfg door.Config) *door.Door {
	cfg.Socket, cfg.Logger = socket, s.log
	cfg.Inside, cfg.Refused = s.metrics.connections[socket], s.metrics.turned[socket]
	return door.New(cfg)
}

// Shutdown stops accepting, lets every message finish that is being delivered and every session whose
// client goes on without a pause, ends the others, and waits for all of it. When ctx ends first, connections are
// closed as they are and its error is returned: nothing of those sessions is deleted, and the MTA
// delivers again what was not answered.
func (s *Server) Shutdown(ctx context.Context) error {
	defer s.journal.close()
	var errs [2]error
	var wait sync.WaitGroup
	wait.Go(func() { errs[0] = s.mta.Shutdown(ctx) })
	wait.Go(func() { errs[1] = s.clients.Shutdown(ctx) })
	wait.Wait()
	return errors.Join(errs[:]...)
}
