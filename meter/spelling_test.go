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

// TestALedgerWithAddressesInTwoSpellingsIsTakenOver opens one in which letters with marks were kept as they came.
func TestALedgerWithAddressesInTwoSpellingsIsTakenOver(t *testing.T) {
	t.Parallel()
	credential := "', 1, zeroblob(16), 4096, zeroblob(32), zeroblob(32), NULL, 0)"
	l := olderLedger(t, 10, `
		INSERT INTO account (name, mode, created) VALUES ('dent', 'pop3', 1767225600000);
		INSERT INTO domain (name, account) VALUES ('dent.example', 1);
		INSERT INTO change (at, who, account, action) VALUES (1767225600000, 'operator', 1, 'account add');
		INSERT INTO mailbox (address, account, domain, created) VALUES ('jo`+"\u0308"+`rg@dent.example', 1, 'dent.example', 0),
			('info@dent.example', 1, 'dent.example', 0), ('zoe`+"\u0308"+`@dent.example', 1, 'dent.example', 0), ('zoë@dent.example', 1, 'dent.example', 0);
		INSERT INTO credential VALUES ('jo`+"\u0308"+`rg@dent.example`+credential+`, ('zoe`+"\u0308"+`@dent.example`+credential+`, ('zoë@dent.example`+credential+`;
		INSERT INTO recipient (account, address, domain) VALUES (1, 'jo`+"\u0308"+`rg@dent.example', 'dent.example'),
			(1, 'zoe`+"\u0308"+`@dent.example', 'dent.example'), (1, 'zoë@dent.example', 'dent.example')`)
	d := mustLoad(t, l)
	if got := strings.Join(d.Mailboxes(d.Account("dent")), " "); got != "info@dent.example jörg@dent.example zoë@dent.example" {
		t.Errorf("the mailboxes are %q", got)
	}
	for mailbox, want := range map[string]string{
		"jörg@dent.example": "jo\u0308rg@dent.example", // where it was
		"zoë@dent.example":  "zoë@dent.example",
		"info@dent.example": "info@dent.example",
	} {
		if got := d.Maildir(mailbox); got != want {
			t.Errorf("the mail of %s is in %+q, want %+q", mailbox, got, want)
		}
	}
	for login, want := range map[string]bool{"jörg@dent.example": true, "zoë@dent.example": true, "jo\u0308rg@dent.example": false, "zoe\u0308@dent.example": false} {
		if v, err := l.Verifier(t.Context(), login); err != nil || (v != nil) != want {
			t.Errorf("the verifier of %+q is %v, %v", login, v, err)
		}
	}
	var listed []string
	for address, err := range l.Recipients(t.Context(), 1) {
		if err != nil {
			t.Fatal(err)
		}
		listed = append(listed, address)
	}
	if got := strings.Join(listed, " "); got != "jörg@dent.example zoë@dent.example" {
		t.Errorf("the listed recipients are %q", got)
	}
	if faults, err := l.Check(t.Context()); err != nil || len(faults) > 0 {
		t.Errorf("Check = %q, %v", faults, err)
	}
}
