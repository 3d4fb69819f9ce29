package policy

import (
	"strings"
	"testing"

	"mailbag/meter"
)

func TestAddressesAreReadAsPostfixResolvesThem(t *testing.T) {
	t.Parallel()
	d := openDesk(t, append(customers(), account("strasse", meter.Backup, "strasse.example")), nil).follower.Directory()
	for _, test := range []struct {
		address string
		account string // whose it is
		refused bool
	}{
		{"user@acme.example", "acme", false},
		{"user@acme.example.", "acme", false},
		{"User@ACME.Example", "acme", false},
		{"user@b\u00fccher.example", "acme", false},
		{"user@B\u00dcCHER.example.", "acme", false},
		{"user@XN--BCHER-KVA.example", "acme", false},
		{"user@stra\u00dfe.example", "strasse", false},
		{"first last@acme.example", "acme", false},
		{"a%b.example@acme.example", "acme", false},
		{"b.example!a@acme.example", "acme", false},
		{"a@other.example@acme.example", "acme", false},

		{"user@other.example", "", false},
		{"user@sub.acme.example", "", false},
		{"acme.example@other.example", "", false},
		{"bounce+user=acme.example@other.example", "", false},
		{"a%b.example@other.example", "", false},
		{"user", "", false},
		{"acme.example", "", false},
		{"", "", false},
		{"@", "", false},
		{"user@[192.0.2.1]", "", false},
		{"user@bad_name.example", "", false},

		{"user@acme.example..", "", true},
		{"user@acme.example@", "", true},
		{"user@acme.example.@", "", true},
		{"user@acme.example@@", "", true},
		{"@acme.example", "acme", true},
		{"user%acme.example", "", true},
		{"user%acme.example@[192.0.2.1]", "", true},
		{"user%ACME.example.@mx.example", "", true},
		{"acme.example!user", "", true},
		{"acme.example!user@[192.0.2.1]", "", true},
		{"x!acme.example!user@mx.example", "", true},
		{"user@acme.example@mx.example", "", true},
		{"@acme.example:user@mx.example", "", true},
		{`user\@acme.example@mx.example`, "", true},
		{`"user@acme.example"@mx.example`, "", true},
		{`user@acme\.example`, "", true},
		{"user@acme .example", "", true},
		{"user@acme. \texample", "", true},
		{`user@"acme.example"`, "", true},
		{`user@acme."example`, "", true},
		{"user@acme.example(comment)", "", true},
		{"user@acme(a (b) c).example", "", true},
		{"user@b\u00fc cher.example", "", true},
		{"user@[acme.example]", "", true},
		{"user%acme.example@", "", true},
	} {
		got := readRecipient(d, test.address)
		name := ""
		if got.account != nil {
			name = got.account.Name
		}
		if name != test.account || got.refused != test.refused {
			t.Errorf("%q is read as account %q, refused %v; want %q, %v", test.address, name, got.refused, test.account, test.refused)
		}
	}
}

// FuzzRecipient looks for an address that passes as nobody's although cutting it at routing operators,
// with or without what Postfix's tokenizer drops, gives a domain of ours.
func FuzzRecipient(f *testing.F) {
	for _, s := range []string{
		"user@acme.example", "user@acme.example.", "a%acme.example@[192.0.2.1]", "acme.example!a", `"a@acme.example"@x`,
		"user@acme .example", `a@acme\.example`, "@acme.example:a@b", "a@acme.example@", "user@b\u00fccher.example", "a@(x)acme.example",
	} {
		f.Add(s)
	}
	d := openDesk(f, customers(), nil).follower.Directory()
	f.Fuzz(func(t *testing.T, s string) {
		got := readRecipient(d, s)
		if got.refused {
			return
		}
		for _, text := range []string{s, squeeze(s)} {
			for i := range len(text) {
				switch text[i] {
				case '@', '%':
					domain := text[i+1:]
					if end := strings.IndexAny(domain, "@%!"); end >= 0 {
						domain = domain[:end]
					}
					last := !strings.ContainsAny(text[i+1:], "@%!")
					a, normal := domainOf(d, strings.Trim(domain, "."))
					switch {
					case a == nil:
					case got.account == nil:
						t.Fatalf("%q passes as nobody's", s)
					case last && text[i] == '@' && got.account != a:
						t.Fatalf("%q is %s's, and was read as %s's", s, a.Name, got.account.Name)
					case last && text[i] == '@' && got.address.Domain != normal:
						t.Fatalf("%q has the domain %q, and was read as %q", s, normal, got.address.Domain)
					}
				case '!':
					domain := text[:i]
					if begin := strings.LastIndexAny(domain, "@%!"); begin >= 0 {
						domain = domain[begin+1:]
					}
					if a, _ := domainOf(d, strings.Trim(domain, ".")); a != nil && got.account == nil {
						t.Fatalf("%q passes as nobody's", s)
					}
				}
			}
		}
		if got.account != nil {
			if normal, err := meter.NormalizeDomain(s[strings.LastIndexByte(s, '@')+1:]); err != nil || normal != got.address.Domain {
				t.Fatalf("%q was read as of %q", s, got.address.Domain)
			}
		}
	})
}
