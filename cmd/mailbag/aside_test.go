package main

import (
	"os"
	"strings"
	"testing"
	"time"

	"mailbag/cmd/internal/postfix"
	postfixtest "mailbag/testdata/postfix"
)

func TestStepAsideAndStepInOnAPostfix(t *testing.T) {
	t.Parallel()
	in := postfixtest.Prepare(t, postfixtest.Config{})
	w := newWorkplace(t, postfix.Instance{ConfigDir: in.ConfigDir()})
	w.now = func() time.Time { return time.Date(2026, 3, 1, 4, 5, 6, 0, time.UTC) }
	with := func(args ...string) []string { return append(args, "--config-dir", in.ConfigDir()) }
	if status, _, errs := w.run(with("postfix", "step-aside")...); status != failed || !strings.Contains(errs, "mailbag postfix setup") {
		t.Errorf("without a wiring it ended with status %d: %s", status, errs)
	}
	policyd := newPolicyd(t, in)
	policyd.serve(t, "mailbag-policy")
	policyd.serve(t, "mailbag-milter")
	w.must(with("postfix", "setup")...)
	wired, err := in.Postconf("-n")
	if err != nil {
		t.Fatal(err)
	}
	if out := w.must(with("postfix", "step-aside", "--dry-run")...); !strings.Contains(out, "+ mailbag_milter =\n") {
		t.Errorf("the dry run does not show the changes: %s", out)
	}
	policyd.stop(t)
	const says = "mailbag stands aside since 2026-03-01T04:05:06Z"
	mistaken := w.path("mistaken.toml")
	if err := os.WriteFile(mistaken, []byte("nonsense = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, out, errs := w.run(with("postfix", "step-aside", "--dry-run", "--config", mistaken)...); status != done || !strings.Contains(out, "+ mailbag_milter =\n") || !strings.Contains(errs, "nonsense") {
		t.Errorf("with mistaken settings it ended with status %d: %s%s", status, out, errs)
	}
	for range 2 {
		if out := w.must(with("postfix", "step-aside")...); !strings.Contains(out, says) {
			t.Errorf("it does not say that mailbag stands aside: %s", out)
		}
	}
	if out := w.must(with("postfix", "setup")...); !strings.Contains(out, "nothing is to be changed") || !strings.Contains(out, says) {
		t.Errorf("setup does not leave it so, or does not say it: %s", out)
	}
	if status, out, _ := w.run(with("postfix", "check")...); status != failed || !strings.Contains(out, "fault: "+says) {
		t.Errorf("check ended with status %d: %s", status, out)
	}
	aside, err := in.Postconf("-n")
	if err != nil {
		t.Fatal(err)
	}
	if status, out, errs := w.run(with("postfix", "step-in")...); status != failed || out != "" || !strings.Contains(errs, "there is no socket") {
		t.Errorf("stepping in without mailbag-policyd ended with status %d: %s%s", status, out, errs)
	}
	if now, err := in.Postconf("-n"); err != nil || now != aside {
		t.Errorf("stepping in without mailbag-policyd changed Postfix: %v\n%s", err, now)
	}
	if out := w.must(with("postfix", "step-in", "--force", "--dry-run")...); !strings.Contains(out, "+ mailbag_milter = ") {
		t.Errorf("the dry run does not show the changes: %s", out)
	}
	policyd = newPolicyd(t, in)
	policyd.serve(t, "mailbag-policy")
	policyd.serve(t, "mailbag-milter")
	if out := w.must(with("postfix", "step-in")...); strings.Contains(out, says) {
		t.Errorf("after stepping in: %s", out)
	}
	if now, err := in.Postconf("-n"); err != nil || now != wired {
		t.Errorf("%v\n%s\nwant\n%s", err, now, wired)
	}
}
