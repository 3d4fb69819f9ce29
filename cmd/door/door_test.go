package door

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// hall is a door and what it tells.
type hall struct {
	*Door
	t       *testing.T
	inside  prometheus.Gauge
	refused prometheus.Counter
	log     *logText
}

// logText is a log to look into.
type logText struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logText) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func openHall(t *testing.T, cfg Config) *hall {
	h := &hall{
		t:       t,
		inside:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "inside"}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{Name: "refused"}),
		log:     new(logText),
	}
	cfg.Socket, cfg.Logger, cfg.Inside, cfg.Refused = "front", slog.New(slog.NewTextHandler(h.log, nil)), h.inside, h.refused
	h.Door = New(cfg)
	return h
}

// want fails the test when the metrics are others.
func (h *hall) want(inside, refused float64) {
	h.t.Helper()
	if i, r := testutil.ToFloat64(h.inside), testutil.ToFloat64(h.refused); i != inside || r != refused {
		h.t.Errorf("%v are inside and %v were refused, want %v and %v", i, r, inside, refused)
	}
}

// visitor leaves when it is told to, or only when it is closed.
type visitor struct {
	hall     *hall
	stubborn bool
	closed   bool
}

func (v *visitor) Serve() {}

func (v *visitor) Drain() {
	if !v.stubborn {
		v.hall.leave(v)
	}
}

func (v *visitor) Close() error {
	v.closed = true
	v.hall.leave(v)
	return nil
}

// enters has a client try to enter.
func (h *hall) enters(client string) (*visitor, error) {
	v := &visitor{hall: h}
	return v, h.enter(v, netip.MustParseAddr(client), false)
}

func TestNobodyTakesThePlacesOfAll(t *testing.T) {
	t.Parallel()
	h := openHall(t, Config{Most: 4, PerNetwork: 2})
	var all []*visitor
	for _, c := range []struct {
		client string
		want   error
	}{
		{"192.0.2.1", nil},
		{"::ffff:192.0.2.1", nil}, // the same, as a socket for both kinds has it
		{"192.0.2.1", ErrCrowded},
		{"192.0.2.2", nil},
		{"2001:db8::1", nil},
		{"2001:db8::2", ErrFull},
	} {
		v, err := h.enters(c.client)
		if err != c.want {
			t.Errorf("%s: %v, want %v", c.client, err, c.want)
		} else if err == nil {
			all = append(all, v)
		}
	}
	h.want(4, 2)
	if got := h.log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "client=192.0.2.1 limit=2") {
		t.Errorf("the log says\n%s", got)
	}
	h.leave(all[0])
	h.want(3, 2)
	if _, err := h.enters("192.0.2.1"); err != nil {
		t.Errorf("whose place is free again is told: %v", err)
	}
}

func TestPlacesThatNetworksOfIPv6CanTake(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		from    string
		address string // of the connection with a number
		want    int
	}{
		{"a /64", "2001:db8:0:1::%x", 20},
		{"a /56", "2001:db8:0:%x::1", 40},
		{"a /52", "2001:db8:0:%x00::1", 80},
		{"a /48", "2001:db8:0:%xf11::1", 80},
	} {
		h := openHall(t, Config{Most: 1000, PerNetwork: 20})
		got := 0
		for i := range 255 {
			if c.from == "a /52" || c.from == "a /48" {
				i %= 16
			}
			if _, err := h.enters(fmt.Sprintf(c.address, i)); err == nil {
				got++
			}
		}
		if got != c.want {
			t.Errorf("%s takes %d of 1,000 places, want %d", c.from, got, c.want)
		}
		if _, err := h.enters("2001:db8:1::1"); err != nil {
			t.Errorf("beside %s another is told: %v", c.from, err)
		}
	}
}

func TestClientsWithoutAnAddressShareNoLimit(t *testing.T) {
	t.Parallel()
	h := openHall(t, Config{Most: 3, PerNetwork: 1})
	for i, want := range []error{nil, nil, nil, ErrFull} {
		if err := h.enter(&visitor{hall: h}, netip.Addr{}, false); err != want {
			t.Errorf("number %d: %v, want %v", i, err, want)
		}
	}
}

