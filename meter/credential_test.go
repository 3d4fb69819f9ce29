package meter

import (
	"crypto/rand"
	"strings"
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

func TestFormsAreThoseOfLogInsLikeIt(t *testing.T) {
	t.Parallel()
	l := newTestLedger(t, Options{})
	ours, elsewhere, short := Form{10000, 16}, Form{4096, 12}, Form{4096, 8}
	formed := func(f Form) *Verifier {
		v := newVerifier(false)
		v.Salt, v.Iterations = make([]byte, f.Salt), f.Iterations
		return v
	}
	for _, a := range []Account{
		{Name: "ours", Mode: POP3, Domains: []string{"ours.example"}},
		{Name: "brought", Mode: POP3, Domains: []string{"brought.example", "brought.test"}},
		{Name: "empty", Mode: POP3, Domains: []string{"empty.example"}},
	} {
		if err := l.AddAccount(t.Context(), withDefaults(a), formed(short)); err != nil {
			t.Fatal(err)
		}
	}
	if got := mustLoad(t, l).Forms("a@ours.example"); len(got) > 0 {
		t.Errorf("without mailboxes the forms are %v", got)
	}
	for address, form := range map[string]Form{
		"a@ours.example": ours, "b@ours.example": ours, "c@ours.example": elsewhere, "a@brought.example": elsewhere,
	} {
		local, domain, _ := strings.Cut(address, "@")
		account, _, _ := strings.Cut(domain, ".")
		if err := l.AddMailbox(t.Context(), account, Address{local, domain}, formed(form)); err != nil {
			t.Fatal(err)
		}
	}
	d := mustLoad(t, l)
	for login, want := range map[string]map[Form]int{
		"a@ours.example":      {ours: 2, elsewhere: 1},
		"nobody@ours.example": {ours: 2, elsewhere: 1},
		"nobody@brought.test": {elsewhere: 1},
		"x@empty.example":     {ours: 2, elsewhere: 2},
		"x@foreign.example":   {ours: 2, elsewhere: 2},
		"ours":                {short: 3},
		"nobody":              {short: 3},
		"@foreign.example":    {short: 3}, // a domain stands for its account
	} {
		if diff := cmp.Diff(want, d.Forms(login)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", login, diff)
		}
	}
}
