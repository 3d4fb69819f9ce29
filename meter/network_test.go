package meter

import (
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
