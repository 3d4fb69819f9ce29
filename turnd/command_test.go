package turnd

import (
	"slices"
	"strings"
	"testing"

	"mailbag/meter"
)

func TestCommandIsAVerbAndItsArguments(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]command{
		"ATRN":                    {"ATRN", ""},
		"atrn  a.example , b\t":   {"ATRN", "a.example , b"},
		"Noop \u00fc":             {"NOOP", "\u00fc"},
		"ETRN@a.example":          {"ETRN", "@a.example"},
		"ETRN #queue":             {"ETRN", "#queue"},
		"STARTTLS\t":              {"STARTTLS", ""},
		"MAIL FROM:<a@b.example>": {"MAIL", "FROM:<a@b.example>"},
	} {
		if got, err := parseCommand([]byte(line)); err != nil || got != want {
			t.Errorf("%q is read as %q, %v; want %q", line, got, err, want)
		}
	}
	for _, line := range []string{"", " ATRN", "ATRN\x00", "ATRN\ra", "ATRN@a.example", "NOOP:", "X-1", "\xff", "NOOP \xff", strings.Repeat("A", maxVerb+1)} {
		if got, err := parseCommand([]byte(line)); err == nil {
			t.Errorf("%q is read as %q", line, got)
		}
	}
}

func FuzzCommand(f *testing.F) {
	for _, line := range []string{"EHLO a", "ATRN a.example,b.example", "ETRN @a.example", "ETRN#q", "AUTH PLAIN =", "\x00", "ATRN ,", "ATRN b\u00fccher.example"} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		c, err := parseCommand(line)
		if err != nil {
			return
		}
		if c.verb == "" || strings.ToUpper(c.verb) != c.verb || strings.ContainsAny(c.args, "\r\n\x00") {
			t.Errorf("%q is read as %q", line, c)
		}
		if domains, err := parseDomains(c.args); err == nil {
			if (domains == nil) != (c.args == "") {
				t.Errorf("the domains of %q are %q", c.args, domains)
			}
			for i, domain := range domains {
				normal, err := meter.NormalizeDomain(domain)
				if err != nil || normal != domain || slices.Contains(domains[:i], domain) {
					t.Errorf("the domains of %q are %q", c.args, domains)
				}
			}
		}
		if n, err := parseNode(c.args); err == nil {
			again, err := parseNode(n.String())
			if err != nil || again != n || strings.ContainsFunc(n.String(), func(r rune) bool { return r <= ' ' || r > '~' }) {
				t.Errorf("the node %q is read as %q", c.args, n)
			}
		}
		if mechanism, initial, ok := parseAuth(c.args); ok && (mechanism == "" || strings.Contains(initial, " ")) {
			t.Errorf("AUTH %q is read as %q and %q", c.args, mechanism, initial)
		}
		if b, err := decodeResponse([]byte(c.args)); err == nil && b == nil {
			t.Errorf("the response %q is none", c.args)
		}
	})
}
