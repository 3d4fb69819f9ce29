package door

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// hall is a door and what it tells.
type hall struct {
	*Door
	inside  prometheus.Gauge
	refused prometheus.Counter
	log     bytes.Buffer
}

func openHall(most, perNetwork int) *hall {
	h := &hall{
		inside:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "inside"}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{Name: "refused"}),
	}
	h.Door = New(Config{Socket: "front", Most: most, PerNetwork: perNetwork, Logger: slog.New(slog.NewTextHandler(&h.log, nil)),
		Inside: h.inside, Refused: h.refused})
	return h
}

// want fails the test when the metrics are others.
func (h *hall) want(t *testing.T, inside, refused float64) {
	t.Helper()
	if i, r := testutil.ToFloat64(h.inside), testutil.ToFloat64(h.refused); i != inside || r != refused {
		t.Errorf("%v are inside and %v were refused, want %v and %v", i, r, inside, refused)
	}
}

// visitor leaves when it is told to, or only when it is closed.
type visitor struct {
	hall     *hall
	stubborn bool
	closed   bool
}

func (v *visitor) Drain() {
	if !v.stubborn {
		v.hall.Leave(v)
	}
}

func (v *visitor) Close() error {
	v.closed = true
	v.hall.Leave(v)
	return nil
}

func addr(text string) netip.Addr { return netip.MustParseAddr(text) }

func TestNobodyTakesThePlacesOfAll(t *testing.T) {
	t.Parallel()
	h := openHall(4, 2)
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
		v := &visitor{hall: h}
		if err := h.Enter(v, addr(c.client)); err != c.want {
			t.Errorf("%s: %v, want %v", c.client, err, c.want)
		} else if err == nil {
			all = append(all, v)
		}
	}
	h.want(t, 4, 2)
	if got := h.log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "client=192.0.2.1 limit=2") {
		t.Errorf("the log says\n%s", got)
	}
	h.Leave(all[0])
	h.Leave(all[0]) // is gone
	h.want(t, 3, 2)
	if err := h.Enter(&visitor{hall: h}, addr("192.0.2.1")); err != nil {
		t.Errorf("whose place is free again is told: %v", err)
	}
}

func TestClientsWithoutAnAddressShareNoLimit(t *testing.T) {
	t.Parallel()
	h := openHall(3, 1)
	for i, want := range []error{nil, nil, nil, ErrFull} {
		if err := h.Enter(&visitor{hall: h}, netip.Addr{}); err != want {
			t.Errorf("number %d: %v, want %v", i, err, want)
		}
	}
}

func TestNetworks(t *testing.T) {
	t.Parallel()
	for client, want := range map[string]string{
		"192.0.2.7":          "192.0.2.7/32",
		"::ffff:192.0.2.7":   "192.0.2.7/32",
		"2001:db8:1:2:3::4":  "2001:db8:1:2::/64",
		"fe80::1:2:3:4%eth0": "fe80::/64",
	} {
		if got := Network(addr(client)).String(); got != want {
			t.Errorf("%s is of %s, want %s", client, got, want)
		}
	}
	if Network(netip.Addr{}).IsValid() {
		t.Error("no address has a network")
	}
}

func TestShutdownSeesEverybodyOut(t *testing.T) {
	t.Parallel()
	h := openHall(10, 0)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	came := make(chan struct{}, 2)
	served := make(chan error, 1)
	go func() {
		served <- h.Serve(l, func(conn net.Conn) {
			conn.Close()
			if err := h.Enter(&visitor{hall: h}, ClientAddr(conn)); err != nil {
				t.Error(err)
			}
			came <- struct{}{}
		})
	}()
	for range 2 {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		<-came
	}
	h.want(t, 2, 0)
	if err := h.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	h.want(t, 0, 0)
	if err := h.Enter(&visitor{hall: h}, addr("192.0.2.1")); err != ErrClosing {
		t.Errorf("who comes afterwards is told: %v", err)
	}
	h.want(t, 0, 0) // there would have been room
	if err := h.Serve(l, nil); err != nil {
		t.Errorf("serving afterwards: %v", err)
	}
	if h.Context().Err() == nil {
		t.Error("the context goes on")
	}
}

func TestShutdownThatLosesPatienceCloses(t *testing.T) {
	t.Parallel()
	h := openHall(10, 0)
	stubborn, polite := &visitor{hall: h, stubborn: true}, &visitor{hall: h}
	for _, v := range []*visitor{stubborn, polite} {
		if err := h.Enter(v, netip.Addr{}); err != nil {
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
	h.want(t, 0, 0)
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
	h := openHall(10, 0)
	o := &out{}
	if err := h.Serve(o, nil); !errors.Is(err, net.ErrClosed) || o.asked != 3 {
		t.Errorf("asked %d times, and then %v", o.asked, err)
	}
	if got := h.log.String(); strings.Count(got, "limit of open files") != 1 {
		t.Errorf("the log says\n%s", got)
	}
}
