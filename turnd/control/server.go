// Package control lets other programs on this machine open, see and end turns: the policy service, which
// gets ETRN from Postfix, and the operator's command line. It is HTTP with JSON over a unix socket.
//
//	GET    /turns                 the turns that are open: a list of turn.Status
//	GET    /turns/ACCOUNT         {"open": true}
//	POST   /turns/ACCOUNT         opens one to the account's host; ?client=ADDRESS says who asked
//	DELETE /turns/ACCOUNT         ends it after what is in flight
//	GET    /mta                   has the daemon try what turns need of the MTA; no message is touched
//
// What goes wrong is {"code": "unreachable", "error": "…"}, from which [Client] makes the error that the server had: its
// text, and for errors.Is what it is.
//
// # What it does not do
//
// It does not ask who is there, nor whether the client that asked may: the socket's mode and directory are
// the protection, and the policy service has looked at the client's address before.
//
// # Security
//
// Who can connect can have any account's mail delivered to that account's own host, and to nowhere
// else. Connections, headers and times are bounded, and a request has no body.
package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"golang.org/x/net/netutil"

	"mailbag/meter"
	"mailbag/turnd/turn"
)

// Accounts is the live view of the ledger, usually a [meter.Follower].
type Accounts interface {
	// Directory is the latest snapshot, or nil while the ledger has never been read.
	Directory() *meter.Directory
}

// Turns are what is controlled, usually a [turn.Turns].
type Turns interface {
	Dial(ctx context.Context, a *meter.Account, c turn.Client) error
	Open(account string) bool
	List() []turn.Status
	End(account string) bool
}

// An MTA is what turns take their mail from. Try returns nil where its queue can be listed and mail released.
type MTA interface {
	Try(ctx context.Context) error
}

// Bounds of the peers: programs of this machine that may be slow, or broken.
const (
	maxConnections = 1000 // a Postfix has some hundred processes that may say ETRN at once
	maxHeader      = 8 << 10
	headerTime     = 10 * time.Second
	answerTime     = 2 * time.Minute // above what dialling a customer's server takes
	idleTime       = time.Minute
)

// A Server answers on the control socket.
type Server struct {
	accounts Accounts
	turns    Turns
	mta      MTA
	http     *http.Server
}

// New returns a Server. Log may be nil.
func New(accounts Accounts, turns Turns, mta MTA, log *slog.Logger) *Server {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Server{accounts: accounts, turns: turns, mta: mta}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /turns", s.list)
	mux.HandleFunc("GET /turns/{account}", s.show)
	mux.HandleFunc("POST /turns/{account}", s.open)
	mux.HandleFunc("DELETE /turns/{account}", s.end)
	mux.HandleFunc("GET /mta", s.tryMTA)
	s.http = &http.Server{
		Handler:           http.MaxBytesHandler(mux, 0),
		ReadHeaderTimeout: headerTime,
		ReadTimeout:       headerTime,
		WriteTimeout:      answerTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	return s
}

// Serve answers until Shutdown, then returns nil. The listener is closed when it returns.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(netutil.LimitListener(l, maxConnections)); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Shutdown stops accepting and answers what was asked. When ctx ends first, connections are closed as they
// are and its error is returned.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil {
		s.http.Close()
	}
	return err
}

func (s *Server) list(w http.ResponseWriter, _ *http.Request) {
	list := s.turns.List()
	if list == nil {
		list = []turn.Status{}
	}
	answer(w, http.StatusOK, list)
}

// state is the answer to whether a turn is open.
type state struct {
	Open bool `json:"open"`
}

func (s *Server) show(w http.ResponseWriter, r *http.Request) {
	answer(w, http.StatusOK, state{s.turns.Open(r.PathValue("account"))})
}

func (s *Server) open(w http.ResponseWriter, r *http.Request) {
	var who turn.Client
	if text := r.URL.Query().Get("client"); text != "" {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			refuse(w, errRequest)
			return
		}
		who.Addr = addr.Unmap().String()
	}
	a, err := s.dialled(r.PathValue("account"))
	if err == nil {
		err = s.turns.Dial(r.Context(), a, who)
	}
	if err != nil {
		refuse(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// dialled finds an account whose mail goes to a host on request.
func (s *Server) dialled(name string) (*meter.Account, error) {
	d := s.accounts.Directory()
	if d == nil {
		return nil, meter.ErrUnavailable
	}
	a := d.Account(name)
	switch {
	case a == nil:
		return nil, meter.ErrNoAccount
	case a.Suspended:
		return nil, ErrSuspended
	case a.Mode != meter.ETRN && (a.Mode != meter.ATRN || a.Host == ""):
		return nil, ErrNotDialled
	}
	return a, nil
}

func (s *Server) end(w http.ResponseWriter, r *http.Request) {
	if !s.turns.End(r.PathValue("account")) {
		refuse(w, ErrNoTurn)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (s *Server) tryMTA(w http.ResponseWriter, r *http.Request) {
	if err := s.mta.Try(r.Context()); err != nil {
		refuse(w, fmt.Errorf("%w: %w", ErrMTA, err))
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func answer(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(value) // where it fails the peer has gone
}
