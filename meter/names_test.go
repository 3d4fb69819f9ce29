package meter

import (
	"strings"
	"testing"
)

func TestNormalizeDomain(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 63)
	for in, want := range map[string]string{
		"acme.example":        "acme.example",
		"ACME.Example":        "acme.example",
		"acme.example.":       "acme.example",
		"münchen.example":     "xn--mnchen-3ya.example",
		"MÜNCHEN.example.":    "xn--mnchen-3ya.example",
		"mu\u0308nchen.test":  "xn--mnchen-3ya.test", // decomposed
		"XN--MNCHEN-3YA.test": "xn--mnchen-3ya.test",
		"straße.example":      "xn--strae-oqa.example",
		"日本語。jp":              "xn--wgv71a119e.jp", // ideographic full stop
		"localhost":           "localhost",
		"1.a":                 "1.a",
		long + ".example":     long + ".example",
	} {
		if got, err := NormalizeDomain(in); got != want || err != nil {
			t.Errorf("NormalizeDomain(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{
		"", ".", "..", "acme.example..", ".acme.example", "acme..example", "-acme.example", "acme-.example",
		"acme_x.example", "acme example", "acme.example\n", "[192.0.2.1]", "192.0.2.1", "a@b.example",
		"a/b.example", "xn--a.example", "a\x00b.example", long + "a.example", strings.Repeat("a.", 127) + "example",
		"xn--mnchen-3ya--.example", "\xff.example",
	} {
		if got, err := NormalizeDomain(in); err == nil {
			t.Errorf("NormalizeDomain(%q) = %q, want an error", in, got)
		}
	}
}

func FuzzNormalizeDomain(f *testing.F) {
	for _, s := range []string{"acme.example", "MÜNCHEN.example.", "xn--mnchen-3ya.test", "日本語。jp", "a..b", "-", "\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := NormalizeDomain(s)
		if err != nil {
			return
		}
		if again, err := NormalizeDomain(got); again != got || err != nil {
			t.Errorf("%q is normalized to %q, and that to %q, %v", s, got, again, err)
		}
		if len(got) > maxDomain || strings.ToLower(got) != got || strings.ContainsAny(got, " \r\n\x00@/") {
			t.Errorf("%q is normalized to %q", s, got)
		}
	})
}

func TestParseAddress(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]Address{
		"a@acme.example":           {"a", "acme.example"},
		"First.Last@ACME.example.": {"First.Last", "acme.example"},
		`"two words"@acme.example`: {"two words", "acme.example"},
		`"a\"b\\c"@acme.example`:   {`a"b\c`, "acme.example"},
		`"a@b"@acme.example`:       {"a@b", "acme.example"},
		"user+tag@acme.example":    {"user+tag", "acme.example"},
		"jürgen@münchen.example":   {"jürgen", "xn--mnchen-3ya.example"},
	} {
		got, err := ParseAddress(in)
		if got != want || err != nil {
			t.Errorf("ParseAddress(%q) = %+v, %v; want %+v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "a", "@acme.example", "a@", "a b@acme.example", "a@b@acme.example", `"a@acme.example`,
		`"a"b"@acme.example`, ".a@acme.example", "a..b@acme.example", "a@[192.0.2.1]", "<a@acme.example>", "a\r\n@acme.example",
		"\"a\r\"@acme.example", `"\"@acme.example`, strings.Repeat("a", 65) + "@acme.example", "\xff@acme.example"} {
		if got, err := ParseAddress(in); err == nil {
			t.Errorf("ParseAddress(%q) = %+v, want an error", in, got)
		}
	}
}

func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{"a@acme.example", `"a\"b"@acme.example`, "jürgen@münchen.example", "@", `""@a`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAddress(s)
		if err != nil {
			return
		}
		if again, err := ParseAddress(a.String()); again != a || err != nil {
			t.Errorf("%q is %+v, written as %s, which is %+v, %v", s, a, a, again, err)
		}
	})
}

func TestParseHost(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]Host{
		"mx.acme.example":      {"mx.acme.example", 0},
		"MX.acme.example:2525": {"mx.acme.example", 2525},
		"192.0.2.1":            {"192.0.2.1", 0},
		"192.0.2.1:25":         {"192.0.2.1", 25},
		"2001:db8::1":          {"2001:db8::1", 0},
		"[2001:db8::1]":        {"2001:db8::1", 0},
		"[2001:DB8::1]:25":     {"2001:db8::1", 25},
	} {
		got, err := ParseHost(in)
		if got != want || err != nil {
			t.Errorf("ParseHost(%q) = %+v, %v; want %+v", in, got, err, want)
			continue
		}
		if again, err := ParseHost(got.String()); again != got || err != nil {
			t.Errorf("%q is written as %s, which is %+v, %v", in, got, again, err)
		}
	}
	for _, in := range []string{"", ":25", "mx:", "mx:0", "mx:65536", "mx:smtp", "a b", "[mx]:25:1", "fe80::1%eth0", "0.0.0.0", "::", "mx/25", "[]"} {
		if got, err := ParseHost(in); err == nil {
			t.Errorf("ParseHost(%q) = %+v, want an error", in, got)
		}
	}
}

func FuzzParseHost(f *testing.F) {
	for _, s := range []string{"mx.acme.example:25", "[2001:db8::1]:25", "192.0.2.1", "[", ":"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		h, err := ParseHost(s)
		if err != nil {
			return
		}
		if again, err := ParseHost(h.String()); again != h || err != nil {
			t.Errorf("%q is %+v, written as %s, which is %+v, %v", s, h, h, again, err)
		}
	})
}
