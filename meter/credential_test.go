package meter

import (
	"crypto/rand"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// newVerifier returns one of no password in particular, unlike every other.
func newVerifier(cramMD5 bool) *Verifier {
	octets := func(n int) []byte {
		b := make([]byte, n)
		rand.Read(b)
		return b
	}
	v := &Verifier{Salt: octets(16), Iterations: 10000, StoredKey: octets(32), ServerKey: octets(32)}
	if cramMD5 {
		v.CRAMMD5 = octets(32)
	}
	return v
}

func TestVerifierIsKeptByLogin(t *testing.T) {
	t.Parallel()
	l := newTestLedger(t, Options{})
	check := func(when string, want *Verifier) {
		t.Helper()
		got, err := l.Verifier(t.Context(), "acme")
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", when, diff)
		}
	}
	v := newVerifier(true)
	if err := l.AddAccount(t.Context(), withDefaults(Account{Name: "acme", Mode: ATRN}), v); err != nil {
		t.Fatal(err)
	}
	check("at first", v)
	for _, cram := range []bool{false, true} {
		v = newVerifier(cram)
		if err := l.SetPassword(t.Context(), "acme", "acme", v); err != nil {
			t.Fatal(err)
		}
		check("after a new password", v)
	}
	for _, cram := range []bool{true, false} {
		if _, _, err := l.EditAccount(t.Context(), "acme", "account set", func(a *Account) error { a.CRAMMD5 = cram; return nil }); err != nil {
			t.Fatal(err)
		}
		if !cram {
			v.CRAMMD5 = nil
		}
		check("after cram_md5 was set", v)
	}
	if v, err := l.Verifier(t.Context(), "nobody"); v != nil || err != nil {
		t.Errorf("Verifier(nobody) = %v, %v; want nil, nil", v, err)
	}
}
