package login

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"mailbag/meter"
)

const (
	right = "correct horse battery"
	wrong = "incorrect horse"
)

// A gate is a checker with all that it stands on. Its ledger has the accounts
//
//	acme     atrn, with CRAM-MD5
//	plainly  atrn, without CRAM-MD5
//	closed   atrn, suspended
//	mute     atrn, without a password
//	boxes    pop3, boxes.example, with a catch-all and the mailbox kim@boxes.example
//
// whose password is always the same.
type gate struct {
	*Checker
	ledger    *meter.Ledger
	directory *meter.Directory // nil: the ledger was never read
	broken    error            // what the ledger says instead of a verifier
	admit     func(Identity, netip.Addr) error
	registry  *prometheus.Registry

	mu     sync.Mutex
	log    bytes.Buffer
	now    time.Time
	waited []time.Duration
}

func (g *gate) Directory() *meter.Directory { return g.directory }

func (g *gate) Verifier(ctx context.Context, login string) (*meter.Verifier, error) {
	if g.broken != nil {
		return nil, g.broken
	}
	return g.ledger.Verifier(ctx, login)
}

func (g *gate) Write(line []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.log.Write(line)
}

// lines returns the log, without the time stamps.
func (g *gate) lines() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.log.String()
}

func (g *gate) clock() time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.now
}

// wait lets the time that an answer has to wait pass at once.
func (g *gate) wait(ctx context.Context, d time.Duration) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waited = append(g.waited, d)
	return ctx.Err()
}

func newGate(t testing.TB, names Names) *gate {
	t.Helper()
	g := &gate{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), registry: prometheus.NewRegistry()}
	var err error
	g.ledger, err = meter.Open(t.Context(), filepath.Join(t.TempDir(), "mailbag.db"), meter.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.ledger.Close() })
	with, without := verifiers()
	for _, a := range []struct {
		account  meter.Account
		verifier *meter.Verifier
	}{
		{meter.Account{Name: "acme", Mode: meter.ATRN, CRAMMD5: true, Domains: []string{"acme.example"}}, with},
		{meter.Account{Name: "plainly", Mode: meter.ATRN}, without},
		{meter.Account{Name: "closed", Mode: meter.ATRN, Suspended: true}, with},
		{meter.Account{Name: "mute", Mode: meter.ATRN}, nil},
		{meter.Account{Name: "boxes", Mode: meter.POP3, CatchAll: true, Domains: []string{"boxes.example"}}, without},
	} {
		a.account.Recipients, a.account.Copies = meter.AnyRecipient, meter.PerRecipient
		if err := g.ledger.AddAccount(t.Context(), a.account, a.verifier); err != nil {
			t.Fatal(err)
		}
	}
	kim := meter.Address{Local: "kim", Domain: "boxes.example"}
	if err := g.ledger.AddMailbox(t.Context(), "boxes", kim, without); err != nil {
		t.Fatal(err)
	}
	if g.directory, err = g.ledger.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	g.Checker, err = New(Config{
		Service: "turnd", Hostname: "mx.example", Accounts: g, Verifiers: g, Names: names,
		Admit: func(id Identity, addr netip.Addr) error {
			if g.admit == nil {
				return nil
			}
			return g.admit(id, addr)
		},
		Guard: &Guard{Now: g.clock, Wait: g.wait},
		Now:   g.clock, Metrics: g.registry,
		Logger: slog.New(slog.NewTextHandler(g, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}})),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if log := g.lines(); strings.Contains(log, right) || strings.Contains(log, wrong) {
			t.Errorf("there is a password in the log:\n%s", log)
		}
	})
	return g
}

// verifiers makes the verifiers of the right password once, because that takes its time.
var verifiers = sync.OnceValues(func() (withCRAM, without *meter.Verifier) {
	withCRAM, err := meter.NewVerifier(right, true)
	if err != nil {
		panic(err)
	}
	plain := *withCRAM
	plain.CRAMMD5 = nil
	return withCRAM, &plain
})

// Clients from three places.
var (
	outside = Peer{Addr: netip.MustParseAddr("192.0.2.1")}
	plainly = Peer{Addr: netip.MustParseAddr("192.0.2.1"), Plain: true}
	local   = Peer{Addr: netip.MustParseAddr("127.0.0.1")}
)

// converse has a client log in, and returns the challenges that it got.
func (g *gate) converse(t testing.TB, p Peer, client sasl.Client) (Identity, []string, error) {
	t.Helper()
	mechanism, response, err := client.Start()
	if err != nil {
		t.Fatal(err)
	}
	x, err := g.Start(t.Context(), p, mechanism)
	if err != nil {
		return Identity{}, nil, err
	}
	var challenges []string
	for {
		challenge, done, err := x.Next(response)
		if err != nil || done {
			return x.Identity(), challenges, err
		}
		challenges = append(challenges, string(challenge))
		if (x.Identity() != Identity{}) {
			t.Fatal("an exchange has an identity before it is done")
		}
		if response, err = client.Next(challenge); err != nil {
			t.Fatalf("the client gives up: %v", err)
		}
		if response == nil {
			response = []byte{}
		}
	}
}

