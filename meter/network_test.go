package meter

import (
	"fmt"
	"net/netip"
	"testing"
)

func TestMailIsFlushedFromOwnNetworksAndTheHostItself(t *testing.T) {
	t.Parallel()
	a := &Account{Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8:1::/48")}}
	for client, want := range map[string]struct{ within, may bool }{
		"192.0.2.9":        {true, true},
		"::ffff:192.0.2.9": {true, true},
		"2001:db8:1::5":    {true, true},
		"192.0.3.1":        {false, false},
		"2001:db8:2::5":    {false, false},
		"127.0.0.1":        {false, true},
		"::ffff:127.0.0.1": {false, true},
		"::1":              {false, true},
		"127.0.0.2":        {false, false},
	} {
		addr := netip.MustParseAddr(client)
		if a.Within(addr) != want.within || a.MayFlush(addr) != want.may {
			t.Errorf("%s: within %t, may flush %t; want %+v", client, a.Within(addr), a.MayFlush(addr), want)
		}
	}
	if (&Account{}).MayFlush(netip.Addr{}) {
		t.Error("a client without an address may flush")
	}
}

func TestNetworksThatMayBeOneCustomers(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]string{
		"192.0.2.7":             "[192.0.2.7/32]",
		"::ffff:192.0.2.7":      "[192.0.2.7/32]",
		"2001:db8:1:abcd:3::4":  "[2001:db8:1:abcd::/64 2001:db8:1:ab00::/56 2001:db8:1::/48]",
		"fe80::1:2:3:4%eth0":    "[fe80::/64 fe80::/56 fe80::/48]",
		"2001:db8:ffff:ffff::1": "[2001:db8:ffff:ffff::/64 2001:db8:ffff:ff00::/56 2001:db8:ffff::/48]",
	} {
		if got := fmt.Sprint(Networks(netip.MustParseAddr(addr))); got != want {
			t.Errorf("%s is in %s, want %s", addr, got, want)
		}
	}
	if got := Networks(netip.Addr{}); got != nil {
		t.Errorf("no address is in %s", got)
	}
}
