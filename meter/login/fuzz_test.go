package login

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

// newFuzzGate is a gate that never makes a client wait and never throttles it. One is enough for all
// inputs of a target.
func newFuzzGate(f *testing.F) *gate {
	g := newGate(f, MailboxNames)
	g.cfg.Guard.Wait = func(context.Context, time.Duration) error { return nil }
	// What was failed is forgotten before the next.
	now := g.now
	g.cfg.Guard.Now = func() time.Time { now = now.Add(time.Hour); return now }
	return g
}

// check has an exchange take the responses, and fails where somebody is let in or the end is none of
// the documented ones. prepare may change a response when the challenge before it is known.
func (g *gate) check(t *testing.T, mechanism string, prepare func(challenge, response string) string, responses ...string) {
	t.Helper()
	x := g.start(t, local, mechanism)
	var challenge []byte
	for _, response := range responses {
		next, done, err := x.Next([]byte(prepare(string(challenge), response)))
		switch {
		case done && err == nil:
			t.Fatalf("%q let %v in", responses, x.Identity())
		case err != nil && !errors.Is(err, ErrFailed) || err == nil && next == nil:
			t.Fatalf("%q ended with %q, %v", responses, next, err)
		case err != nil:
			return
		}
		challenge = next
	}
}

func asItIs(_, response string) string { return response }

func FuzzPlain(f *testing.F) {
	for _, seed := range []string{"\x00acme\x00guess", "acme\x00acme\x00guess", "", "\x00\x00", "\x00a\x00\xff", "\x00acme\x00a\x00b"} {
		f.Add(seed)
	}
	g := newFuzzGate(f)
	f.Fuzz(func(t *testing.T, response string) {
		if !strings.Contains(response, right) {
			g.check(t, "PLAIN", asItIs, response)
		}
	})
}

func FuzzLogin(f *testing.F) {
	f.Add("acme", "guess")
	f.Add("", "")
	f.Add("kim%boxes.example", "\x00")
	f.Add("@boxes.example", "\u00ad")
	g := newFuzzGate(f)
	f.Fuzz(func(t *testing.T, name, password string) {
		if password != right {
			g.check(t, "LOGIN", asItIs, name, password)
		}
	})
}

func FuzzCRAM(f *testing.F) {
	f.Add("acme 00000000000000000000000000000000")
	f.Add("two words 0123456789abcdefABCDEF0123456789")
	f.Add("acme")
	f.Add(" ")
	g := newFuzzGate(f)
	f.Fuzz(func(t *testing.T, response string) {
		x := g.start(t, local, "CRAM-MD5")
		if _, _, err := x.Next(nil); err != nil {
			t.Fatal(err)
		}
		if _, done, err := x.Next([]byte(response)); !done || !errors.Is(err, ErrFailed) {
			t.Fatalf("%q: %v, %v", response, done, err)
		}
		if name, digest, ok := parseCRAM([]byte(response)); ok && (name == "" || len(digest) != 16 || !strings.HasPrefix(response, name+" ")) {
			t.Fatalf("%q is the name %q and the digest %x", response, name, digest)
		}
	})
}

// In the second message NONCE stands for the nonce that the server gave.
func FuzzSCRAM(f *testing.F) {
	proof := ",p=" + strings.Repeat("A", 43) + "="
	f.Add("n,,n=acme,r=nonce", "c=biws,r=NONCE"+proof)
	f.Add("y,,n=acme,r=nonce", "c=eSws,r=NONCE"+proof)
	f.Add("n,a=acme,n=acme,r=nonce,x=y", "c=bixhPWFjbWUs,r=NONCE,x=y"+proof)
	f.Add("p=tls-exporter,,n=acme,r=nonce", "")
	f.Add("n,,m=x,n=acme,r=nonce", "")
	f.Add("n,,n=a=2Cb=3D,r=", "c=,r=,p=")
	f.Add("n,,n=,r=,", ",,")
	g := newFuzzGate(f)
	f.Fuzz(func(t *testing.T, first, final string) {
		g.check(t, "SCRAM-SHA-256", func(challenge, response string) string {
			nonce, _, _ := strings.Cut(strings.TrimPrefix(challenge, "r="), ",")
			return strings.ReplaceAll(response, "NONCE", nonce)
		}, first, final)
	})
}
