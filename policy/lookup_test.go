package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"mailbag/meter"
)

func TestLookups(t *testing.T) {
	t.Parallel()
	six := account("six", meter.Backup, "six.example")
	six.Host = "[2001:db8::25]:2525"
	plainSix := account("plainsix", meter.Backup, "plainsix.example")
	plainSix.Host = "2001:db8::25"
	named := account("named", meter.Backup, "named.example")
	named.Host = "mail.named.example"
	byMX := account("mx", meter.Backup, "mx.example", "xn--mnchen-3ya.example")
	stopped := account("stopped", meter.Backup, "stopped.example")
	stopped.Suspended, stopped.Host = true, "mail.stopped.example"
	d := openDesk(t, append(customers(), six, plainSix, named, byMX, stopped), nil)
	unread := openDesk(t, customers(), nil)
	unread.faults.unread.Store(true)
	down := openDesk(t, customers(), nil)
	down.faults.unavailable.Store(true)
	for _, test := range []struct {
		desk       *desk
		name, key  string
		wantPrefix string
	}{
		{d, "relay-domains", "acme.example", "OK acme"},
		{d, "relay-domains", "ACME.Example", "OK acme"},
		{d, "relay-domains", "b\u00fccher.example", "OK acme"},
		{d, "relay-domains", "acme.example..", "NOTFOUND "},
		{d, "relay-domains", "sub.acme.example", "NOTFOUND "},
		{d, "relay-domains", "[192.0.2.1]", "NOTFOUND "},
		{d, "relay-domains", "", "NOTFOUND "},
		{d, "transport", "*", "NOTFOUND "},
		{d, "transport", "user@other.example", "NOTFOUND "},
		{d, "transport", "user@acme.example", "OK mailbag-turn:unix:/run/mailbag/turn/acme.sock"},
		{d, "transport", `"first last"@ACME.example`, "OK mailbag-turn:unix:/run/mailbag/turn/acme.sock"},
		{d, "transport", "user@B\u00dcCHER.example", "OK mailbag-turn:unix:/run/mailbag/turn/acme.sock"},
		{d, "transport", "user@listed.example", "OK mailbag-turn:unix:/run/mailbag/turn/listed.sock"},
		{d, "transport", "user@box.example", "OK mailbag-pop:unix:/run/mailbag/deliver.sock"},
		{d, "transport", "user@spare.example", "OK relay:[192.0.2.7]:2525"},
		{d, "transport", "user@six.example", "OK relay:[2001:db8::25]:2525"},
		{d, "transport", "user@plainsix.example", "OK relay:[2001:db8::25]"},
		{d, "transport", "user@named.example", "OK relay:[mail.named.example]"},
		{d, "transport", "user@mx.example", "OK relay:mx.example"},
		{d, "transport", "user@M\u00dcNCHEN.example", "OK relay:xn--mnchen-3ya.example"},
		{d, "transport", "user@stopped.example", "OK mailbag-turn:unix:/run/mailbag/turn/stopped.sock"},
		{d, "relay-recipients", "user@acme.example", "OK acme"},
		{d, "relay-recipients", "@acme.example", "OK acme"},
		{d, "relay-recipients", "known@listed.example", "OK listed"},
		{d, "relay-recipients", `"known"@listed.example`, "OK listed"},
		{d, "relay-recipients", "other@listed.example", "NOTFOUND "},
		{d, "relay-recipients", "@listed.example", "NOTFOUND "},
		{d, "relay-recipients", "@other.example", "NOTFOUND "},
		{d, "relay-recipients", "user", "NOTFOUND "},
		{d, "held-domains", "acme.example", "OK acme"},
		{d, "held-domains", "B\u00fcCHER.example", "OK acme"},
		{d, "held-domains", "stopped.example", "OK stopped"},
		{d, "held-domains", "spare.example", "NOTFOUND "},
		{d, "held-domains", "box.example", "NOTFOUND "},
		{d, "held-domains", "other.example", "NOTFOUND "},
		{d, "aliases", "root", "PERM "},
		{down, "transport", "user@acme.example", "OK mailbag-turn:"},
		{unread, "transport", "user@acme.example", "TEMP "},
		{unread, "relay-domains", "acme.example", "TEMP "},
		{unread, "relay-recipients", "user@acme.example", "TEMP "},
		{unread, "held-domains", "acme.example", "TEMP "},
		{unread, "aliases", "root", "PERM "},
	} {
		got := test.desk.lookup(test.name, test.key).text
		if exact := strings.HasPrefix(test.wantPrefix, "OK ") && !strings.HasSuffix(test.wantPrefix, ":"); exact && got != test.wantPrefix ||
			!strings.HasPrefix(got, test.wantPrefix) {
			t.Errorf("%s %q is answered %q, want %q", test.name, test.key, got, test.wantPrefix)
		}
	}
}

func TestLookupsOverASocket(t *testing.T) {
	t.Parallel()
	d := openDesk(t, customers(), nil)
	c := dial(t, d.listen(t, "lookup", d.ServeLookups))
	expect := func(want string) {
		t.Helper()
		b := make([]byte, len(want))
		if _, err := io.ReadFull(c.r, b); err != nil || string(b) != want {
			t.Errorf("answered %q, %v; want %q", b, err, want)
		}
	}
	c.send("26:relay-domains acme.example,11:transport *,31:relay-dom")
	expect("7:OK acme,9:NOTFOUND ,")
	c.send("ains other.example.org,")
	expect("9:NOTFOUND ,")
	if got := metric(t, d, "mailbag_policy_lookups_total"); got != 3 {
		t.Errorf("%v lookups counted", got)
	}
}

