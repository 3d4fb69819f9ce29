package turn

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"

	"mailbag/meter"
)

// The first address of a host accepts the connection and says nothing, as a port that is forwarded to a server that is down.
func TestAddressThatSaysNothingLeavesTimeForTheOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		silent, serves := netip.MustParseAddrPort("192.0.2.1:25"), netip.MustParseAddrPort("192.0.2.2:25")
		var ends []net.Conn
		defer func() {
			for _, conn := range ends {
				conn.Close()
			}
		}()
		ts, err := New(Config{Hostname: "mx.provider.example", Dial: func(_ context.Context, _, address string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			ends = append(ends, theirs)
			if address == serves.String() {
				go func() {
					fmt.Fprint(theirs, "220 customer.example\r\n")
					if line, err := bufio.NewReader(theirs).ReadString('\n'); err == nil && strings.HasPrefix(line, "EHLO") {
						fmt.Fprint(theirs, "250 customer.example\r\n")
					}
				}()
			}
			return ours, nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		turn := ts.new(&meter.Account{Name: "hooli"}, meter.TurnETRN, Client{})
		defer turn.cut()
		ctx, cancel := context.WithTimeout(t.Context(), connectTime)
		defer cancel()
		channel, peer, err := turn.reach(ctx, "customer.example", []netip.AddrPort{silent, serves})
		if err != nil {
			t.Fatal(err)
		}
		channel.Close()
		if peer != serves.String() {
			t.Errorf("it is %s that was reached", peer)
		}
	})
}