func TestEveryMechanismTellsRightFromWrong(t *testing.T) {
	t.Parallel()
	tls12, tls13 := handshake(t, tls.VersionTLS12), handshake(t, tls.VersionTLS13)
	for _, m := range []struct {
		name   string
		peer   Peer
		client func(user, password string) sasl.Client
	}{
		{"PLAIN", plainly, func(user, password string) sasl.Client { return sasl.NewPlainClient("", user, password) }},
		{"PLAIN for oneself", local, func(user, password string) sasl.Client { return sasl.NewPlainClient(user, user, password) }},
		{"PLAIN without initial response", plainly, func(user, password string) sasl.Client {
			return withoutInitial(sasl.NewPlainClient("", user, password))
		}},
		{"LOGIN", tls13.server, sasl.NewLoginClient},
		{"LOGIN without initial response", tls13.server, func(user, password string) sasl.Client {
			return withoutInitial(sasl.NewLoginClient(user, password))
		}},
		{"CRAM-MD5", outside, newCRAMClient},
		{"SCRAM-SHA-256", outside, newSCRAMClient},
		{"SCRAM-SHA-256 under TLS", tls13.server, newSCRAMClient},
		{"SCRAM-SHA-256 without initial response", outside, func(user, password string) sasl.Client {
			return withoutInitial(newSCRAMClient(user, password))
		}},
		{"SCRAM-SHA-256-PLUS by tls-exporter", tls13.server, tls13.newSCRAMClient},
		{"SCRAM-SHA-256-PLUS by tls-unique", tls12.server, tls12.newSCRAMClient},
	} {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			g := newGate(t, AccountNames)
			id, passed, err := g.converse(t, m.peer, m.client("acme", right))
			if want := (Identity{Login: "acme", Account: g.directory.Account("acme")}); err != nil || id != want {
				t.Fatalf("the right password: %v, %v; want %v", id, err, want)
			}
			for _, c := range []struct{ user, password, reason string }{
				{"acme", wrong, "wrong-password"},
				{"plainly", wrong, "wrong-password"},
				{"mute", right, "unknown-login"},
				{"nobody", right, "unknown-login"},
				{"kim@boxes.example", right, "unknown-login"},      // not a log-in of this service
				{strings.Repeat("a", 600), right, "unknown-login"}, // longer than any
			} {
				if m.name == "CRAM-MD5" && c.user == "plainly" {
					c.password, c.reason = right, "no-cram-md5"
				}
				before := len(g.lines())
				id, challenges, err := g.converse(t, m.peer, m.client(c.user, c.password))
				if !errors.Is(err, ErrFailed) || err.Error() != ErrFailed.Error() || id != (Identity{}) {
					t.Errorf("%s with %s: %v, %v; want %v", c.user, c.password, id, err, ErrFailed)
				}
				// SCRAM proves to who is let in that the server knows the password.
				if want := len(passed) - strings.Count(m.name, "SCRAM"); len(challenges) != want {
					t.Errorf("%s with %s got %d challenges, want %d", c.user, c.password, len(challenges), want)
				}
				if line := g.lines()[before:]; !strings.Contains(line, "reason="+c.reason+"\n") {
					t.Errorf("the log says %q; want the reason %s", line, c.reason)
				}
			}
		})
	}
}

func TestMechanismsAreThoseThatTheClientMayUse(t *testing.T) {
	t.Parallel()
	g := newGate(t, AccountNames)
	encrypted := handshake(t, tls.VersionTLS13).server
	for _, c := range []struct {
		what string
		peer Peer
		want string
	}{
		{"in the clear", outside, "SCRAM-SHA-256 CRAM-MD5"},
		{"mapped loopback", Peer{Addr: netip.MustParseAddr("::ffff:127.0.0.1")}, "SCRAM-SHA-256 CRAM-MD5 PLAIN LOGIN"},
		{"loopback", Peer{Addr: netip.MustParseAddr("::1")}, "SCRAM-SHA-256 CRAM-MD5 PLAIN LOGIN"},
		{"as configured", plainly, "SCRAM-SHA-256 CRAM-MD5 PLAIN LOGIN"},
		{"TLS", encrypted, "SCRAM-SHA-256-PLUS SCRAM-SHA-256 CRAM-MD5 PLAIN LOGIN"},
	} {
		if got := strings.Join(g.Mechanisms(c.peer), " "); got != c.want {
			t.Errorf("%s: %s; want %s", c.what, got, c.want)
		}
		for _, m := range mechanisms {
			var want error
			switch {
			case slices.Contains(strings.Fields(c.want), m.name):
			case m.plain:
				want = ErrEncryptionRequired
			default:
				want = ErrUnknownMechanism
			}
			if _, err := g.Start(t.Context(), c.peer, strings.ToLower(m.name)); err != want {
				t.Errorf("%s: Start(%s) = %v, want %v", c.what, m.name, err, want)
			}
		}
	}
	if _, err := g.Start(t.Context(), encrypted, "GSSAPI"); err != ErrUnknownMechanism {
		t.Errorf("Start(GSSAPI) = %v, want %v", err, ErrUnknownMechanism)
	}
}