func TestTLSPolicyOfANextHopIsThatOfItsStrictestAccount(t *testing.T) {
	t.Parallel()
	to := func(name, host string, level meter.TLSLevel) meter.Account {
		a := account(name, meter.Backup, name+".example")
		a.Host, a.TLS = host, level
		return a
	}
	held := account("held", meter.ETRN, "held.example")
	held.Host, held.TLS, held.Networks = "mail.held.example", meter.TLSVerify, customers()[0].Networks
	stopped := to("stopped", "mail.stopped.example", meter.TLSRequire)
	stopped.Suspended = true
	d := openDesk(t, []meter.Account{
		to("clear", "mail.clear.example", meter.TLSOpportunistic),
		to("one", "mail.one.example", meter.TLSRequire),
		to("two", "mail.two.example:2525", meter.TLSVerify),
		to("six", "[2001:db8::25]:2525", meter.TLSRequire),
		to("mx", "", meter.TLSRequire),
		to("mxv", "", meter.TLSVerify),
		to("a-verifies", "shared.example", meter.TLSVerify),
		to("b-requires", "shared.example", meter.TLSRequire),
		to("c-does-not", "shared.example", meter.TLSOpportunistic),
		to("d-requires", "rising.example", meter.TLSRequire),
		to("e-verifies", "rising.example", meter.TLSVerify),
		held, stopped,
	}, nil)
	unread := openDesk(t, nil, nil)
	unread.faults.unread.Store(true)
	for hop, want := range map[string]string{
		"[mail.clear.example]":    "NOTFOUND ",
		"[mail.one.example]":      "OK encrypt",
		"[Mail.ONE.example]":      "OK encrypt",
		"[mail.one.example]:2525": "NOTFOUND ",
		"mail.one.example":        "NOTFOUND ",
		"one.example":             "NOTFOUND ",
		"[mail.two.example]:2525": "OK secure match=mail.two.example",
		"[mail.two.example]":      "NOTFOUND ",
		"[2001:db8::25]:2525":     "OK encrypt",
		"mx.example":              "OK encrypt",
		"[mx.example]":            "NOTFOUND ",
		"sub.mx.example":          "NOTFOUND ",
		".mx.example":             "NOTFOUND ",
		"MXV.example":             "OK verify",
		"[shared.example]":        "OK secure match=shared.example",
		"[Rising.example]":        "OK secure match=Rising.example",
		"[mail.held.example]":     "NOTFOUND ",
		"[mail.stopped.example]":  "OK encrypt",
		"other.example":           "NOTFOUND ",
		"":                        "NOTFOUND ",
	} {
		if got := d.lookup("tls-policy", hop).text; got != want {
			t.Errorf("%q is answered %q, want %q", hop, got, want)
		}
	}
	if got := unread.lookup("tls-policy", "other.example").text; !strings.HasPrefix(got, "TEMP ") {
		t.Errorf("without a ledger the answer is %q", got)
	}
}

// badNetstrings are what a lookup client may send that is none.
var badNetstrings = []struct{ name, text, reason string }{
	{"garbage", "GET / HTTP/1.0\r\n", "not a netstring"},
	{"no length", ":a b,", "not a netstring"},
	{"leading zero", "011:transport *,", "not a netstring"},
	{"no comma", "11:transport *;", "does not fit"},
	{"too long", "8200:transport ", "longer than 8 KiB"},
	{"endless length", strings.Repeat("1", 1000), "longer than 8 KiB"},
	{"no key", "9:transport,", "not a map and a key"},
}

func TestBadLookupClosesItsConnection(t *testing.T) {
	t.Parallel()
	for _, test := range badNetstrings {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := openDesk(t, customers(), nil)
			c := dial(t, d.listen(t, "lookup", d.ServeLookups))
			c.Write([]byte(test.text))
			c.closed()
			waitFor(t, "the log line", func() bool { return strings.Contains(d.log.String(), test.reason) })
		})
	}
}

// FuzzNetstring checks that what is framed is what a netstring says, and that ours can be framed.
func FuzzNetstring(f *testing.F) {
	for _, test := range badNetstrings {
		f.Add([]byte(test.text))
	}
	f.Add([]byte("26:relay-domains acme.example,"))
	f.Add([]byte("0:,"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 {
			return
		}
		n, err := frameNetstring(b, 0)
		switch {
		case err != nil:
			if _, is := errors.AsType[badInput](err); !is {
				t.Fatalf("error %T", err)
			}
		case n > len(b):
			t.Fatalf("%q: framed %d octets of %d", b, n, len(b))
		case n > 0:
			text := netstringText(b[:n])
			if again := fmt.Sprintf("%d:%s,", len(text), text); again != string(b[:n]) {
				t.Fatalf("%q holds %q", b[:n], text)
			}
		case len(b) > netstringLimit:
			t.Fatalf("%d octets and no end", len(b))
		}
		if framed := appendNetstring(nil, string(b)); len(framed) <= netstringLimit {
			if n, err := frameNetstring(framed, 0); err != nil || n != len(framed) || !bytes.Equal(netstringText(framed), b) {
				t.Fatalf("ours of %q is framed as %d octets of %d, %v", b, n, len(framed), err)
			}
		}
	})
}
