package exim

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"mailbag/cmd/door"
	"mailbag/policy/routes"
)

const (
	maxConnections = 64
	writeTime      = 30 * time.Second // for a client to take a part of an answer
)

// A Server is mailbag-eximd: it does what an Instance does as root for those who are not. It takes a verb and queue IDs, and
// nothing else gets from a client to Exim. It runs as root or as Exim's own user ([Instance.BecomeOwner]).
type Server struct {
	in         Instance
	log        *slog.Logger
	users      []uint32
	deliveries *deliveries
	places     chan struct{}
	requests   sync.WaitGroup
	graceful   context.Context // over: no requests any more
	stop       context.CancelFunc
	immediate  context.Context // over: those that go on are dropped
	drop       context.CancelFunc
}

// NewServer serves root, and those users besides, by their numbers. What is an account's is in those tables.
func NewServer(in Instance, log *slog.Logger, tables string, users ...uint32) (*Server, error) {
	if noNewPrivileges() {
		return nil, errors.New("no delivery can be started from here, because the setuid bit of Exim is without effect: run this without NoNewPrivileges=")
	}
	in.helps = true
	s := &Server{in: in, log: log, users: append(users, 0), deliveries: newDeliveries(in, log, accountIn(tables)), places: make(chan struct{}, maxConnections)}
	s.graceful, s.stop = context.WithCancel(context.Background())
	s.immediate, s.drop = context.WithCancel(context.Background())
	return s, nil
}

// accountIn finds whose a domain is as Exim does. Where there are no tables it is nobody's.
func accountIn(tables string) func(domain string) string {
	return func(domain string) string {
		way, _, err := routes.Lookup(filepath.Join(tables, routes.Routes), domain)
		for field := range strings.FieldsSeq(way) {
			if account, is := strings.CutPrefix(field, "account="); err == nil && is {
				return account
			}
		}
		return ""
	}
}

// Serve serves a socket until Shutdown, and returns nil then.
func (s *Server) Serve(l net.Listener) error {
	defer l.Close()
	defer context.AfterFunc(s.graceful, func() { l.Close() })()
	for {
		s.places <- struct{}{}
		conn, err := door.Accept(s.graceful, l, func(err error) { s.log.Warn("a connection could not be accepted", "error", err) })
		if err != nil {
			<-s.places
			if s.graceful.Err() != nil {
				return nil
			}
			return err
		}
		s.requests.Go(func() {
			defer func() { <-s.places }()
			defer conn.Close()
			s.serve(conn)
		})
	}
}

// Shutdown takes no requests any more, and waits until ctx is over for those that it has and for deliveries. The latter go on
// when this process ends.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stop()
	defer context.AfterFunc(ctx, s.drop)()
	s.requests.Wait()
	s.drop()
	return s.deliveries.close(ctx)
}

// serve answers one request.
func (s *Server) serve(conn net.Conn) {
	out := &replies{conn: conn}
	out.buffer = bufio.NewWriterSize(out, 32<<10)
	out.encoder = json.NewEncoder(out.buffer)
	uid, err := s.admit(conn)
	if err != nil {
		s.log.Warn("a request was refused", "error", err)
		out.end(err)
		return
	}
	err = conn.SetReadDeadline(time.Now().Add(requestTime))
	if err != nil {
		return
	}
	verb, ids, err := readRequest(bufio.NewReaderSize(conn, 4<<10))
	if errors.Is(err, io.EOF) {
		return // somebody who looked whether we are there
	}
	if err == nil && uid != 0 && slices.Contains(rootVerbs, verb) {
		err = fmt.Errorf("the request %q is for root alone", verb)
	}
	if err != nil {
		s.log.Warn("a request was refused", "user", uid, "error", err)
		out.end(err)
		return
	}
	s.log.Debug("request", "verb", verb, "messages", len(ids))
	err = verbs[verb](s, s.immediate, ids, out)
	if errors.Is(err, errGone) {
		return
	}
	if err != nil {
		s.log.Warn("a request could not be served", "verb", verb, "messages", len(ids), "error", err)
	}
	out.end(err)
}

// admit looks who is at the other end (SO_PEERCRED of unix(7)).
func (s *Server) admit(conn net.Conn) (uid uint32, err error) {
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		return 0, errors.New("a connection is not one by a unix socket")
	}
	raw, err := unixConn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var peer *unix.Ucred
	var failed error
	if err := raw.Control(func(fd uintptr) { peer, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return 0, err
	}
	if failed != nil {
		return 0, failed
	}
	if !slices.Contains(s.users, peer.Uid) {
		return 0, fmt.Errorf("user %d is neither root nor mailbag's", peer.Uid)
	}
	return peer.Uid, nil
}

