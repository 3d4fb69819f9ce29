// Package door is where the connections of a daemon come in: it bounds how many there are, in all and from one
// customer, and sees them out when the daemon stops.
//
// # What it promises
//
// Connections that are inside do not suffer from those that want in. [Door.Shutdown] returns when every connection has
// left, and none enters after it began. What strangers can cause again and again is logged once a second at most.
//
// # What it does not do
//
// It speaks no protocol: what a connection is told that may not enter is its server's part, and so is everything that
// comes after. It opens no listeners.
package door

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Why a connection may not enter.
var (
	ErrClosing = errors.New("the server is stopping")
	ErrFull    = errors.New("there are too many connections")
	ErrCrowded = errors.New("there are too many connections from one network")
)

// Config is what a [Door] is made of. All of it is needed, but for PerNetwork.
type Config struct {
	Socket     string // what the log calls it
	Most       int    // connections that are inside at once
	PerNetwork int    // of them from one [Network]; 0: as many as there is room for
	Logger     *slog.Logger
	Inside     prometheus.Gauge   // connections that are inside
	Refused    prometheus.Counter // connections for which there was no room
}

// A Guest is a connection. Both methods may be called at any time, also after it has left.
type Guest interface {
	// Drain has it end when it has finished what it is in the middle of. It returns at once.
	Drain()
	// Close ends it now.
	Close() error
}

// A Door lets connections in. Its methods may be called at once from several goroutines.
type Door struct {
	cfg    Config
	told   Throttle // of those who may not enter
	failed Throttle // of those who cannot be accepted

	ctx     context.Context
	abandon context.CancelFunc
	closing atomic.Bool // changes under mu

	mu        sync.Mutex
	listeners map[net.Listener]struct{}
	guests    map[Guest]netip.Prefix
	from      map[netip.Prefix]int
	wait      sync.WaitGroup // for listeners and guests
}

// New returns an open door.
func New(cfg Config) *Door {
	d := &Door{cfg: cfg, listeners: map[net.Listener]struct{}{}, guests: map[Guest]netip.Prefix{}, from: map[netip.Prefix]int{}}
	d.ctx, d.abandon = context.WithCancel(context.Background())
	return d
}

// Context is that of the connections. It ends with Shutdown, or when that lost patience.
func (d *Door) Context() context.Context { return d.ctx }

// Closing reports whether Shutdown has begun.
func (d *Door) Closing() bool { return d.closing.Load() }

// acceptAgain is the pause after a connection could not be accepted.
const acceptAgain = 100 * time.Millisecond

// passing are errors of accept(2) after which the next connection may come: those of the connection itself, and
// what the system is short of now.
var passing = []syscall.Errno{
	syscall.ECONNABORTED, syscall.EPROTO, syscall.ENETDOWN, syscall.ENOPROTOOPT, syscall.EHOSTDOWN, syscall.ENONET,
	syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EPERM, syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM,
}

// Accept is l.Accept, again after a pause where its error is one that passes, until ctx is over. failed hears of each.
func Accept(ctx context.Context, l net.Listener, failed func(error)) (net.Conn, error) {
	for {
		conn, err := l.Accept()
		if err == nil || ctx.Err() != nil || !slices.ContainsFunc(passing, func(e syscall.Errno) bool { return errors.Is(err, e) }) {
			return conn, err
		}
		failed(err)
		select {
		case <-time.After(acceptAgain):
		case <-ctx.Done():
		}
	}
}

// Serve gives receive every connection that is accepted, until Shutdown; then it returns nil. The listener is closed
// when it returns. receive is to Enter the connection or to close it, and to return at once.
func (d *Door) Serve(l net.Listener, receive func(net.Conn)) error {
	defer l.Close()
	if !d.listen(l) {
		return nil
	}
	defer d.wait.Done()
	for {
		conn, err := Accept(d.ctx, l, d.notAccepted)
		switch {
		case err == nil:
			receive(conn)
		case d.Closing():
			return nil
		default:
			return err
		}
	}
}

func (d *Door) notAccepted(err error) {
	if n, ok := d.failed.Allow(); ok {
		d.cfg.Logger.Error("cannot accept a connection; is the limit of open files too low?",
			"socket", d.cfg.Socket, "error", err, "more", n)
	}
}

func (d *Door) listen(l net.Listener) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.Closing() {
		return false
	}
	d.listeners[l] = struct{}{}
	d.wait.Add(1)
	return true
}

// Enter lets a connection in, which has to Leave. Otherwise the error is ErrClosing, ErrFull or ErrCrowded. A
// client whose address is not valid is of no network.
func (d *Door) Enter(g Guest, client netip.Addr) error {
	from := Network(client)
	d.mu.Lock()
	limit, err := d.room(from)
	if err == nil {
		d.guests[g] = from
		d.from[from]++
		d.wait.Add(1)
	}
	d.mu.Unlock()
	switch {
	case err == nil:
		d.cfg.Inside.Inc()
	case limit > 0:
		d.cfg.Refused.Inc()
		if n, ok := d.told.Allow(); ok {
			d.cfg.Logger.Warn("too many connections, a new one was closed",
				"socket", d.cfg.Socket, "client", from.Addr(), "limit", limit, "more", n)
		}
	}
	return err
}

// room says why there is none, and which limit is reached.
func (d *Door) room(from netip.Prefix) (limit int, err error) {
	switch {
	case d.Closing():
		return 0, ErrClosing
	case len(d.guests) >= d.cfg.Most:
		return d.cfg.Most, ErrFull
	case d.cfg.PerNetwork > 0 && from.IsValid() && d.from[from] >= d.cfg.PerNetwork:
		return d.cfg.PerNetwork, ErrCrowded
	}
	return 0, nil
}

// Leave is the end of a connection's stay; the second time does nothing.
func (d *Door) Leave(g Guest) {
	d.mu.Lock()
	defer d.mu.Unlock()
	from, inside := d.guests[g]
	if !inside {
		return
	}
	delete(d.guests, g)
	if d.from[from]--; d.from[from] == 0 {
		delete(d.from, from)
	}
	d.cfg.Inside.Dec()
	d.wait.Done()
}

// Shutdown closes the listeners, drains every connection, and waits until all have left. When ctx ends first,
// connections are closed as they are and its error is returned.
func (d *Door) Shutdown(ctx context.Context) error {
	d.mu.Lock()
	d.closing.Store(true)
	for l := range d.listeners {
		l.Close()
	}
	d.mu.Unlock()
	for _, g := range d.Guests() {
		g.Drain()
	}
	left := make(chan struct{})
	go func() {
		d.wait.Wait()
		close(left)
	}()
	defer d.abandon()
	select {
	case <-left:
		return nil
	case <-ctx.Done():
	}
	d.abandon()
	for _, g := range d.Guests() {
		g.Close()
	}
	<-left
	return ctx.Err()
}

// Guests are the connections that are inside.
func (d *Door) Guests() []Guest {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Collect(maps.Keys(d.guests))
}

// ClientAddr is the IP address at the other end of a connection, the zero Addr where there is none.
func ClientAddr(conn net.Conn) netip.Addr {
	if tcp, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}

// Network is what counts as one customer: an IPv4 address, or the /64 of IPv6 that one has at least (RFC 6177). That
// of an address which is not valid is not valid either.
func Network(client netip.Addr) netip.Prefix {
	client = client.Unmap().WithZone("")
	bits := client.BitLen()
	if client.Is6() {
		bits = 64
	}
	p, _ := client.Prefix(bits)
	return p
}
