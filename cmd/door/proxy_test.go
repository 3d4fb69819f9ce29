package door

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
)

// header is one of version 2 about TCP from an address.
func header(from string) string {
	addr := net.TCPAddrFromAddrPort(netip.MustParseAddrPort(from))
	to := &net.TCPAddr{IP: net.ParseIP("198.51.100.1"), Port: 110}
	if addr.IP.To4() == nil {
		to.IP = net.ParseIP("2001:db8:f::1")
	}
	b, err := proxyproto.HeaderProxyFromAddrs(2, addr, to).Format()
	if err != nil {
		panic(err)
	}
	return string(b)
}

// signature begins a header of version 2.
const signature = "\r\n\r\n\x00\r\nQUIT\n"

var listed = func() []netip.Addr { return []netip.Addr{netip.MustParseAddr("127.0.0.1")} }

func TestProxyTellsWhoTheClientIs(t *testing.T) {
	t.Parallel()
	h := openHall(t, Config{Most: 100, PerNetwork: 100, Proxies: listed})
	port := h.serve(nil)
	for text, want := range map[string]string{
		"PROXY TCP4 192.0.2.7 198.51.100.1 4000 110\r\n":                                               "192.0.2.7 false",
		"PROXY TCP6 2001:db8::7 2001:db8:f::1 4000 110\r\n":                                            "2001:db8::7 false",
		"PROXY TCP6 ::ffff:192.0.2.7 2001:db8:f::1 4000 110\r\n":                                       "192.0.2.7 false",
		header("192.0.2.7:4000"):                                                                       "192.0.2.7 false",
		header("[2001:db8::7]:4000"):                                                                   "2001:db8::7 false",
		"PROXY TCP4 127.0.0.1 127.0.0.1 4000 110\r\n":                                                  "127.0.0.1 false",
		"PROXY UNKNOWN\r\n":                                                                            "127.0.0.1 false",
		"PROXY UNKNOWN ffff::1 whatever there is\r\n":                                                  "127.0.0.1 false",
		signature + "\x20\x00\x00\x00":                                                                 "127.0.0.1 false", // LOCAL
		signature + "\x20\x11\x00\x0c" + strings.Repeat("\x01", 12):                                    "127.0.0.1 false",
		signature + "\x20\x12\x00\x0c" + strings.Repeat("\x01", 12):                                    "127.0.0.1 false",
		signature + "\x21\x31\x00\xd8" + strings.Repeat("/", 216):                                      "127.0.0.1 false", // from a unix socket
		signature + "\x21\x11\x00\x13\xc0\x00\x02\x07\xc6\x33\x64\x01\x0f\xa0\x00\x6e\x04\x00\x04abcd": "192.0.2.7 false", // with a TLV
	} {
		if _, line := h.dial(port, text+"NOOP\n"); line != want {
			t.Errorf("after %q the client is %q, want %q", text, line, want)
		}
	}
	conn, _ := h.dial(port, header("192.0.2.7:4000"))
	fmt.Fprint(conn, "to the last octet\n")
	echo := make([]byte, 18)
	if _, err := conn.Read(echo); err != nil || string(echo) != "to the last octet\n" {
		t.Errorf("behind the header came %q, %v", echo, err)
	}
}

func TestProxyWithoutAHeaderIsClosed(t *testing.T) {
	t.Parallel()
	for text, why := range map[string]string{
		"USER dent\r\n": "not present",
		"PROXY TCP4 192.0.2.7 198.51.100.1 4000 110\n":              "must end with",
		"PROXY TCP4 2001:db8::7 198.51.100.1 4 110\r\n":             "invalid address",
		"PROXY " + strings.Repeat("x", 200):                         "107",
		signature + "\x21\x11\x00\x00":                              "length",
		signature + "\x21\x11\xff\xff":                              "length",
		signature + "\x31\x11\x00\x0c":                              "version",
		signature + "\x21\x12\x00\x0c" + strings.Repeat("\x01", 12): "UDP",
	} {
		h := openHall(t, Config{Most: 100, Proxies: listed})
		if _, line := h.dial(h.serve(nil), text); line != "" {
			t.Errorf("after %q: %q", text, line)
		}
		if got := h.log.String(); !strings.Contains(got, "a proxy's connection was closed") || !strings.Contains(got, "proxy=127.0.0.1") || !strings.Contains(got, why) {
			t.Errorf("after %q the log lacks %q:\n%s", text, why, got)
		}
		h.want(0, 0)
	}
}