func TestStrangersMakeRoom(t *testing.T) {
	t.Parallel()
	h := openHall(t, Config{Most: 3, Grace: 1})
	var came []*visitor
	for i := range 6 {
		v, err := h.enters(fmt.Sprintf("192.0.2.%d", i))
		if err != nil {
			t.Fatalf("number %d is told: %v", i, err)
		}
		if i == 1 || i == 4 {
			h.Settle(v)
			h.Settle(v) // nothing more comes of it
		}
		came = append(came, v)
	}
	for i, v := range came {
		if want := i == 0 || i == 2 || i == 3; v.closed != want {
			t.Errorf("number %d made room: %t", i, v.closed)
		}
	}
	h.Settle(came[5])
	if _, err := h.enters("192.0.2.9"); err != ErrFull {
		t.Errorf("where all have settled in another is told: %v", err)
	}
	h.want(3, 4)
	if got := h.log.String(); !strings.Contains(got, "one that had not logged in was closed for a new one") {
		t.Errorf("the log says\n%s", got)
	}

	h = openHall(t, Config{Most: 1, Grace: time.Hour})
	if _, err := h.enters("192.0.2.1"); err != nil {
		t.Fatal(err)
	}
	if _, err := h.enters("192.0.2.2"); err != ErrFull {
		t.Errorf("before a stranger has had time to settle in another is told: %v", err)
	}
}

// lingering is a visitor that takes its time to leave.
type lingering struct{ visitor }

func (l *lingering) Close() error { return nil }

func TestWhoMakesRoomIsWaitedFor(t *testing.T) {
	t.Parallel()
	h := openHall(t, Config{Most: 1, Grace: 1})
	slow := &lingering{visitor{hall: h}}
	if err := h.enter(slow, netip.Addr{}, false); err != nil {
		t.Fatal(err)
	}
	next, err := h.enters("192.0.2.1")
	if err != nil {
		t.Fatal(err)
	}
	h.want(2, 1)
	if guests := h.Guests(); len(guests) != 2 {
		t.Errorf("%d are inside while one leaves, want 2", len(guests))
	}
	h.leave(next)
	if next, err = h.enters("192.0.2.1"); err != nil {
		t.Errorf("where nobody is but who leaves another is told: %v", err)
	}
	h.leave(slow)
	h.Settle(next)
	if _, err := h.enters("192.0.2.2"); err != ErrFull {
		t.Errorf("when it has left another is told: %v", err)
	}
}

// caller is a visitor whose connection is what it leaves by: it says where it came from and stays until the client goes.
type caller struct {
	net.Conn
	from Client
}

func (c *caller) Serve() {
	defer c.Close()
	fmt.Fprintf(c, "%s %t\n", c.from.Addr, c.from.Local)
	io.Copy(c, c)
}

func (c *caller) Drain() { c.Close() }

// serve has the door serve a port until the test ends.
func (h *hall) serve(words func(error) string) string {
	h.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		h.t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() {
		served <- h.Serve(l, func(conn net.Conn, from Client) Guest { return &caller{conn, from} }, words)
	}()
	h.t.Cleanup(func() {
		if err := h.Shutdown(context.Background()); err != nil {
			h.t.Error(err)
		}
		if err := <-served; err != nil {
			h.t.Error(err)
		}
	})
	return l.Addr().String()
}

// dial connects, says something and returns the first line of the answer, empty where there is none.
func (h *hall) dial(addr, text string) (net.Conn, string) {
	h.t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(time.Minute))
	io.WriteString(conn, text)
	line, err := bufio.NewReader(conn).ReadString('\n')
	if errors.Is(err, os.ErrDeadlineExceeded) {
		h.t.Fatalf("no answer after %q", text)
	}
	return conn, strings.TrimSuffix(line, "\n")
}

