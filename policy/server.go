package policy

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"mailbag/cmd/door"
)

// Bounds are what a peer may take of a server. Zero fields stand for the defaults.
type Bounds struct {
	Connections int           // open at once on one socket; 2,500
	Idle        time.Duration // between two requests; 10 min, above smtpd_policy_service_max_idle (300 s)
	Request     time.Duration // from a request's first octet to its last; 60 s
	Write       time.Duration // for a peer to take an answer; 30 s
	Message     time.Duration // between two events at the milter, which sees none while Postfix takes the content; 6 h
}

func (b Bounds) withDefaults() Bounds {
	if b.Connections == 0 {
		b.Connections = 2500
	}
	for _, d := range []struct {
		value *time.Duration
		std   time.Duration
	}{
		{&b.Idle, 10 * time.Minute},
		{&b.Request, time.Minute},
		{&b.Write, 30 * time.Second},
		{&b.Message, 6 * time.Hour},
	} {
		if *d.value == 0 {
			*d.value = d.std
		}
	}
	return b
}

// A connection is still read from after shutdown began: for the requests that the peer had already sent, on a new one for
// the first, because Exim makes one for each and would put off the mail, and, at the milter, for the message that belongs to
// an SMTP session which has just begun. Most have one only; what comes later in such a session Postfix defers.
const (
	drainRequests = 100 * time.Millisecond
	drainFirst    = 2 * time.Second
	drainMessages = 2 * time.Second
)

// answerSize bounds the answers that a peer has not read, in octets. One has some hundred.
const answerSize = 8 << 10

// A server has the connections to one kind of socket. What is spoken on them is session's part: it returns nil
// when the peer is done, or a badInput.
type server struct {
	*door.Door
	name    string
	limit   int           // octets of a request
	idle    time.Duration // between two requests
	bounds  Bounds
	log     *slog.Logger
	metrics *metrics
	session func(context.Context, *conn) error

	bad     door.Throttle
	stop    sync.Once
	drain   time.Duration
	stopped time.Time // when shutdown began; set before the door closes, not changed after
}

func (s *server) init() *server {
	s.Door = door.New(door.Config{Socket: s.name, Most: s.bounds.Connections, Logger: s.log,
		Inside: s.metrics.connections[s.name], Refused: s.metrics.refused[s.name]})
	return s
}

func (s *server) serve(l net.Listener) error {
	return s.Door.Serve(l, func(peer net.Conn, _ door.Client) door.Guest {
		door.Confine(peer, 0, answerSize)
		return &conn{Conn: peer, server: s, limit: s.limit, idle: s.idle}
	}, nil)
}

// Serve is the connection's session.
func (c *conn) Serve() {
	defer c.Close()
	c.server.report(c.server.session(c.server.Context(), c))
}

// report logs why a session ended, unless it ended as sessions do.
func (s *server) report(err error) {
	var bad badInput
	switch {
	case err == nil, errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed),
		errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNRESET):
		return
	case errors.As(err, &bad):
		s.metrics.bad[s.name].Inc()
	default:
		s.metrics.broken[s.name].Inc()
	}
	if n, ok := s.bad.Allow(); ok {
		s.log.Warn("connection closed", "socket", s.name, "reason", err.Error(), "more", n)
	}
}

func (s *server) shutdown(ctx context.Context) error {
	s.stop.Do(func() { s.stopped = time.Now() })
	return s.Shutdown(ctx)
}

// badInput is what a peer sent that nobody can answer.
type badInput string

func (b badInput) Error() string { return string(b) }
