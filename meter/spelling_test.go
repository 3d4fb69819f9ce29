package meter

import (
	"strings"
	"testing"

	"golang.org/x/text/unicode/norm"
	"pgregory.net/rapid"
)

// anyAddress draws what addresses are made of, strange ones above all.
var anyAddress = rapid.Custom(func(t *rapid.T) Address {
	local := rapid.StringOfN(rapid.OneOf(rapid.RuneFrom([]rune("aZ-#.+ \"\\@%!(),:;<>[]'`$\u00a0\u0301\u0308\ufeff\u2003\u037e\u212aöİßʼn")), rapid.Rune()), 1, 12, 64).Draw(t, "local")
	return Address{Local: local, Domain: rapid.SampledFrom([]string{"acme.example", "xn--mnchen-3ya.example"}).Draw(t, "domain")}
})

func TestWhatIsPrintedOfAnAddressCanBeGivenBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		drawn := anyAddress.Draw(t, "address")
		a, err := ParseAddress(drawn.String())
		if err != nil {
			t.Skip("it is none") // control characters, or too long
		}
		again, err := ParseAddress(a.String())
		if err != nil || again != a {
			t.Errorf("%+q is printed as %s, which is %+q, %v", a, a, again, err)
		}
		key := a.Key()
		if KeyAddress(key).Key() != key {
			t.Errorf("the key of %+q, %+q, has another key", a, key)
		}
		// The lower case of a letter may be longer.
		if k, err := ParseAddress(Written(key)); err != nil && len(KeyAddress(key).Local) <= 64 || err == nil && k.Key() != key {
			t.Errorf("the key %+q is printed as %s, which is %+q, %v", key, Written(key), k, err)
		}
		if written := a.String(); strings.TrimSpace(written) != written || strings.ContainsAny(written[:1], "-#") {
			t.Errorf("%+q is printed as %+q, which begins with what means something else", a, written)
		}
	})
}

func TestAddressHasOneKeyHoweverItsLettersAreEncoded(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a := anyAddress.Draw(t, "address")
		for _, form := range []norm.Form{norm.NFC, norm.NFD} {
			if other := (Address{form.String(a.Local), a.Domain}); other.Key() != a.Key() {
				t.Errorf("%+q has the key %+q, and %+q has %+q", a.Local, a.Key(), other.Local, other.Key())
			}
		}
	})
	for _, spelling := range []string{"jo\u0308rg@acme.example", "JÖRG@acme.example", "J\u004f\u0308RG@ACME.example", "\"jörg\"@acme.example"} {
		if a, err := ParseAddress(spelling); err != nil || a.Key() != "jörg@acme.example" {
			t.Errorf("%+q has the key %q, %v", spelling, a.Key(), err)
		}
	}
}

func TestAddressThatReadersWouldNotSeeIsRefused(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"a\u0085@acme.example", "a\u2028b@acme.example", "\"a\u202eb\"@acme.example", "\"a\x1b[2J\"@acme.example"} {
		if a, err := ParseAddress(s); err == nil {
			t.Errorf("%+q is taken for %+q", s, a)
		}
	}
}

func TestUnicodeDomainIsTheSameDomain(t *testing.T) {
	t.Parallel()
	for domain, want := range map[string]string{
		"acme.example":           "acme.example",
		"xn--mnchen-3ya.example": "münchen.example",
		"xn--strae-oqa.example":  "straße.example",
		"xn--wgv71a119e.jp":      "日本語.jp",
		"xn--a.example":          "xn--a.example", // none
		"":                       "",
	} {
		if got := UnicodeDomain(domain); got != want {
			t.Errorf("UnicodeDomain(%q) = %q, want %q", domain, got, want)
		}
	}
}
