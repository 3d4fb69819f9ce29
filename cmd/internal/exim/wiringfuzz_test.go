package exim

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"mailbag/cmd/internal/mta"
)

const someTemplate = "UPEX4CmacrosUPEX4C = 1\nx = 1\nbegin acl\na:\n  accept\nbegin  routers \nbegin transports\nbegin retry\n* * F,1h,5m\nbegin rewrite"

// Our lines come into a template once, each behind its own, and go without a trace.
func FuzzTemplate(f *testing.F) {
	f.Add(someTemplate)
	f.Add(strings.ReplaceAll(someTemplate, "\n", "\r\n"))
	f.Add(someTemplate + "\n" + parts[0].include() + "\n")
	f.Add("begin retry")
	f.Fuzz(func(t *testing.T, text string) {
		bare, err := included(text, false)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(text, ".include_if_exists "+confdir) && bare != text {
			t.Errorf("%q becomes %q", text, bare)
		}
		wired, err := included(text, true)
		if err != nil {
			return
		}
		for _, p := range parts {
			if n := strings.Count(wired, p.include()+"\n"); n == 0 || n > 1 && !strings.Contains(text, p.include()) {
				t.Errorf("%s is there %d times in %q", p.include(), n, wired)
			}
		}
		if again, err := included(wired, true); err != nil || again != wired {
			t.Errorf("once more makes %q of %q, %v", again, wired, err)
		}
		if got, err := included(wired, false); err != nil || got != bare {
			t.Errorf("%q is left of %q, %v", got, bare, err)
		}
	})
}

func FuzzAside(f *testing.F) {
	main, err := parts[0].text(mta.Needs{}, time.Time{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(main)
	f.Add("\nMAILBAG_DELIVER = x")
	f.Add("MAILBAG_ASIDE = 2026-01-02T03:04:05Z\n\nMAILBAG_DELIVER = x\nMAILBAG_ASIDE = y\n")
	f.Fuzz(func(t *testing.T, main string) {
		since := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
		without, with := withAside(main, time.Time{}), withAside(main, since)
		if !asideIn(without).IsZero() {
			t.Errorf("%q still stands aside", without)
		}
		if strings.Contains(without, "\nMAILBAG_DELIVER = ") && !asideIn(with).Equal(since) {
			t.Errorf("%q does not stand aside", with)
		}
		if got := withAside(with, time.Time{}); got != without {
			t.Errorf("%q is left of %q", got, without)
		}
	})
}

// A diff takes lines of the one text and gives lines of the other, in their order.
func FuzzDiff(f *testing.F) {
	f.Add("a\nb\nc\n", "a\nc\nd")
	f.Add("", "x\n")
	f.Add("- a\n", "+ a\n")
	f.Fuzz(func(t *testing.T, old, fresh string) {
		if len(old)+len(fresh) > 4096 {
			return
		}
		a, b := lines(old), lines(fresh)
		gone, come := 0, 0
		for _, line := range lines(strings.TrimPrefix(diff("name", old, fresh), "name\n")) {
			from, count, text := &a, &gone, line[2:]
			if line[0] == '+' {
				from, count = &b, &come
			}
			i := slices.Index(*from, text)
			if i < 0 {
				t.Fatalf("%q is not in %q", line, *from)
			}
			*from, *count = (*from)[i+1:], *count+1
		}
		if len(lines(old))-gone != len(lines(fresh))-come {
			t.Errorf("%d lines of %q go and %d of %q come", gone, old, come, fresh)
		}
		if old == fresh && gone+come > 0 {
			t.Errorf("%q is not like itself", old)
		}
	})
}

func FuzzVersion(f *testing.F) {
	f.Add("Exim version 4.96 #2 built 27-May-2026 16:52:26\n")
	f.Add("Exim version 4.98.2 #2 built")
	f.Add("Exim version 99999999999999999999999.1")
	f.Fuzz(func(t *testing.T, said string) {
		version, old := tooOld(said)
		if old && !strings.HasPrefix(said, "Exim version "+version) {
			t.Errorf("%q is of the version %q", said, version)
		}
	})
}

func TestVersionsThatAreTooOld(t *testing.T) {
	for version, want := range map[string]bool{"3.36": true, "4.9": true, "4.95": true, "4.96": false, "4.100": false, "5.0": false, "99999999999999999999999.1": false} {
		if got, old := tooOld(fmt.Sprintf("Exim version %s #2 built", version)); old != want || got != version {
			t.Errorf("%s: %s, %v", version, got, old)
		}
	}
}

// What Exim says of its options, lists and all, is read without harm.
func FuzzOptions(f *testing.F) {
	f.Add("local_interfaces = <; 127.0.0.1 ; ::1\nno_prdr_enable\nhold_domains =\n")
	f.Add("x = <\xff 1")
	f.Fuzz(func(t *testing.T, said string) {
		for name, value := range values(said) {
			if name != strings.TrimSpace(name) || strings.Contains(name, "=") {
				t.Errorf("an option is called %q", name)
			}
			for _, item := range list(value) {
				if item == "" || item != strings.TrimSpace(item) {
					t.Errorf("%q has the item %q", value, item)
				}
				interfaceOf(item)
			}
		}
	})
}