func TestCRAMIsOfferedOnlyWhereAnAccountHasIt(t *testing.T) {
	t.Parallel()
	g := newGate(t, AccountNames)
	for _, name := range []string{"acme", "closed"} {
		if _, _, err := g.ledger.EditAccount(t.Context(), name, "account set", func(a *meter.Account) error { a.CRAMMD5 = false; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	g.directory, _ = g.ledger.Load(t.Context())
	if got := g.Mechanisms(outside); !slices.Equal(got, []string{"SCRAM-SHA-256"}) {
		t.Errorf("offered are %s", got)
	}
	if _, err := g.Start(t.Context(), outside, "CRAM-MD5"); err != ErrUnknownMechanism {
		t.Errorf("Start(CRAM-MD5) = %v, want %v", err, ErrUnknownMechanism)
	}
}

func TestUserNameAndPasswordAreChecked(t *testing.T) {
	t.Parallel()
	g := newGate(t, MailboxNames)
	if id, err := g.Password(t.Context(), local, "kim%boxes.example", right); err != nil || id.Mailbox != "kim@boxes.example" || id.Account.Name != "boxes" {
		t.Errorf("Password = %v, %v", id, err)
	}
	for _, password := range []string{wrong, "", "\xff\x00", strings.Repeat("x", 5000)} {
		if id, err := g.Password(t.Context(), local, "kim@boxes.example", password); err != ErrFailed || id != (Identity{}) {
			t.Errorf("Password(%.9q) = %v, %v; want %v", password, id, err, ErrFailed)
		}
	}
	if _, err := g.Password(t.Context(), outside, "kim@boxes.example", right); err != ErrEncryptionRequired {
		t.Errorf("a password in the clear: %v, want %v", err, ErrEncryptionRequired)
	}
}

func TestOnlyWhoKnowsThePasswordIsToldOfTheAccount(t *testing.T) {
	t.Parallel()
	g := newGate(t, AccountNames)
	reason := errors.New("192.0.2.1 is in none of its networks")
	g.admit = func(id Identity, addr netip.Addr) error {
		if id.Account == nil || id.Account.Suspended || addr != outside.Addr {
			t.Errorf("asked about %v from %s", id, addr)
		}
		return reason
	}
	for user, want := range map[string]error{"closed": ErrSuspended, "acme": ErrNotAllowed} {
		for _, client := range []func(user, password string) sasl.Client{newSCRAMClient, newCRAMClient, sasl.NewLoginClient} {
			if id, _, err := g.converse(t, plainly, client(user, right)); !errors.Is(err, want) || errors.Is(err, ErrFailed) || id != (Identity{}) {
				t.Errorf("%s: %v, %v; want %v", user, id, err, want)
			}
			if _, _, err := g.converse(t, plainly, client(user, wrong)); err != ErrFailed {
				t.Errorf("%s with a wrong password: %v, want %v", user, err, ErrFailed)
			}
		}
	}
	if _, _, err := g.converse(t, plainly, newSCRAMClient("acme", right)); !errors.Is(err, reason) {
		t.Errorf("the error %v does not say why", err)
	}
	for _, want := range []string{
		`level=WARN msg="log-in refused" service=turnd client=192.0.2.1 user=closed mechanism=LOGIN reason=suspended error=`,
		`reason=not-allowed error="the account may not log in here: 192.0.2.1 is in none of its networks"`,
	} {
		if !strings.Contains(g.lines(), want) {
			t.Errorf("the log lacks %s:\n%s", want, g.lines())
		}
	}
}

func TestNobodyIsCheckedWithoutTheLedger(t *testing.T) {
	t.Parallel()
	g := newGate(t, AccountNames)
	clients := []sasl.Client{newSCRAMClient("acme", right), newCRAMClient("acme", right), sasl.NewLoginClient("acme", right)}
	g.broken = meter.ErrUnavailable
	for _, client := range clients {
		if _, _, err := g.converse(t, plainly, client); !errors.Is(err, ErrUnavailable) || !errors.Is(err, meter.ErrUnavailable) {
			t.Errorf("without verifiers: %v, want %v", err, ErrUnavailable)
		}
	}
	g.broken, g.directory = nil, nil
	if _, err := g.Password(t.Context(), plainly, "acme", right); !errors.Is(err, ErrUnavailable) {
		t.Errorf("without a directory: %v, want %v", err, ErrUnavailable)
	}
	if got := g.Mechanisms(outside); !slices.Equal(got, []string{"SCRAM-SHA-256"}) {
		t.Errorf("without a directory %s are offered", got)
	}
}

func TestPasswordDerivationsAreBounded(t *testing.T) {
	t.Parallel()
	g := newGate(t, AccountNames)
	for range cap(g.derive) {
		g.derive <- struct{}{} // others are at it
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := g.Password(ctx, local, "acme", right); !errors.Is(err, ErrUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("Password = %v; want to wait for the others until the context is done", err)
	}
	for range cap(g.derive) {
		<-g.derive
	}
	if _, err := g.Password(t.Context(), local, "acme", right); err != nil {
		t.Error(err)
	}
}

func TestFailureIsOneLineThatAClientCannotForge(t *testing.T) {
	t.Parallel()
	g := newGate(t, AccountNames)
	for _, c := range []struct {
		addr, user, want string
	}{
		{"192.0.2.1", "acme", `client=192.0.2.1 user=acme mechanism=USER reason=wrong-password`},
		{"::ffff:192.0.2.1", "nobody", `client=192.0.2.1 user=nobody mechanism=USER reason=unknown-login`},
		{"2001:db8::1", "two words", `client=2001:db8::1 user="two words" mechanism=USER reason=unknown-login`},
		{"192.0.2.2", "a\nlevel=WARN msg=\"log-in failed\" service=turnd client=198.51.100.1",
			`client=192.0.2.2 user="a\nlevel=WARN msg=\"log-in failed\" service=turnd client=198.51.100.1" mechanism=USER reason=unknown-login`},
		{"192.0.2.2", "x client=198.51.100.1", `client=192.0.2.2 user="x client=198.51.100.1" mechanism=USER reason=unknown-login`},
		{"192.0.2.2", "\x1b[2J\u202e\xff", `client=192.0.2.2 user="\x1b[2J\u202e\xff" mechanism=USER reason=unknown-login`},
		{"192.0.2.3", strings.Repeat("ä", 2000), `client=192.0.2.3 user=` + strings.Repeat("ä", 64) + ` mechanism=USER reason=unknown-login`},
	} {
		before := len(g.lines())
		peer := Peer{Addr: netip.MustParseAddr(c.addr), Plain: true}
		if _, err := g.Password(t.Context(), peer, c.user, wrong); err != ErrFailed {
			t.Fatal(err)
		}
		want := `level=WARN msg="log-in failed" service=turnd ` + c.want + "\n"
		if diff := cmp.Diff(want, g.lines()[before:]); diff != "" {
			t.Errorf("the line differs (-want +got):\n%s", diff)
		}
	}
}

func TestLogInsAreCounted(t *testing.T) {
	t.Parallel()
	g := newGate(t, AccountNames)
	g.converse(t, outside, newSCRAMClient("acme", right))
	g.converse(t, outside, newSCRAMClient("acme", wrong))
	g.converse(t, outside, newCRAMClient("closed", right))
	g.broken = meter.ErrUnavailable
	g.Password(t.Context(), local, "acme", right)
	want := `
# HELP mailbag_logins_total Log-ins by mechanism and result.
# TYPE mailbag_logins_total counter
mailbag_logins_total{mechanism="CRAM-MD5",result="refused"} 1
mailbag_logins_total{mechanism="SCRAM-SHA-256",result="failed"} 1
mailbag_logins_total{mechanism="SCRAM-SHA-256",result="ok"} 1
mailbag_logins_total{mechanism="USER",result="unavailable"} 1
`
	if err := testutil.GatherAndCompare(g.registry, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
	if _, err := New(Config{Metrics: g.registry}); err == nil || !strings.Contains(err.Error(), "package login") {
		t.Errorf("metrics registered twice: %v", err)
	}
}

func TestManyLogInsAtOnce(t *testing.T) {
	t.Parallel()
	g := newGate(t, AccountNames)
	var all sync.WaitGroup
	for i := range 32 {
		all.Go(func() {
			peer := Peer{Addr: netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", i)), Plain: true}
			password, want := right, error(nil)
			if i%2 == 0 {
				password, want = wrong, ErrFailed
			}
			if _, err := g.Password(t.Context(), peer, "acme", password); err != want {
				t.Errorf("Password(%s) = %v, want %v", password, err, want)
			}
		})
	}
	all.Wait()
}
