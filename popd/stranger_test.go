package popd

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
)

func TestTooManyConnections(t *testing.T) {
	t.Parallel()
	d := openDesk(t, func(cfg *Config) { cfg.Bounds = Bounds{Connections: 3, PerAddress: 2} })
	from := func(address string) (net.Conn, error) {
		return (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}).Dial("tcp", d.pop3)
	}
	var inside []net.Conn
	for _, try := range []struct {
		address string
		let     bool
	}{{"127.0.0.2", true}, {"127.0.0.2", true}, {"127.0.0.2", false}, {"127.0.0.3", true}, {"127.0.0.4", false}} {
		conn, err := from(try.address)
		d.must(err)
		defer conn.Close()
		line := d.talk(conn).line()
		if strings.HasPrefix(line, "+OK") != try.let {
			t.Errorf("%s: %s", try.address, line)
		}
		if try.let {
			inside = append(inside, conn)
		}
	}
	inside[0].Close()
	eventually(t, "room", func() bool { return len(d.clients.Guests()) < 3 })
	conn, err := from("127.0.0.4")
	d.must(err)
	defer conn.Close()
	d.talk(conn).want("+OK")
}

func TestStrangersMakeRoomForOthers(t *testing.T) {
	t.Parallel()
	d := openDesk(t, func(cfg *Config) { cfg.Bounds = Bounds{Connections: 2, Grace: 1} })
	stranger, customer := d.dial(), d.enter("dent")
	for range 3 {
		next := d.dial()
		stranger.closed()
		stranger = next
	}
	customer.say("NOOP", "+OK")
	stranger.say("USER arthur@dent.example", "+OK")
	stranger.say("PASS secret word", "+OK")
	conn, err := net.Dial("tcp", d.pop3)
	d.must(err)
	defer conn.Close()
	d.talk(conn).want("-ERR [SYS/TEMP]")
}

func TestClientOfAProxyIsWhoTheProxySays(t *testing.T) {
	t.Parallel()
	d := openDesk(t, func(cfg *Config) {
		withTLS(t)(cfg)
		cfg.Bounds.PerAddress = 1
		cfg.Proxies = func() []netip.Addr { return []netip.Addr{netip.MustParseAddr("127.0.0.1")} }
	})
	secure := d.serve("tcp", "127.0.0.1:0", d.ServePOP3S)
	proxied := func(address, header string) net.Conn {
		conn, err := net.Dial("tcp", address)
		d.must(err)
		t.Cleanup(func() { conn.Close() })
		fmt.Fprint(conn, header)
		return conn
	}
	for _, header := range []string{"PROXY TCP4 192.0.2.7 198.51.100.1 4000 110\r\n", "PROXY TCP4 127.0.0.1 127.0.0.1 4000 110\r\n"} {
		c := d.talk(proxied(d.pop3, header))
		c.want("+OK")
		c.say("USER dent", "-ERR A password is not taken in the clear")
		d.talk(proxied(d.pop3, header)).want("-ERR [SYS/TEMP] Please try again later: there are too many connections from one network")
	}
	c := d.talk(tls.Client(proxied(secure, "PROXY TCP6 2001:db8::7 2001:db8::1 4000 995\r\n"), &tls.Config{InsecureSkipVerify: true}))
	c.want("+OK")
	c.say("USER dent", "+OK")
	c.say("PASS secret word", "+OK")
	c.say("QUIT", "+OK")
	eventually(t, "the session's record", func() bool {
		list, err := d.ledger.PopSessions(t.Context(), "dent", 1)
		return err == nil && len(list) == 1 && list[0].Client == "2001:db8::7"
	})
}
