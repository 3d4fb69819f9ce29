package turnd

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
)

func TestConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	f := open(t, func(c *Config) { c.Limits.PerAddress, c.Limits.Connections = 2, 3 })
	// The machine itself is a client like any other.
	for range 2 {
		dial(t, f.addr).expect("220")
	}
	dial(t, f.addr).expect("421 mx.example Too many connections from your address")
	near := dialFrom(t, "127.0.0.30", f.addr)
	near.expect("220")
	c := dialFrom(t, "127.0.0.31", f.addr)
	c.expect("421 mx.example Too many connections")
	c.closed()
	near.say("QUIT", "221")
	near.closed()

	f = open(t, func(c *Config) { c.Limits.PerAddress = 2 })
	for range 2 {
		c = dialFrom(t, "127.0.0.30", f.addr)
		c.expect("220")
	}
	dialFrom(t, "127.0.0.30", f.addr).expect("421 mx.example Too many connections from your address")
	dialFrom(t, "127.0.0.31", f.addr).expect("220")
	c.say("QUIT", "221")
	waitFor(t, "a place is free again", func() bool {
		c := dialFrom(t, "127.0.0.30", f.addr)
		line, err := c.r.ReadString('\n')
		return err == nil && strings.HasPrefix(line, "220")
	})
}

func TestStrangersMakeRoomForOthers(t *testing.T) {
	t.Parallel()
	f := open(t, func(c *Config) { c.Limits.Connections, c.Limits.Grace = 3, 1 })
	stranger, customer, asker := dialFrom(t, "127.0.0.30", f.addr), dial(t, f.addr), dialFrom(t, "127.0.0.9", f.addr)
	stranger.expect("220")
	customer.login("corp")
	asker.expect("220")
	asker.say("EHLO client.example", "250")
	asker.say("ETRN bolt.example", "253")
	for i := range 3 {
		next := dialFrom(t, fmt.Sprint("127.0.0.", 40+i), f.addr)
		next.expect("220")
		stranger.closed()
		stranger = next
	}
	customer.say("NOOP", "250")
	asker.say("NOOP", "250")
}

// A proxy comes from 192.0.2.5, as the server sees it, and says that its client comes from an address.
func proxied(t *testing.T, addr, header string) *client {
	t.Helper()
	c := dialFrom(t, "127.0.0.5", addr)
	c.send(header)
	return c
}

func TestClientOfAProxyIsWhoTheProxySays(t *testing.T) {
	t.Parallel()
	f := openTLS(t, func(c *Config) {
		c.Proxies = func() []netip.Addr {
			return []netip.Addr{netip.MustParseAddr("192.0.2.5"), netip.MustParseAddr("127.0.0.1")}
		}
	})
	bolt := proxied(t, f.addr, "PROXY TCP4 192.0.2.9 198.51.100.1 4000 366\r\n")
	bolt.expect("220")
	bolt.say("EHLO client.example", "250")
	bolt.say("ETRN bolt.example", "253")
	corp := proxied(t, f.listen(t, f.ServeTLS), "PROXY TCP6 2001:db8::7 2001:db8::1 4000 366\r\n")
	corp.startTLS()
	corp.expect("220")
	corp.say("EHLO client.example", "250")
	corp.say("AUTH PLAIN "+plainText("corp", "a guess"), "535")
	corp.say("AUTH PLAIN "+plainText("corp", password("corp")), "235")
	corp.say("ATRN", "250")
	corp.expect("220 a turn of corp")
	f.turns.mu.Lock()
	if got := f.turns.clients; len(got) != 2 || got[0].Addr != "192.0.2.9" || got[1].Addr != "2001:db8::7" {
		t.Errorf("the turns are for %+v", got)
	}
	f.turns.mu.Unlock()
	if got := f.log.String(); !strings.Contains(got, `msg="log-in failed" service=turnd client=2001:db8::7 user=corp`) {
		t.Errorf("the log says\n%s", got)
	}

	// Whatever a proxy says, nobody comes from this machine, and its own address is none of a customer's.
	for _, c := range []*client{
		proxied(t, f.addr, "PROXY TCP4 127.0.0.1 127.0.0.1 4000 366\r\n"), proxied(t, f.addr, "PROXY UNKNOWN\r\n"),
		dial(t, f.addr), // a proxy that is on this machine
	} {
		if c.conn.LocalAddr().(*net.TCPAddr).IP.Equal(net.IPv4(127, 0, 0, 1)) {
			c.send("PROXY UNKNOWN\r\n")
		}
		c.expect("220")
		if offer := c.say("EHLO client.example", "250"); strings.Contains(offer, "PLAIN") {
			t.Errorf("the server offers %q", offer)
		}
		c.say("AUTH PLAIN "+plainText("corp", password("corp")), "538")
		c.say("ETRN bolt.example", "459")
	}
}

func TestOneSiteOfIPv6NeitherTakesAllPlacesNorGuessesForLong(t *testing.T) {
	t.Parallel()
	f := openTLS(t, func(c *Config) {
		c.Proxies = func() []netip.Addr { return []netip.Addr{netip.MustParseAddr("192.0.2.5")} }
	})
	site := func(link int) string { // each time another /64 of one /48
		return fmt.Sprintf("PROXY TCP6 2001:db8:1:%x::1 2001:db8::1 4000 366\r\n", link*257)
	}
	inside := 0
	for link := range 120 {
		c := proxied(t, f.addr, site(link))
		if line, err := c.r.ReadString('\n'); err == nil && strings.HasPrefix(line, "220") {
			inside++
		}
	}
	if inside != 80 {
		t.Errorf("a /48 has %d of 1,000 places, want 80", inside)
	}
	dial(t, f.addr).login("corp")

	f = openTLS(t, func(c *Config) {
		c.Proxies = func() []netip.Addr { return []netip.Addr{netip.MustParseAddr("192.0.2.5")} }
	})
	addr := f.listen(t, f.ServeTLS)
	answered := 0
	for link := range 250 {
		c := proxied(t, addr, site(link))
		c.startTLS()
		c.expect("220")
		c.say("EHLO client.example", "250")
		c.send("AUTH PLAIN " + plainText("corp", "a guess") + "\r\n")
		if line, err := c.r.ReadString('\n'); err != nil {
			t.Fatal(err)
		} else if strings.HasPrefix(line, "535") {
			answered++
		} else if !strings.HasPrefix(line, "421 4.7.0 Too many log-ins failed") {
			t.Fatalf("a guess is answered %q", line)
		}
		c.conn.Close()
	}
	if answered != 200 {
		t.Errorf("a /48 guessed %d times, want 200", answered)
	}
	dial(t, f.addr).login("corp")
}

func TestHeaderOfAStrangerIsGarbage(t *testing.T) {
	t.Parallel()
	f := open(t, func(c *Config) {
		c.Proxies = func() []netip.Addr { return []netip.Addr{netip.MustParseAddr("192.0.2.5")} }
	})
	c := dialFrom(t, "127.0.0.30", f.addr)
	c.expect("220")
	c.say("PROXY TCP4 192.0.2.9 198.51.100.1 4000 366", "502")
	c.say("EHLO client.example", "250")
	c.say("ETRN bolt.example", "459")
	c.say("ETRN dialled.example", "459")
	if got := f.log.String(); !strings.Contains(got, "client=192.0.2.30") || strings.Contains(got, "192.0.2.9") {
		t.Errorf("the log says\n%s", got)
	}
}
