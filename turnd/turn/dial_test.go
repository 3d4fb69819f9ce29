package turn

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"mailbag/meter"
)

// dialogues dials servers that speak so.
func dialogues(t *testing.T, speak func(address string, conn net.Conn, in *bufio.Reader)) func(address string) net.Conn {
	var serving sync.WaitGroup
	var ends []net.Conn
	t.Cleanup(func() {
		for _, conn := range ends {
			conn.Close()
		}
		serving.Wait()
	})
	return func(address string) net.Conn {
		ours, theirs := net.Pipe()
		ends = append(ends, theirs)
		serving.Go(func() { speak(address, theirs, bufio.NewReader(theirs)) })
		return ours
	}
}

// reached is where a turn that dials so arrives that has these addresses to choose from.
func reached(t *testing.T, dial func(address string) net.Conn, addresses ...netip.AddrPort) string {
	t.Helper()
	ts, err := New(Config{Hostname: "mx.provider.example", Dial: func(_ context.Context, _, address string) (net.Conn, error) {
		return dial(address), nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	turn := ts.new(&meter.Account{Name: "hooli"}, meter.TurnETRN, Client{})
	defer turn.cut()
	ctx, cancel := context.WithTimeout(t.Context(), connectTime)
	defer cancel()
	channel, peer, err := turn.newLine(false).reach(ctx, "customer.example", addresses)
	if err != nil {
		t.Fatal(err)
	}
	if channel.TLS() != "" {
		t.Errorf("it is reached by %s", channel.TLS())
	}
	channel.Close()
	return peer
}

// The first address of a host accepts the connection and says nothing, as a port that is forwarded to a server that is down.
func TestAddressThatSaysNothingLeavesTimeForTheOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		silent, serves := netip.MustParseAddrPort("192.0.2.1:25"), netip.MustParseAddrPort("192.0.2.2:25")
		dial := dialogues(t, func(address string, conn net.Conn, in *bufio.Reader) {
			if address == serves.String() {
				fmt.Fprint(conn, "220 customer.example\r\n")
				if line, err := in.ReadString('\n'); err == nil && strings.HasPrefix(line, "EHLO") {
					fmt.Fprint(conn, "250 customer.example\r\n")
				}
			}
		})
		if peer := reached(t, dial, silent, serves); peer != serves.String() {
			t.Errorf("it is %s that was reached", peer)
		}
	})
}

// As behind a firewall that lets STARTTLS through and no TLS: the mail goes in the clear.
func TestTLSThatSaysNothingLeavesTimeForNone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		address := netip.MustParseAddrPort("192.0.2.1:25")
		started := 0
		dial := dialogues(t, func(_ string, conn net.Conn, in *bufio.Reader) {
			fmt.Fprint(conn, "220 customer.example\r\n")
			in.ReadString('\n')
			fmt.Fprint(conn, "250-customer.example\r\n250 STARTTLS\r\n")
			if line, err := in.ReadString('\n'); err == nil && strings.HasPrefix(line, "STARTTLS") {
				started++
				fmt.Fprint(conn, "220 2.0.0 go on\r\n")
				io.Copy(io.Discard, in)
			}
		})
		if peer := reached(t, dial, address); peer != address.String() || started != 1 {
			t.Errorf("%q was reached, TLS begun %d times", peer, started)
		}
	})
}
