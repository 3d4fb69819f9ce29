package login

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"mailbag/meter"
)

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
		{"on this machine", local, "SCRAM-SHA-256 CRAM-MD5 PLAIN LOGIN"},
		{"with a loopback address that a proxy gives", Peer{Addr: local.Addr}, "SCRAM-SHA-256 CRAM-MD5"},
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
	g.cfg.Modes = []meter.Mode{meter.POP3} // whose accounts do not
	if got := g.Mechanisms(outside); !slices.Equal(got, []string{"SCRAM-SHA-256"}) {
		t.Errorf("to pop3 accounts offered are %s", got)
	}
	g.cfg.Modes = []meter.Mode{meter.ATRN, meter.POP3}
	if got := g.Mechanisms(outside); !slices.Contains(got, "CRAM-MD5") {
		t.Errorf("to atrn accounts offered are %s", got)
	}
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
	counted := map[[2]string]int{{"CRAM-MD5", "refused"}: 1, {"SCRAM-SHA-256", "failed"}: 1, {"SCRAM-SHA-256", "ok"}: 1, {"USER", "unavailable"}: 1}
	want := "# HELP mailbag_logins_total Log-ins by mechanism and result.\n# TYPE mailbag_logins_total counter\n"
	for _, mechanism := range []string{"CRAM-MD5", "LOGIN", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS", "USER"} {
		for _, result := range []string{"failed", "ok", "refused", "throttled", "unavailable"} {
			want += fmt.Sprintf("mailbag_logins_total{mechanism=%q,result=%q} %d\n", mechanism, result, counted[[2]string{mechanism, result}])
		}
	}
	if err := testutil.GatherAndCompare(g.registry, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
	if _, err := New(Config{Metrics: g.registry}); err == nil || !strings.Contains(err.Error(), "package login") {
		t.Errorf("metrics registered twice: %v", err)
	}
}

func TestClientThatFailsTooOftenIsThrottled(t *testing.T) {
	t.Parallel()
	g := newGate(t, AccountNames)
	if _, err := g.Password(t.Context(), plainly, "plainly", right); err != nil {
		t.Fatal(err)
	}
	var err error
	for range maxFailures {
		if _, _, err = g.converse(t, plainly, newCRAMClient("acme", wrong)); err != ErrFailed {
			t.Fatal(err)
		}
	}
	if want := []time.Duration{time.Second, 2 * time.Second, 4 * time.Second}; !slices.Equal(g.waited[:3], want) {
		t.Errorf("the answers waited %v, at first not %v", g.waited, want)
	}
	before := g.lines()
	for _, client := range []sasl.Client{
		newCRAMClient("acme", right), newSCRAMClient("acme", right), sasl.NewLoginClient("nobody", wrong), sasl.NewPlainClient("", "acme", right),
	} {
		if id, _, err := g.converse(t, plainly, client); err != ErrThrottled || id != (Identity{}) {
			t.Errorf("%v, %v; want %v", id, err, ErrThrottled)
		}
	}
	if g.lines() != before {
		t.Error("who is throttled fills the log")
	}
	if _, _, err := g.start(t, plainly, "PLAIN").Next([]byte("nonsense")); err != ErrThrottled {
		t.Errorf("nonsense: %v, want %v", err, ErrThrottled)
	}
	if got := testutil.ToFloat64(g.metrics.logins.WithLabelValues("PLAIN", "throttled")); got != 2 {
		t.Errorf("%v throttled log-ins are counted, want 2", got)
	}
	if id, err := g.Password(t.Context(), plainly, "plainly", right); err != nil || id.Login != "plainly" {
		t.Errorf("who logged in from there before: %v, %v", id, err)
	}
}

func TestWaitingEndsWithTheConnection(t *testing.T) {
	t.Parallel()
	g := newGate(t, AccountNames)
	for range 4 {
		g.converse(t, outside, newCRAMClient("acme", wrong))
	}
	ctx, cancel := context.WithCancel(t.Context())
	g.cfg.Guard.Wait = func(ctx context.Context, d time.Duration) error { cancel(); return ctx.Err() }
	if id, err := g.Password(ctx, plainly, "acme", right); !errors.Is(err, ErrUnavailable) || !errors.Is(err, context.Canceled) || id != (Identity{}) {
		t.Errorf("%v, %v; want %v", id, err, context.Canceled)
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
