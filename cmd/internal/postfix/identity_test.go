package postfix

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"mailbag/cmd/internal/mta"
)

func TestIdentityIsWhereMailComesIn(t *testing.T) {
	t.Parallel()
	in, p := configured(t, "mydomain = provider.example\nmyhostname = mx.$mydomain\nproxy_interfaces = 192.0.2.1, 2001:db8::1 outside.provider.example\n")
	edit(t, in, "-MX", p.Addr()+"/inet")
	edit(t, in, "-M", "smtp/inet=smtp inet n - y - 1 postscreen", "submission/inet=submission inet n - y - - smtpd",
		"[::1]:10026/inet=[::1]:10026 inet n - y - - smtpd", "127.0.0.1:10026/inet=127.0.0.1:10026 inet n - y - - smtpd",
		"smtpd/pass=smtpd pass - - y - - smtpd", "628/inet=628 inet n - y - - qmqpd", "no-such-port/inet=no-such-port inet n - y - - smtpd")
	got, err := in.Identity(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := mta.Identity{
		Hostname: "mx.provider.example", Directories: []string{p.QueueDir(), p.Path("data")}, Owner: "postfix", Ports: []uint16{25, 587, 10026},
		Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
		Doors:     []mta.Door{{Address: "127.0.0.1:25", Screen: true}, {Address: "127.0.0.1:587"}, {Address: "[::1]:10026"}, {Address: "127.0.0.1:10026"}},
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Error(diff)
	}
}
