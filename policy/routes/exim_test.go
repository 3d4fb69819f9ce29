package routes

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"mailbag/meter"
	"mailbag/testdata/peer"
)

func TestWayOfEachDomainAsEximReadsIt(t *testing.T) {
	t.Parallel()
	peer.RequireExim(t)
	stopped := backup("stopped", "mail.stopped.example", "")
	stopped.Suspended = true
	verified := backup("verified", "mail.verified.example:2525", meter.TLSVerify)
	verified.Recipients = meter.VerifiedRecipient
	checked := account("checked", meter.Backup, "checked.example")
	checked.Recipients = meter.VerifiedRecipient
	d := directory(t,
		account("acme", meter.ETRN, "acme.example", "xn--bcher-kva.example"), account("fetched", meter.ATRN, "fetched.example"),
		account("box", meter.POP3, "box.example"), account("mx", meter.Backup, "mx.example", "xn--mnchen-3ya.example"), checked,
		backup("four", "192.0.2.7:2525", meter.TLSRequire), backup("six", "[2001:db8::25]:2525", ""), backup("plainsix", "2001:db8::25", ""),
		backup("named", "mail.named.example", meter.TLSOpportunistic), verified, backup("unread", unreadable, ""), stopped)
	all := Exim(d)
	if len(all) != 1 {
		t.Fatalf("%d tables", len(all))
	}
	file := put(t, t.TempDir(), all[0])
	want := map[string]string{
		"acme.example":           "turn|mailbag|acme|no|||",
		"xn--bcher-kva.example":  "turn|mailbag|acme|no|||",
		"b\u00fccher.example":    "turn|mailbag|acme|no|||",
		"fetched.example":        "turn|mailbag|fetched|no|||",
		"stopped.example":        "turn|mailbag|stopped|no|||",
		"box.example":            "pop||box|no|||",
		"mx.example":             "mx||mx|no|opportunistic||",
		"m\u00fcnchen.example":   "mx||mx|no|opportunistic||",
		"checked.example":        "mx||checked|yes|opportunistic||",
		"four.example":           "relay||four|no|require|192.0.2.7|2525",
		"six.example":            "relay||six|no|opportunistic|2001:db8::25|2525",
		"plainsix.example":       "relay||plainsix|no|opportunistic|2001:db8::25|25",
		"named.example":          "relay||named|no|opportunistic|mail.named.example|25",
		"verified.example":       "relay||verified|yes|verify|mail.verified.example|2525",
		"unread.example":         "none||unread|no|||",
		"sub.acme.example":       "||||||",
		"other.example":          "||||||",
		"acme.example@evil.test": "||||||",
	}
	var fields []string
	for _, field := range []string{"transport", "queue", "account", "verify", "tls", "host", "port"} {
		fields = append(fields, fmt.Sprintf("${extract{%s}{${lookup{$acl_arg1}cdb{%s}}}}", field, file))
	}
	configuration := "begin acl\nway:\n accept message = " + strings.Join(fields, "|") + "\n"
	for domain, want := range want {
		if got := peer.EximExpands(t, configuration, "${acl{way}{"+domain+"}}"); got != want {
			t.Errorf("for %s Exim reads %s, want %s", domain, got, want)
		}
	}
}

// plainFields are ways in which nothing means anything to Exim's expansion or to its lists.
var plainFields = regexp.MustCompile(`^transport=[a-z]+ queue=(""|[a-z]+) account=[a-z0-9-]+ verify=(no|yes)( tls=[a-z]+( host=[a-z0-9.:-]+ port=[0-9]+)?)?$`)

func FuzzEximWayIsOfPlainWords(f *testing.F) {
	for _, host := range []string{"", "mail.acme.example:2525", "[2001:db8::1%eth0]:25", "2001:db8::1", "${run{/bin/id}}", `a"b`, "a b", "a:b:c", "m\u00fcnchen.example", "a_b.example", "_x"} {
		f.Add(host, string(meter.TLSVerify))
	}
	f.Fuzz(func(t *testing.T, host, tls string) {
		a := &meter.Account{Name: "acme", Mode: meter.Backup, Host: host, TLS: meter.TLSLevel(tls), Recipients: meter.VerifiedRecipient}
		if way := eximWay(a, "acme.example"); !plainFields.MatchString(way) {
			t.Errorf("the host %q with tls %q makes %q", host, tls, way)
		}
	})
}
