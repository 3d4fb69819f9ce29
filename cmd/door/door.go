// Package door is where the connections of a daemon come in: it bounds how many there are, in all and from one
// customer, finds out from where those come that a proxy brings, and sees all out when the daemon stops.
//
// It belongs to the daemons as processes, as cmd/internal/daemon does, and is not in there because the servers that they
// are made of go through it: whether a client is on this machine, and when it has logged in, passes between the two.
//
// # What it promises
//
// Connections that are inside do not suffer from those that want in, but for those that have had time to log in and did not:
// where there is no room, who came first of them makes some. [Door.Shutdown] returns when every connection has
// left, and after it began none enters but one that was accepted just then and could be told nothing. What strangers can
// cause again and again is logged once a second at most.
//
// # What it does not do
//
// It speaks no protocol but that of proxies. It opens no listeners.
//
// # Security
//
// A PROXY header is read, and required, from those who are named in [Config] alone; whatever it says, the client is not on this
// machine.
package door

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Why a connection may not enter.
var (
	ErrClosing = errors.New("the server is stopping")
	ErrFull    = errors.New("there are too many connections")
	ErrCrowded = errors.New("there are too many connections from one network")
)

// Config is what a [Door] is made of. All of it is needed, but for PerNetwork, Grace and Proxies.
type Config struct {
	Socket     string              // what the log calls it
	Most       int                 // connections that are inside at once
	PerNetwork int                 // of them from the narrowest of [meter.Networks], and twice as many from each wider one; 0: as many as there is room for
	Grace      time.Duration       // for a guest to settle in, where others want its place; 0: it need not
	Proxies    func() []netip.Addr // whose connections, from then on, have to begin with a PROXY header
	Logger     *slog.Logger
	Inside     prometheus.Gauge   // connections that are inside
	Refused    prometheus.Counter // connections for which there was no room, or no longer
}

// A Client is who is at the other end of a connection.
type Client struct {
	Addr  netip.Addr // the zero Addr where the connection has none
	Local bool       // it is on this machine, and did not come through a proxy
}

// A Guest is a connection that may enter.
type Guest interface {
	// Serve is its stay, and closes it.
	Serve()
	// Drain has it end when it has finished what it is in the middle of. It returns at once, and may be called at any time,
	// also before and after the stay.
	Drain()
	// Close ends it now. It may be called at any time.
	Close() error
}

// A Door lets connections in. Its methods may be called at once from several goroutines.
type Door struct {
	cfg       Config
	patience  time.Duration // for a proxy's header
	told      Throttle      // of those who may not enter
	failed    Throttle      // of those who cannot be accepted
	forgotten Throttle      // of headers that did not come

	ctx     context.Context
	abandon context.CancelFunc
	closing atomic.Bool // changes under mu

	mu        sync.Mutex
	listeners map[net.Listener]struct{}
	arriving  map[net.Conn]struct{} // whose header is read
	inside    crowd
	wait      sync.WaitGroup // for listeners, those arriving, and guests
}

// New returns an open door.
func New(cfg Config) *Door {
	d := &Door{cfg: cfg, patience: headerTime, listeners: map[net.Listener]struct{}{}, arriving: map[net.Conn]struct{}{}, inside: newCrowd()}
	d.ctx, d.abandon = context.WithCancel(context.Background())
	return d
}

// Context is that of the connections. It ends with Shutdown, or when that lost patience.
func (d *Door) Context() context.Context { return d.ctx }

// Closing reports whether Shutdown has begun.
func (d *Door) Closing() bool { return d.closing.Load() }

// Serve has open make a guest of every connection, and lets in those for which there is room, until Shutdown; then it
// returns nil. The others are told words. Where that is nil, which leaves nothing to say to one that was accepted when Shutdown
// began, that one enters and is drained. The listener is closed when it returns. open returns at once, and may be called
// from several goroutines.
func (d *Door) Serve(l net.Listener, open func(net.Conn, Client) Guest, words func(error) string) error {
	defer l.Close()
	if !d.begin(func() bool { d.listeners[l] = struct{}{}; return true }) {
		return nil
	}
	defer d.wait.Done()
	receive := func(conn net.Conn, from Client) { d.receive(conn, from, open(conn, from), words) }
	for {
		conn, err := Accept(d.ctx, l, d.notAccepted)
		switch {
		case err == nil:
			if from := clientOf(conn); d.cfg.Proxies != nil && slices.Contains(d.cfg.Proxies(), from.Addr) {
				d.relay(conn, from, receive)
			} else {
				receive(conn, from)
			}
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

// begin adds what has to come to its end before Shutdown returns, unless that has begun or add does not want to.
func (d *Door) begin(add func() bool) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.Closing() || !add() {
		return false
	}
	d.wait.Add(1)
	return true
}

func (d *Door) receive(conn net.Conn, from Client, g Guest, words func(error) string) {
	if err := d.enter(g, from.Addr, words == nil); err != nil {
		if words != nil {
			conn.SetWriteDeadline(time.Now().Add(time.Second)) // it fits into an empty socket
			_, _ = conn.Write([]byte(words(err)))
		}
		conn.Close()
		return
	}
	if d.Closing() { // Shutdown may have looked before it was inside
		g.Drain()
	}
	go func() {
		defer d.leave(g)
		g.Serve()
	}()
}

// clientOf is who a connection says that it is from. IPv4 addresses that are mapped into IPv6 are IPv4 addresses.
func clientOf(conn net.Conn) Client {
	tcp, ok := conn.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return Client{}
	}
	addr := tcp.AddrPort().Addr().Unmap().WithZone("")
	return Client{Addr: addr, Local: addr.IsLoopback()}
}

// Shutdown closes the listeners, drains every connection, and waits until all have left. When ctx ends first,
// connections are closed as they are and its error is returned.
func (d *Door) Shutdown(ctx context.Context) error {
	d.mu.Lock()
	d.closing.Store(true)
	for l := range d.listeners {
		l.Close()
	}
	for conn := range d.arriving {
		conn.Close()
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
