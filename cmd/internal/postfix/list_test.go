package postfix

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestListsAreSplitAsPostfixSplitsThem(t *testing.T) {
	t.Parallel()
	for list, want := range map[string][]string{
		"":                         nil,
		" , ,":                     nil,
		"a,b c\n\td":               {"a", "b", "c", "d"},
		"{ unix:x, a=b } c":        {"{ unix:x, a=b }", "c"},
		"${x?{a b}:{c}}, hash:/x":  {"${x?{a b}:{c}}", "hash:/x"},
		"inline:{a=b, {c = d}} e":  {"inline:{a=b, {c = d}}", "e"},
		"{ never closed, x":        {"{ never closed, x"},
		"a } b":                    {"a", "}", "b"},
		"!static:all,regexp:/x{2}": {"!static:all", "regexp:/x{2}"},
	} {
		if diff := cmp.Diff(want, texts(list)); diff != "" {
			t.Errorf("%q: %s", list, diff)
		}
	}
}

func TestWhatIsPutIntoAListCanBeCutOutAgain(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		parts := rapid.SliceOf(rapid.SampledFrom([]string{"permit_mynetworks", "permit", "{ a, b }", "check_x_access hash:/x", "$y", "reject"})).Draw(t, "parts")
		separator := rapid.SampledFrom([]string{" ", ",", ", ", " , "}).Draw(t, "separator")
		list := strings.Join(parts, separator)
		for _, entry := range []string{"check_recipient_access " + tables("/t").recipients(), formerRecipientCheck, milterTap, tables("/t").routes(), "$" + milterMacro} {
			for where, with := range map[string]string{"behind": behind(list, entry), "before": before(list, entry)} {
				if got := cut(with, entry); got != list {
					t.Fatalf("%s: %q became %q, and without %q it is %q", where, list, with, entry, got)
				}
				if i := find(words(with), texts(entry)); i < 0 {
					t.Fatalf("%s: %q has not %q", where, with, entry)
				}
			}
		}
	})
}

func FuzzListEditing(f *testing.F) {
	f.Add("permit_mynetworks, { a, b }, permit")
	f.Add("} , {{ ,")
	f.Add("\n\t,, permit ,")
	f.Fuzz(func(t *testing.T, list string) {
		with := behind(list, formerRecipientCheck)
		if strings.Count(list, "{") == strings.Count(list, "}") && !strings.Contains(list, "}") && find(words(with), texts(formerRecipientCheck)) < 0 {
			t.Errorf("%q has not our entry", with)
		}
		before := texts(cut(list, formerRecipientCheck))
		if strings.ContainsAny(list, "{}") {
			return // an unclosed brace swallows what comes behind it
		}
		if after := texts(cut(with, formerRecipientCheck)); cmp.Diff(before, after) != "" {
			t.Errorf("%q became %q", before, after)
		}
	})
}
