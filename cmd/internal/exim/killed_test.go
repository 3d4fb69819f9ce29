package exim

import (
	"strings"
	"testing"

	eximtest "mailbag/testdata/exim"
)

// A run that is killed at any moment leaves a configuration that Exim takes, and the next one ends what it began.
func TestARunThatWasKilledIsMadeGood(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"split", "unsplit"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			x := eximtest.Prepare(t, eximtest.Config{})
			if kind == "unsplit" {
				unsplit(t, x)
			}
			if err := x.Start(); err != nil {
				t.Fatal(err)
			}
			before := configuration(t, x)
			for _, first := range []string{"setup", "remove"} {
				for _, at := range []int{1, 2, 5, 6, 8} { // of up to six files and the whole; behind all, Exim did not read it
					if first == "remove" {
						done(t, x, verb{Do: "setup"})
					}
					done(t, x, verb{Do: first, Until: at})
					if out, err := x.Command("/usr/sbin/exim4", "-bV").CombinedOutput(); err != nil {
						t.Errorf("%s is killed in its write %d, and Exim says: %s", first, at, out)
					}
					if out, err := x.Command("/usr/sbin/update-exim4.conf").CombinedOutput(); err != nil {
						t.Errorf("%s is killed in its write %d, and Exim would not start: %s", first, at, out)
					}
					if o := done(t, x, verb{Do: "setup"}); !o.Reloaded || !strings.Contains(o.Diff, "a former run was ended before") {
						t.Errorf("%s is killed in its write %d, and the next setup does:\n%s", first, at, o.Diff)
					}
					if got := bp(t, x, "acl_smtp_rcpt"); got != "acl_smtp_rcpt = acl_mailbag_rcpt" {
						t.Errorf("%s is killed in its write %d, and after the next setup: %s", first, at, got)
					}
					done(t, x, verb{Do: "remove"})
					if !equal(before, configuration(t, x)) {
						t.Errorf("%s is killed in its write %d, and removal does not restore what was there", first, at)
					}
				}
			}
		})
	}
}

// The template is the last and largest file of an unsplit configuration.
func TestAFullDiskLeavesTheConfigurationAsItWas(t *testing.T) {
	t.Parallel()
	x := eximtest.Prepare(t, eximtest.Config{})
	unsplit(t, x)
	before := configuration(t, x)
	o := do(t, x, verb{Do: "setup", Room: 40_000})
	if !strings.Contains(o.Err, "so nothing was changed: ") || !strings.Contains(o.Err, "file too large") || strings.Contains(o.Err, "cannot put") {
		t.Error(o.Err)
	}
	if !equal(before, configuration(t, x)) {
		t.Error("something was changed")
	}
	if o := done(t, x, verb{Do: "remove"}); !o.Empty {
		t.Errorf("a removal changes:\n%s", o.Diff)
	}
}
