package meter

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestVerifierMatchesItsPasswordOnly(t *testing.T) {
	t.Parallel()
	v, err := NewVerifier("pässword", false)
	if err != nil {
		t.Fatal(err)
	}
	for password, want := range map[string]bool{
		"pässword":       true,
		"pa\u0308ssword": true, // decomposed: SASLprep composes it
		"password":       false,
		"":               false,
		"pässword ":      false,
		"\x00":           false,
	} {
		if got := v.Matches(password); got != want {
			t.Errorf("Matches(%q) = %v, want %v", password, got, want)
		}
	}
	if (*Verifier)(nil).Matches("pässword") {
		t.Error("no verifier matched")
	}
	if v.CRAMMD5 != nil {
		t.Error("CRAM-MD5's state is kept unasked")
	}
}

// The exchange of RFC 7677, section 3: user "user", password "pencil".
func TestSCRAMKeysProveRFC7677sExchange(t *testing.T) {
	t.Parallel()
	salt, _ := base64.StdEncoding.DecodeString("W22ZaJ0SNY7soEsUEjb6gQ==")
	_, server, err := scramKeys("pencil", salt, 4096)
	if err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(sha256.New, server)
	mac.Write([]byte("n=user,r=rOprNGfwEbeRWgbNEkqO," +
		"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096," +
		"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"))
	if got := base64.StdEncoding.EncodeToString(mac.Sum(nil)); got != "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=" {
		t.Errorf("the server's signature is %s", got)
	}
}

// The example of RFC 2195, section 3, computed from the kept state.
func TestCRAMStateAnswersRFC2195sChallenge(t *testing.T) {
	t.Parallel()
	for _, password := range []string{"tanstaaftanstaaf", strings.Repeat("long ", 20)} {
		v, err := NewVerifier(password, true)
		if err != nil {
			t.Fatal(err)
		}
		challenge := []byte("<1896.697170952@postoffice.reston.mci.net>")
		mac := hmac.New(md5.New, []byte(password))
		mac.Write(challenge)
		digest := mac.Sum(nil)
		if !v.AnswersCRAM(challenge, digest) {
			t.Errorf("the digest %x of %q is refused", digest, password)
		}
		if v.AnswersCRAM([]byte("<another@example.com>"), digest) || v.AnswersCRAM(challenge, nil) || v.AnswersCRAM(challenge, digest[:8]) {
			t.Errorf("with the password %q a wrong digest is taken", password)
		}
		if v.CRAMMD5 = nil; v.AnswersCRAM(challenge, digest) {
			t.Error("a digest is taken without anything to check it by")
		}
	}
}

func TestDecoyIsTheSameInEveryProcessAndMatchesNothing(t *testing.T) {
	t.Parallel()
	l := newTestLedger(t, Options{})
	load := func(l *Ledger) *Directory {
		t.Helper()
		d, err := l.Load(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	first := load(l).Decoy("nobody")
	other, err := Open(t.Context(), l.path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if diff := cmp.Diff(first, load(other).Decoy("nobody")); diff != "" {
		t.Errorf("another process has another decoy:\n%s", diff)
	}
	real, err := NewVerifier("secret", true)
	if err != nil {
		t.Fatal(err)
	}
	if len(first.Salt) != len(real.Salt) || first.Iterations != real.Iterations || len(first.CRAMMD5) != len(real.CRAMMD5) {
		t.Errorf("a decoy can be told from a verifier: %+v", first)
	}
	if bytes.Equal(first.Salt, load(l).Decoy("somebody").Salt) {
		t.Error("two log-ins have the same salt")
	}
	if bytes.Equal(first.Salt, load(newTestLedger(t, Options{})).Decoy("nobody").Salt) {
		t.Error("two ledgers have the same salt")
	}
	for _, password := range []string{"", "secret"} {
		if first.Matches(password) {
			t.Errorf("the decoy matches %q", password)
		}
	}
}

func TestBadPasswordsAreRefusedWithoutQuotingThem(t *testing.T) {
	t.Parallel()
	for _, password := range []string{"", "se\x00cret", "secret\xff", strings.Repeat("secret", 30), "\u00ad"} {
		_, err := NewVerifier(password, false)
		if !errors.Is(err, ErrInvalid) || (password != "" && strings.Contains(err.Error(), "secret")) {
			t.Errorf("NewVerifier(%q) = %v", password, err)
		}
	}
}

func TestPasswordIsKeptByLogin(t *testing.T) {
	t.Parallel()
	l := newTestLedger(t, Options{})
	first, _ := NewVerifier("first", true)
	second, _ := NewVerifier("second", false)
	if err := l.AddAccount(t.Context(), withDefaults(Account{Name: "acme", Mode: ATRN}), first); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		set      *Verifier
		password string
		cram     bool
	}{{nil, "first", true}, {second, "second", false}} {
		if step.set != nil {
			if err := l.SetPassword(t.Context(), "acme", "acme", step.set); err != nil {
				t.Fatal(err)
			}
		}
		v, err := l.Verifier(t.Context(), "acme")
		if err != nil || !v.Matches(step.password) || (v.CRAMMD5 != nil) != step.cram {
			t.Errorf("the verifier does not match %q, or its CRAM-MD5 state is wrong: %v", step.password, err)
		}
	}
	third, _ := NewVerifier("third", true)
	if err := l.SetPassword(t.Context(), "acme", "acme", third); err != nil {
		t.Fatal(err)
	}
	for _, cram := range []bool{true, false} {
		if _, _, err := l.EditAccount(t.Context(), "acme", "account set", func(a *Account) error { a.CRAMMD5 = cram; return nil }); err != nil {
			t.Fatal(err)
		}
		if v, err := l.Verifier(t.Context(), "acme"); err != nil || (v.CRAMMD5 != nil) != cram || !v.Matches("third") {
			t.Errorf("with cram_md5 set to %v the state is %x, %v", cram, v.CRAMMD5, err)
		}
	}
	if v, err := l.Verifier(t.Context(), "nobody"); v != nil || err != nil {
		t.Errorf("Verifier(nobody) = %v, %v; want nil, nil", v, err)
	}
}
