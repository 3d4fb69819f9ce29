package policy

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
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

// drainTime is how long a connection is still read from after shutdown began, for the requests that
// the peer had already sent.
const drainTime = 100 * time.Millisecond

// A server is the life of the connections to one kind of socket. What is spoken on them is session's
// part: it returns nil when the peer is done, or a badInput.
type server struct {
	name    string
	limit   int           // octets of a request
	idle    time.Duration // between two requests
	bounds  Bounds
	log     *slog.Logger
	metrics *metrics
	session func(context.Context, *conn) error

	refused throttle
	bad     throttle
	accept  throttle

	ctx     context.Context // of the sessions; ends when shutdown lost patience
	abandon context.CancelFunc
	closing atomic.Bool

	mu        sync.Mutex
	listeners map[net.Listener]struct{}
	conns     map[*conn]struct{}
	drained   time.Time // set before closing, not changed after
	wait      sync.WaitGroup
}

func (s *server) init() *server {
	s.ctx, s.abandon = context.WithCancel(context.Background())
	s.listeners = map[net.Listener]struct{}{}
	s.conns = map[*conn]struct{}{}
	return s
}

func (s *server) serve(l net.Listener) error {
	defer l.Close()
	if !s.listen(l) {
		return nil
	}
	defer s.wait.Done()
	for {
		peer, err := l.Accept()
		switch {
		case err == nil:
			s.take(peer)
		case s.closing.Load():
			return nil
		case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ECONNABORTED):
			if n, ok := s.accept.allow(); ok {
				s.log.Error("cannot accept a connection; is the limit of open files too low?",
					"socket", s.name, "error", err, "more", n)
			}
			select {
			case <-time.After(100 * time.Millisecond):
			case <-s.ctx.Done():
			}
		default:
			return err
		}
	}
}

func (s *server) listen(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing.Load() {
		return false
	}
	s.listeners[l] = struct{}{}
	s.wait.Add(1)
	return true
}

// take starts a session, or closes the connection where there are too many: the ones that are open
// are not to suffer.
func (s *server) take(peer net.Conn) {
	c := &conn{Conn: rawSocket(peer), server: s, limit: s.limit, idle: s.idle}
	s.mu.Lock()
	full := len(s.conns) >= s.bounds.Connections
	closing := s.closing.Load()
	if !full && !closing {
		s.conns[c] = struct{}{}
		s.wait.Add(1)
	}
	s.mu.Unlock()
	if full || closing {
		peer.Close()
		s.metrics.refused[s.name].Inc()
		if n, ok := s.refused.allow(); full && ok {
			s.log.Warn("too many connections, a new one was closed",
				"socket", s.name, "limit", s.bounds.Connections, "more", n)
		}
		return
	}
	s.metrics.connections[s.name].Inc()
	go func() {
		defer s.wait.Done()
		defer s.drop(c)
		s.report(s.session(s.ctx, c))
	}()
}

func (s *server) drop(c *conn) {
	c.Close()
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	s.metrics.connections[s.name].Dec()
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
	if n, ok := s.bad.allow(); ok {
		s.log.Warn("connection closed", "socket", s.name, "reason", err.Error(), "more", n)
	}
}

func (s *server) shutdown(ctx context.Context) error {
	s.mu.Lock()
	if !s.closing.Load() {
		s.drained = time.Now().Add(drainTime)
		s.closing.Store(true)
	}
	for l := range s.listeners {
		l.Close()
	}
	for c := range s.conns {
		c.drain()
	}
	s.mu.Unlock()

	done := make(chan struct{})
	go func() {
		s.wait.Wait()
		close(done)
	}()
	defer s.abandon()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	s.abandon()
	s.mu.Lock()
	for c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	<-done
	return ctx.Err()
}

// badInput is what a peer sent that nobody can answer.
type badInput string

func (b badInput) Error() string { return string(b) }