// readRequest reads a verb, which is known, and queue IDs. io.EOF is a connection without one.
func readRequest(r *bufio.Reader) (verb string, ids []string, err error) {
	line := func() (string, error) {
		var text []byte
		for {
			c, err := r.ReadByte()
			switch {
			case err != nil:
				return string(text), err
			case c == '\n':
				return string(text), nil
			case len(text) == maxVerb:
				return "", errors.New("a line of the request is too long")
			}
			text = append(text, c)
		}
	}
	verb, err = line()
	if err != nil {
		if verb == "" {
			return "", nil, err
		}
		return "", nil, fmt.Errorf("the request broke off: %w", notEOF(err))
	}
	if verbs[verb] == nil {
		return "", nil, fmt.Errorf("%q is no request", verb)
	}
	for {
		id, err := line()
		switch {
		case err != nil:
			return "", nil, fmt.Errorf("the request broke off: %w", notEOF(err))
		case id == "":
			return verb, ids, nil
		case !IsID(id):
			return "", nil, fmt.Errorf("%q is not a queue ID of Exim", id)
		case len(ids) == maxIDs:
			return "", nil, fmt.Errorf("there are more than %d messages in the request", maxIDs)
		}
		ids = append(ids, id)
	}
}

func notEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// rootVerbs are the requests that no daemon makes: those of commands that return mail.
var rootVerbs = []string{"return"}

// verbs are the requests.
var verbs map[string]func(*Server, context.Context, []string, *replies) error

func init() {
	verbs = map[string]func(*Server, context.Context, []string, *replies) error{
		"list":       (*Server).list,
		"missing":    each(Instance.Missing),
		"release":    (*Server).release,
		"return":     none(Instance.Return),
		"hold":       none(Instance.Hold),
		"unhold":     each(Instance.unhold),
		"unfinished": each(func(in Instance, ctx context.Context, _ []string) ([]string, error) { return in.Unfinished(ctx) }),
		"identity":   (*Server).identity,
		"try":        none(func(in Instance, ctx context.Context, _ ...string) error { return in.Try(ctx) }),
	}
}

// each answers with messages.
func each(ask func(Instance, context.Context, []string) ([]string, error)) func(*Server, context.Context, []string, *replies) error {
	return func(s *Server, ctx context.Context, ids []string, out *replies) error {
		some, err := ask(s.in, ctx, ids)
		for _, id := range some {
			if err == nil {
				err = out.put(reply{ID: id})
			}
		}
		return err
	}
}

// none answers with nothing but the end.
func none(ask func(Instance, context.Context, ...string) error) func(*Server, context.Context, []string, *replies) error {
	return func(s *Server, ctx context.Context, ids []string, _ *replies) error { return ask(s.in, ctx, ids...) }
}

func (s *Server) list(ctx context.Context, _ []string, out *replies) error {
	for e, err := range s.in.Queue(ctx) {
		if err == nil {
			err = out.put(reply{Entry: &e})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) release(ctx context.Context, ids []string, _ *replies) error {
	spool, err := s.in.spool(ctx)
	if err != nil {
		return fmt.Errorf("cannot release messages: %w", err)
	}
	waiting, err := spool.waiting(ids)
	if err != nil {
		return fmt.Errorf("cannot release messages: %w", err)
	}
	return s.deliveries.add(waiting)
}

func (s *Server) identity(ctx context.Context, _ []string, out *replies) error {
	id, err := s.in.Identity(ctx)
	if err != nil {
		return err
	}
	return out.put(reply{Identity: &id})
}

// errGone is a client that takes no answer any more.
var errGone = errors.New("the client is gone")

// Replies are the answer to a request.
type replies struct {
	conn    net.Conn
	buffer  *bufio.Writer
	encoder *json.Encoder
}

// Write gives each part of the answer its time.
func (r *replies) Write(b []byte) (int, error) {
	if err := r.conn.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
		return 0, err
	}
	return r.conn.Write(b)
}

func (r *replies) put(a reply) error {
	if err := r.encoder.Encode(a); err != nil {
		return fmt.Errorf("%w: %w", errGone, err)
	}
	return nil
}

// end ends the answer with an error, or without.
func (r *replies) end(err error) {
	last := reply{End: err == nil}
	if err != nil {
		last.Error = err.Error()
		for name, cause := range causes {
			if errors.Is(err, cause) {
				last.Cause = name
			}
		}
	}
	if r.put(last) == nil {
		_ = r.buffer.Flush() // who is gone needs no end
	}
}
