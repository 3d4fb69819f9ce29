package login

import (
	"bytes"
	"context"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/prometheus/client_golang/prometheus"

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
	withCRAM, err := NewVerifier(right, true)
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
	local   = Peer{Addr: netip.MustParseAddr("127.0.0.1"), Local: true}
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
