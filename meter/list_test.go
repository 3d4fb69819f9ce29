package meter

import (
	"slices"
	"strings"
	"testing"
)

func FuzzList(f *testing.F) {
	for _, text := range []string{"", "a\n", "b\na\n", "info@a.example\njoe@a.example\nann@a.example\n", "a\naa\nab\nb\n", "\n", "bücher@a.example\nBücher\n"} {
		f.Add(text, "a")
	}
	f.Fuzz(func(t *testing.T, text, line string) {
		lines := slices.Collect(func(yield func(string) bool) {
			for line := range strings.Lines(text) {
				if !yield(strings.TrimSuffix(line, "\n")) {
					return
				}
			}
		})
		slices.Sort(lines)
		lines = slices.Compact(lines)
		l := newList(terminated(lines))
		slices.Reverse(lines)
		if reversed := newList(terminated(lines)); reversed != l {
			t.Fatalf("%q in another order is %q and not %q", lines, reversed, l)
		}
		slices.Reverse(lines)
		if got := l.lines(); !slices.Equal(got, lines) {
			t.Errorf("the lines of %q are %q and not %q", l, got, lines)
		}
		for _, one := range append(lines, line) {
			if want := slices.Contains(lines, one); l.has(one) != want {
				t.Errorf("%q is in %q: %v", one, l, !want)
			}
		}
	})
}

// terminated are lines with their line feeds.
func terminated(lines []string) string {
	var text strings.Builder
	for _, line := range lines {
		text.WriteString(line + "\n")
	}
	return text.String()
}

func FuzzMemberIsReadFromTheLedger(f *testing.F) {
	f.Add("", "")
	f.Add("info@a.example\t\njoe@a.example\tjoe@a.example,7\n", "1 4096 16\n0 10000 12\n1 4096 16\n")
	f.Add("info@a.example\n\t\n", "1 1\n")
	f.Add("\tx\n", "-1 -1 -1\nx\n")
	f.Fuzz(func(t *testing.T, mailboxes, forms string) {
		if mailboxes != "" && !strings.HasSuffix(mailboxes, "\n") {
			t.Skip("the ledger ends each line")
		}
		m := &member{belongings: noBelongings}
		m.take(mailboxes)
		for _, key := range m.mailboxes.lines() {
			if !strings.Contains("\n"+mailboxes, "\n"+key) {
				t.Errorf("%q has the mailbox %q", mailboxes, key)
			}
		}
		if err := m.takeForms(forms); err == nil && len(m.forms) > strings.Count(forms, "\n")+1 {
			t.Errorf("%q are the forms %v", forms, m.forms)
		}
		if noBelongings.mailboxes != "" || noBelongings.forms != nil || noBelongings.maildirs != nil {
			t.Fatal("what has nothing of its own has some of another")
		}
	})
}
