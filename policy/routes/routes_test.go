package routes

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"mailbag/meter"
	postfixtest "mailbag/testdata/postfix"
)

var sockets = Sockets{Turns: "/run/mailbag/turn", Deliver: "/run/mailbag/deliver.sock"}

func account(name string, mode meter.Mode, domains ...string) meter.Account {
	a := meter.Account{Name: name, Mode: mode, Domains: domains, Recipients: meter.AnyRecipient, Copies: meter.PerRecipient, CatchAll: true}
	if mode == meter.ETRN {
		a.Host, a.Networks = "mail."+name+".example", []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	}
	return a
}

func backup(name, host string, level meter.TLSLevel) meter.Account {
	a := account(name, meter.Backup, name+".example")
	a.Host, a.TLS = host, level
	return a
}

// unreadable is a host that a ledger takes from nobody, but may have from another version.
const unreadable = "no host"

// directory is that of a ledger with the accounts.
func directory(t testing.TB, accounts ...meter.Account) *meter.Directory {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ledger.db")
	ledger, err := meter.Open(t.Context(), file, meter.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	defer ledger.Close()
	for _, a := range accounts {
		host := a.Host
		if host == unreadable {
			a.Host = ""
		}
		if err := ledger.AddAccount(t.Context(), a, nil); err != nil {
			t.Fatal(err)
		}
		if host == unreadable {
			update := fmt.Sprintf("UPDATE account SET host = '%s' WHERE name = '%s'", host, a.Name)
			if out, err := exec.Command("sqlite3", file, update).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		}
	}
	d, err := ledger.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// A postmap asks tables as Postfix does.
type postmap struct{ dir string }

// tables puts the tables of the accounts in a directory, for Postfix's own program to ask.
func tables(t testing.TB, d *meter.Directory) postmap {
	t.Helper()
	postfixtest.RequirePostfix(t)
	dir := t.TempDir()
	for _, table := range sockets.Tables(d) {
		put(t, dir, table)
	}
	if err := os.WriteFile(filepath.Join(dir, "main.cf"), []byte("compatibility_level = 3.6\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return postmap{dir}
}

// ask returns what a table, with DIR for the directory, has for each of the keys that it has.
func (p postmap) ask(t testing.TB, table string, keys ...string) map[string]string {
	t.Helper()
	cmd := exec.Command("postmap", "-c", p.dir, "-q", "-", strings.ReplaceAll(table, "DIR", p.dir))
	cmd.Stdin = strings.NewReader(strings.Join(keys, "\n") + "\n")
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if complaints.Len() > 0 {
		t.Fatalf("%v: %s", err, &complaints)
	}
	found := map[string]string{}
	for line := range strings.Lines(string(out)) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		found[key] = value
	}
	return found
}

// The tables as they are joined in main.cf.
const (
	ofDomain = "pipemap:{regexp:DIR/domain.regexp, cdb:DIR/routes}"
	ofHeld   = "pipemap:{regexp:DIR/domain.regexp, cdb:DIR/routes, regexp:DIR/held.regexp}"
	ofHop    = "cdb:DIR/tls"
)

func (p postmap) expect(t *testing.T, table string, want map[string]string) {
	t.Helper()
	var keys []string
	for key := range want {
		keys = append(keys, key)
	}
	got := p.ask(t, table, keys...)
	for key, want := range want {
		if got[key] != want {
			t.Errorf("%s has %q for %q, want %q", table, got[key], key, want)
		}
	}
}

func TestWayOfEachDomainAsPostfixReadsIt(t *testing.T) {
	t.Parallel()
	stopped := backup("stopped", "mail.stopped.example", "")
	stopped.Suspended = true
	p := tables(t, directory(t,
		account("acme", meter.ETRN, "acme.example", "xn--bcher-kva.example"), account("fetched", meter.ATRN, "fetched.example"),
		account("box", meter.POP3, "box.example"), account("mx", meter.Backup, "mx.example", "xn--mnchen-3ya.example"),
		backup("spare", "192.0.2.7:2525", ""), backup("six", "[2001:db8::25]:2525", ""), backup("plainsix", "2001:db8::25", ""),
		backup("named", "mail.named.example", ""), backup("unread", unreadable, ""), stopped,
		account("sharp", meter.Backup, "xn--strae-oqa.example"), account("plain", meter.POP3, "strasse.example")))
	p.expect(t, ofDomain, map[string]string{
		"acme.example":                      "mailbag-turn:unix:/run/mailbag/turn/acme.sock",
		"ACME.Example":                      "mailbag-turn:unix:/run/mailbag/turn/acme.sock",
		"user@acme.example":                 "mailbag-turn:unix:/run/mailbag/turn/acme.sock",
		"@acme.example":                     "mailbag-turn:unix:/run/mailbag/turn/acme.sock",
		`"first last"@ACME.example`:         "mailbag-turn:unix:/run/mailbag/turn/acme.sock",
		"user@other.example@acme.example":   "mailbag-turn:unix:/run/mailbag/turn/acme.sock",
		"user@b\u00fccher.example":          "mailbag-turn:unix:/run/mailbag/turn/acme.sock",
		"user@B\u00dcCHER.example":          "mailbag-turn:unix:/run/mailbag/turn/acme.sock",
		"xn--bcher-kva.example":             "mailbag-turn:unix:/run/mailbag/turn/acme.sock",
		"fetched.example":                   "mailbag-turn:unix:/run/mailbag/turn/fetched.sock",
		"box.example":                       "mailbag-pop:unix:/run/mailbag/deliver.sock",
		"spare.example":                     "relay:[192.0.2.7]:2525",
		"six.example":                       "relay:[2001:db8::25]:2525",
		"plainsix.example":                  "relay:[2001:db8::25]",
		"named.example":                     "relay:[mail.named.example]",
		"mx.example":                        "relay:mx.example",
		"user@M\u00dcNCHEN.example":         "relay:xn--mnchen-3ya.example",
		"stopped.example":                   "mailbag-turn:unix:/run/mailbag/turn/stopped.sock",
		"unread.example":                    "retry:4.3.5 The host that takes this domain's mail cannot be read from the provider's settings",
		"xn--strae-oqa.example":             "relay:xn--strae-oqa.example",
		"strasse.example":                   "mailbag-pop:unix:/run/mailbag/deliver.sock",
		"user@STRASSE.example":              "mailbag-pop:unix:/run/mailbag/deliver.sock",
		"user@stra\u00dfe.example":          "mailbag-pop:unix:/run/mailbag/deliver.sock", // as Postfix folds it
		"user@other.example":                "",
		"sub.acme.example":                  "",
		".acme.example":                     "",
		"acme.example..":                    "",
		"acme.example@":                     "",
		"user@acme.example@other.example":   "",
		"[192.0.2.1]":                       "",
		"*":                                 "",
		"user":                              "",
		"user@xn--bcher-kva.acme.example":   "",
		"user@b\u00fccher.example.evil.tld": "",
	})
	if way, found, err := Lookup(filepath.Join(p.dir, Routes), "stra\u00dfe.example"); err != nil || found {
		t.Errorf("for who does not fold its case a name that folding changes has the way %q, %v", way, err)
	}
}

func TestHeldDomainsAreThoseWhoseMailWaitsForATurn(t *testing.T) {
	t.Parallel()
	stopped := account("stopped", meter.POP3, "stopped.example")
	stopped.Suspended = true
	p := tables(t, directory(t, account("acme", meter.ETRN, "acme.example", "xn--bcher-kva.example"), account("fetched", meter.ATRN, "fetched.example"),
		account("box", meter.POP3, "box.example"), backup("spare", "mail.spare.example", ""), stopped))
	p.expect(t, ofHeld, map[string]string{
		"acme.example": "held", "B\u00fccher.example": "held", "fetched.example": "held", "stopped.example": "held",
		"box.example": "", "spare.example": "", "other.example": "", "sub.acme.example": "",
	})
}

func TestTLSPolicyOfANextHopIsThatOfItsStrictestAccount(t *testing.T) {
	t.Parallel()
	held := account("held", meter.ETRN, "held.example")
	held.TLS = meter.TLSVerify
	stopped := backup("stopped", "mail.stopped.example", meter.TLSRequire)
	stopped.Suspended = true
	p := tables(t, directory(t,
		backup("clear", "mail.clear.example", meter.TLSOpportunistic),
		backup("one", "mail.one.example", meter.TLSRequire),
		backup("two", "mail.two.example:2525", meter.TLSVerify),
		backup("six", "[2001:db8::25]:2525", meter.TLSRequire),
		backup("mx", "", meter.TLSRequire),
		backup("mxv", "", meter.TLSVerify),
		backup("a-verifies", "shared.example", meter.TLSVerify),
		backup("b-requires", "shared.example", meter.TLSRequire),
		backup("c-does-not", "shared.example", meter.TLSOpportunistic),
		backup("d-requires", "rising.example", meter.TLSRequire),
		backup("e-verifies", "rising.example", meter.TLSVerify),
		backup("unread", unreadable, meter.TLSVerify),
		held, stopped))
	p.expect(t, ofHop, map[string]string{
		"[mail.clear.example]":    "",
		"[mail.one.example]":      "encrypt",
		"[Mail.ONE.example]":      "encrypt",
		"[mail.one.example]:2525": "",
		"mail.one.example":        "",
		"one.example":             "",
		"[mail.two.example]:2525": "secure match=mail.two.example",
		"[mail.two.example]":      "",
		"[2001:db8::25]:2525":     "encrypt",
		"mx.example":              "encrypt",
		"[mx.example]":            "",
		"sub.mx.example":          "",
		".mx.example":             "",
		"MXV.example":             "verify",
		"[shared.example]":        "secure match=shared.example",
		"[Rising.example]":        "secure match=rising.example",
		"[mail.held.example]":     "",
		"[mail.stopped.example]":  "encrypt",
		"unread.example":          "",
		"other.example":           "",
	})
}

// many are accounts of 100,000 domains.
func many() []meter.Account {
	var all []meter.Account
	for i := range 100 {
		a := account(fmt.Sprintf("account%d", i), meter.ETRN)
		for j := range 1000 {
			a.Domains = append(a.Domains, fmt.Sprintf("domain%d-%d.example", i, j))
		}
		all = append(all, a)
	}
	return all
}

func TestHundredThousandDomainsAreFound(t *testing.T) {
	t.Parallel()
	all := many()
	p := tables(t, directory(t, all...))
	var keys []string
	for _, a := range all {
		for _, domain := range a.Domains {
			keys = append(keys, "user@"+domain, "user@sub."+domain)
		}
	}
	found := p.ask(t, ofDomain, keys...)
	if len(found) != 100_000 {
		t.Errorf("%d are found", len(found))
	}
	for key, way := range found {
		var account, domain int
		if _, err := fmt.Sscanf(key, "user@domain%d-%d.example", &account, &domain); err != nil || way != fmt.Sprintf("mailbag-turn:unix:/run/mailbag/turn/account%d.sock", account) {
			t.Fatalf("%s goes by %s, %v", key, way, err)
		}
	}
}

// BenchmarkTables reports what the tables of 100,000 domains cost.
func BenchmarkTables(b *testing.B) {
	d := directory(b, many()...)
	size := 0
	b.ReportAllocs()
	for b.Loop() {
		size = 0
		for _, table := range sockets.Tables(d) {
			n, err := table.WriteTo(io.Discard)
			if err != nil {
				b.Fatal(err)
			}
			size += int(n)
		}
	}
	b.ReportMetric(float64(size), "octets")
}
