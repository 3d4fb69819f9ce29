package login

import (
	"errors"
	"strings"
	"testing"
)

func (g *gate) start(t testing.TB, p Peer, mechanism string) *Exchange {
	t.Helper()
	x, err := g.Start(t.Context(), p, mechanism)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func TestExchangeThatBreaksTheRulesFails(t *testing.T) {
	t.Parallel()
	g := newGate(t, AccountNames)
	const none = "<none>" // no initial response
	cases := []struct {
		what, mechanism string
		responses       []string
		want            error // ErrMalformed, or ErrFailed where it only looks like a wrong password
	}{
		{"oversize", "PLAIN", []string{"\x00acme\x00" + strings.Repeat("x", 5000)}, ErrMalformed},
		{"not UTF-8", "PLAIN", []string{"\x00acme\x00\xff"}, ErrMalformed},
		{"empty", "PLAIN", []string{""}, ErrMalformed},
		{"empty after a challenge", "PLAIN", []string{none, ""}, ErrMalformed},
		{"too few parts", "PLAIN", []string{"\x00acme"}, ErrMalformed},
		{"too many parts", "PLAIN", []string{"\x00acme\x00x\x00"}, ErrMalformed},
		{"no name", "PLAIN", []string{"\x00\x00x"}, ErrMalformed},
		{"no password", "PLAIN", []string{"\x00acme\x00"}, ErrMalformed},

		{"empty name", "LOGIN", []string{"", "x"}, ErrFailed},
		{"empty password", "LOGIN", []string{none, "acme", ""}, ErrFailed},
		{"oversize name", "LOGIN", []string{strings.Repeat("x", 5000)}, ErrMalformed},
		{"password not UTF-8", "LOGIN", []string{"acme", "\xff"}, ErrMalformed},

		{"initial response", "CRAM-MD5", []string{"acme 00000000000000000000000000000000"}, ErrMalformed},
		{"empty initial response", "CRAM-MD5", []string{""}, ErrMalformed},
		{"empty", "CRAM-MD5", []string{none, ""}, ErrMalformed},
		{"no digest", "CRAM-MD5", []string{none, "acme"}, ErrMalformed},
		{"short digest", "CRAM-MD5", []string{none, "acme 00"}, ErrMalformed},
		{"no hexadecimal digits", "CRAM-MD5", []string{none, "acme " + strings.Repeat("x", 32)}, ErrMalformed},
		{"no name", "CRAM-MD5", []string{none, " 00000000000000000000000000000000"}, ErrMalformed},
		{"wrong digest", "CRAM-MD5", []string{none, "acme 00000000000000000000000000000000"}, ErrFailed},

		{"empty initial response", "SCRAM-SHA-256", []string{""}, ErrMalformed},
		{"empty", "SCRAM-SHA-256", []string{none, ""}, ErrMalformed},
		{"no header", "SCRAM-SHA-256", []string{"n=acme,r=nonce"}, ErrMalformed},
		{"extension that is mandatory", "SCRAM-SHA-256", []string{"n,,m=x,n=acme,r=nonce"}, ErrMalformed},
		{"name with a bad escape", "SCRAM-SHA-256", []string{"n,,n=acme=20,r=nonce"}, ErrMalformed},
		{"no nonce", "SCRAM-SHA-256", []string{"n,,n=acme"}, ErrMalformed},
		{"empty proof message", "SCRAM-SHA-256", []string{"n,,n=acme,r=nonce", ""}, ErrMalformed},
		{"another's nonce", "SCRAM-SHA-256", []string{"n,,n=acme,r=nonce", "c=biws,r=nonce,p=" + strings.Repeat("A", 43) + "="}, ErrFailed},
		{"another header", "SCRAM-SHA-256", []string{"n,,n=acme,r=nonce", "c=eSws,r=nonce,p=" + strings.Repeat("A", 43) + "="}, ErrFailed},
	}
	for _, c := range cases {
		t.Run(c.mechanism+" "+c.what, func(t *testing.T) {
			x := g.start(t, local, c.mechanism)
			for i, text := range c.responses {
				response := []byte(text)
				if text == none {
					response = nil
				}
				challenge, done, err := x.Next(response)
				if i < len(c.responses)-1 {
					if done || err != nil {
						t.Fatalf("step %d: %q, %v, %v", i, challenge, done, err)
					}
					continue
				}
				if !done || challenge != nil || !errors.Is(err, c.want) || errors.Is(err, ErrMalformed) != (c.want == ErrMalformed) {
					t.Errorf("the last step: %q, %v, %v; want %v", challenge, done, err, c.want)
				}
			}
			if _, done, err := x.Next([]byte("more")); !done || !errors.Is(err, ErrFailed) {
				t.Errorf("after the end: %v, %v", done, err)
			}
			if (x.Identity() != Identity{}) {
				t.Errorf("%v is logged in", x.Identity())
			}
		})
	}
	if got, want := strings.Count(g.lines(), `msg="log-in failed"`), len(cases); got != want {
		t.Errorf("the log has %d lines, want %d:\n%s", got, want, g.lines())
	}
}

func TestExchangeIsOverAfterSuccess(t *testing.T) {
	t.Parallel()
	g := newGate(t, AccountNames)
	x := g.start(t, local, "PLAIN")
	if _, done, err := x.Next([]byte("\x00acme\x00" + right)); !done || err != nil {
		t.Fatal(done, err)
	}
	if _, _, err := x.Next([]byte("\x00acme\x00" + right)); err == nil {
		t.Error("the exchange goes on after its end")
	}
	if x.Identity().Login != "acme" {
		t.Errorf("%v is logged in", x.Identity())
	}
}

func TestChallengesOfCRAMAreNeverTheSame(t *testing.T) {
	t.Parallel()
	g := newGate(t, AccountNames)
	seen := map[string]bool{}
	for range 100 {
		challenge, _, err := g.start(t, outside, "CRAM-MD5").Next(nil)
		if text := string(challenge); err != nil || !strings.HasPrefix(text, "<") || !strings.HasSuffix(text, "@mx.example>") || seen[text] {
			t.Fatalf("the challenge is %s, %v", text, err)
		}
		seen[string(challenge)] = true
	}
}
