package login

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"mailbag/meter"
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
		if got := matches(v, password); got != want {
			t.Errorf("Matches(%q) = %v, want %v", password, got, want)
		}
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
		if !answersCRAM(v, challenge, digest) {
			t.Errorf("the digest %x of %q is refused", digest, password)
		}
		if answersCRAM(v, []byte("<another@example.com>"), digest) || answersCRAM(v, challenge, nil) || answersCRAM(v, challenge, digest[:8]) {
			t.Errorf("with the password %q a wrong digest is taken", password)
		}
		if v.CRAMMD5 = nil; answersCRAM(v, challenge, digest) {
			t.Error("a digest is taken without anything to check it by")
		}
	}
}

func TestBadPasswordsAreRefusedWithoutQuotingThem(t *testing.T) {
	t.Parallel()
	for _, password := range []string{"", "se\x00cret", "secret\xff", strings.Repeat("secret", 30), "\u00ad"} {
		_, err := NewVerifier(password, false)
		if !errors.Is(err, meter.ErrInvalid) || (password != "" && strings.Contains(err.Error(), "secret")) {
			t.Errorf("NewVerifier(%q) = %v", password, err)
		}
	}
}