func TestWhoMayNotEnterIsToldSo(t *testing.T) {
	t.Parallel()
	h := openHall(t, Config{Most: 1})
	port := h.serve(func(err error) string { return "sorry: " + err.Error() + "\n" })
	silent := h.serve(nil)
	if _, line := h.dial(port, ""); line != "127.0.0.1 true" {
		t.Errorf("the first hears %q", line)
	}
	if _, line := h.dial(port, ""); line != "sorry: "+ErrFull.Error() {
		t.Errorf("the second hears %q", line)
	}
	if _, line := h.dial(silent, ""); line != "" {
		t.Errorf("where nothing is to be told the third hears %q", line)
	}
}

func TestShutdownSeesEverybodyOut(t *testing.T) {
	t.Parallel()
	h := openHall(t, Config{Most: 10})
	port := h.serve(nil)
	for range 2 {
		h.dial(port, "")
	}
	h.want(2, 0)
	if err := h.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	h.want(0, 0)
	if _, err := h.enters("192.0.2.1"); err != ErrClosing {
		t.Errorf("who comes afterwards is told: %v", err)
	}
	h.want(0, 0) // there would have been room
	if err := h.Serve(&out{}, nil, nil); err != nil {
		t.Errorf("serving afterwards: %v", err)
	}
	if h.Context().Err() == nil {
		t.Error("the context goes on")
	}
}

// late is a listener that accepts one connection, in the moment in which it is closed.
type late struct {
	net.Listener
	once   sync.Once
	closed chan struct{}
	asked  chan net.Conn // gets the other end of that connection before it is there
}

func (l *late) Accept() (net.Conn, error) {
	if l.asked == nil {
		return nil, net.ErrClosed
	}
	ours, theirs := net.Pipe()
	l.asked <- theirs
	l.asked = nil
	<-l.closed
	return ours, nil
}

func (l *late) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// patient speaks when it is drained.
type patient struct {
	net.Conn
	drained chan struct{}
}

func (p *patient) Serve() {
	<-p.drained
	io.WriteString(p, "served")
	p.Close()
}

func (p *patient) Drain() { close(p.drained) }

func TestWhoIsAcceptedWhenShutdownBeginsIsServedOrToldWhy(t *testing.T) {
	t.Parallel()
	for want, words := range map[string]func(error) string{"served": nil, ErrClosing.Error(): error.Error} {
		h := openHall(t, Config{Most: 1})
		l := &late{closed: make(chan struct{}), asked: make(chan net.Conn)}
		asked := l.asked
		served := make(chan error, 1)
		go func() {
			served <- h.Serve(l, func(conn net.Conn, _ Client) Guest { return &patient{conn, make(chan struct{})} }, words)
		}()
		peer := <-asked
		heard := make(chan string, 1)
		go func() {
			text, _ := io.ReadAll(peer)
			heard <- string(text)
		}()
		if err := h.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
		if got := <-heard; got != want {
			t.Errorf("it hears %q, want %q", got, want)
		}
		h.want(0, 0)
	}
}

func TestShutdownThatLosesPatienceCloses(t *testing.T) {
	t.Parallel()
	h := openHall(t, Config{Most: 10})
	stubborn, polite := &visitor{hall: h, stubborn: true}, &visitor{hall: h}
	for _, v := range []*visitor{stubborn, polite} {
		if err := h.enter(v, netip.Addr{}, false); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
	if !stubborn.closed || polite.closed {
		t.Errorf("closed: the stubborn one %v, the polite one %v", stubborn.closed, polite.closed)
	}
	h.want(0, 0)
}

// out is a listener without file descriptors for two connections, and then one whose owner closed it.
type out struct {
	net.Listener
	asked int
}

func (o *out) Accept() (net.Conn, error) {
	if o.asked++; o.asked <= 2 {
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	return nil, net.ErrClosed
}

func (o *out) Close() error { return nil }

func TestListenerOutOfDescriptorsIsAskedAgain(t *testing.T) {
	t.Parallel()
	h := openHall(t, Config{Most: 10})
	o := &out{}
	if err := h.Serve(o, nil, nil); !errors.Is(err, net.ErrClosed) || o.asked != 3 {
		t.Errorf("asked %d times, and then %v", o.asked, err)
	}
	if got := h.log.String(); strings.Count(got, "limit of open files") != 1 {
		t.Errorf("the log says\n%s", got)
	}
}