func TestProxyThatTakesTooLongHoldsUpNobody(t *testing.T) {
	t.Parallel()
	h := openHall(t, Config{Most: 2, Proxies: listed})
	h.patience = 5 * time.Second // in which both come, and the header of the next one
	port := h.serve(nil)
	slow := make(chan string, 2)
	for _, text := range []string{"", signature[:7]} {
		go func() {
			_, line := h.dial(port, text)
			slow <- line
		}()
	}
	h.eventually("two headers to be waited for", func() bool { return h.waitsFor() == 2 })
	for range 2 {
		if line := <-slow; line != "" {
			t.Errorf("the slow one heard %q", line)
		}
	}
	if got := h.log.String(); !strings.Contains(got, "a proxy's connection was closed") || !strings.Contains(got, "timeout") {
		t.Errorf("the log says\n%s", got)
	}
	if _, line := h.dial(port, header("192.0.2.7:4000")); line != "192.0.2.7 false" {
		t.Errorf("the next one heard %q", line)
	}
}

func TestHeadersThatAreWaitedForAreBounded(t *testing.T) {
	t.Parallel()
	h := openHall(t, Config{Most: 2, Proxies: listed})
	h.patience = time.Hour
	port := h.serve(nil)
	for range 2 {
		conn, err := net.Dial("tcp", port)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	h.eventually("two headers to be waited for", func() bool { return h.waitsFor() == 2 })
	if _, line := h.dial(port, ""); line != "" {
		t.Errorf("the third heard %q", line)
	}
}

func TestShutdownDoesNotWaitForHeaders(t *testing.T) {
	t.Parallel()
	h := openHall(t, Config{Most: 2, Proxies: listed})
	h.patience = time.Hour
	port := h.serve(nil)
	conn, err := net.Dial("tcp", port)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	h.eventually("the header to be waited for", func() bool { return h.waitsFor() == 1 })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := h.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	if got := h.log.String(); got != "" {
		t.Errorf("the log says\n%s", got)
	}
}

func TestHeaderOfOneWhoIsNotListedIsNoHeader(t *testing.T) {
	t.Parallel()
	h := openHall(t, Config{Most: 2, Proxies: func() []netip.Addr { return []netip.Addr{netip.MustParseAddr("192.0.2.5")} }})
	conn, line := h.dial(h.serve(nil), "PROXY TCP4 192.0.2.7 198.51.100.1 4000 110\r\n")
	if line != "127.0.0.1 true" {
		t.Errorf("the client is %q", line)
	}
	echo := make([]byte, 5)
	if _, err := conn.Read(echo); err == nil && string(echo) != "PROXY" {
		t.Errorf("what it sent is %q", echo)
	}
}

func TestClientsOfAProxyAreCountedByTheirOwnAddresses(t *testing.T) {
	t.Parallel()
	h := openHall(t, Config{Most: 100, PerNetwork: 2, Proxies: listed})
	port := h.serve(func(err error) string { return err.Error() + "\n" })
	for i := range 10 {
		for range 2 {
			if _, line := h.dial(port, header(fmt.Sprintf("192.0.2.%d:4000", i))); line != fmt.Sprintf("192.0.2.%d false", i) {
				t.Errorf("client %d heard %q", i, line)
			}
		}
		if _, line := h.dial(port, header(fmt.Sprintf("192.0.2.%d:4000", i))); line != ErrCrowded.Error() {
			t.Errorf("client %d heard %q the third time", i, line)
		}
	}
	h.want(20, 10)
}

// waitsFor is how many headers are waited for.
func (h *hall) waitsFor() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.arriving)
}

// eventually waits until a condition holds.
func (h *hall) eventually(what string, holds func() bool) {
	h.t.Helper()
	deadline := time.After(time.Minute)
	for !holds() {
		select {
		case <-deadline:
			h.t.Fatalf("not seen: %s", what)
		case <-time.After(time.Millisecond):
		}
	}
}
