package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"mailbag/cmd/internal/postfix"
	"mailbag/meter"
	postfixtest "mailbag/testdata/postfix"
)

func TestSetupCheckAndRemoveOnAPostfix(t *testing.T) {
	t.Parallel()
	in := postfixtest.Prepare(t, postfixtest.Config{})
	w := newWorkplace(t, postfix.Instance{ConfigDir: in.ConfigDir()})
	with := func(args ...string) []string { return append(args, "--config-dir", in.ConfigDir()) }
	before, err := in.Postconf("-n")
	if err != nil {
		t.Fatal(err)
	}

	if out := w.must(with("postfix", "setup", "--dry-run")...); !strings.Contains(out, "+ transport_maps = cdb:") {
		t.Errorf("the dry run does not show the changes: %s", out)
	}
	if status, _, errs := w.run("account", "list"); status != failed || !strings.Contains(errs, "there is none") {
		t.Errorf("the dry run made a ledger, or something else is wrong: %s", errs)
	}
	if now, err := in.Postconf("-n"); err != nil || now != before {
		t.Errorf("the dry run changed Postfix: %v\n%s", err, now)
	}

	// Nothing is changed for a mailbag-policyd that answers not at all, or at one of its sockets.
	policyd := newPolicyd(t, in)
	for _, at := range []string{"mailbag-policy", "mailbag-milter"} {
		status, out, errs := w.run(with("postfix", "setup")...)
		if status != failed || out != "" || !strings.Contains(errs, "there is no socket "+in.Private(at)+"; nothing was changed") || !strings.Contains(errs, "systemctl start mailbag-policyd.service") {
			t.Errorf("setup without %s ended with status %d: %s%s", at, status, out, errs)
		}
		if now, err := in.Postconf("-n"); err != nil || now != before {
			t.Errorf("setup without %s changed Postfix: %v\n%s", at, err, now)
		}
		if status, _, _ := w.run("account", "list"); status != failed {
			t.Error("a setup that is refused made a ledger")
		}
		if _, _, errs := w.run(with("postfix", "setup", "--dry-run")...); !strings.Contains(errs, "warning: mailbag-policyd does not answer Postfix: there is no socket "+in.Private(at)) {
			t.Errorf("the dry run does not say that %s is away: %s", at, errs)
		}
		policyd.serve(t, at)
	}
	if out := w.must(with("postfix", "setup")...); !strings.Contains(out, "Postfix does not run") {
		t.Error(out)
	}
	w.must("account", "list")
	if out := w.must(with("postfix", "setup")...); !strings.Contains(out, "nothing is to be changed") {
		t.Errorf("a second setup changes something: %s", out)
	}

	status, out, errs := w.run("account", "add", "acme", "--mode", "backup", "--domain", "acme.example", "--recipients", "verify")
	if status != done || !strings.Contains(errs, `run "mailbag postfix setup"`) {
		t.Errorf("ended with status %d: %s%s", status, out, errs)
	}
	if out := w.must(with("postfix", "setup")...); !strings.Contains(out, "+ unverified_recipient_defer_code = 250") {
		t.Errorf("setup does not see that recipients are verified: %s", out)
	}
	policyd.stop(t)
	if status, _, errs := w.run(with("postfix", "setup")...); status != failed || !strings.Contains(errs, "nothing was changed") {
		t.Errorf("setup ended with status %d though no daemon runs: %s", status, errs)
	}
	if status, _, errs := w.run(with("postfix", "setup", "--force")...); status != done || !strings.Contains(errs, "Postfix answers 451 to all mail") {
		t.Errorf("setup --force ended with status %d: %s", status, errs)
	}
	status, out, _ = w.run(with("postfix", "check", "--json")...)
	if status != failed || !strings.Contains(out, `"severity": "fault"`) {
		t.Errorf("check ended with status %d though no daemon runs: %s", status, out)
	}

	if err := in.Set("mydestination", "localhost, acme.test"); err != nil {
		t.Fatal(err)
	}
	if status, _, errs := w.run("domain", "add", "acme", "acme.test"); status != failed || !strings.Contains(errs, "mydestination") {
		t.Errorf("a domain in mydestination: status %d, %s", status, errs)
	}
	if err := in.Set("mydestination", valueOf(before, "mydestination")); err != nil {
		t.Fatal(err)
	}
	if out := w.must(with("postfix", "remove")...); !strings.Contains(out, "- relay_domains = ") {
		t.Errorf("the removal does not say what it took back: %s", out)
	}
	if now, err := in.Postconf("-n"); err != nil || now != before {
		t.Errorf("the removal left something: %v\n%s\nwhere there was\n%s", err, now, before)
	}
}

// Where a daemon is away whose accounts are there, setup goes on: others' mail does not need it.
func TestSetupSaysWhoseMailWaitsForADaemon(t *testing.T) {
	t.Parallel()
	in := postfixtest.Prepare(t, postfixtest.Config{})
	w := newWorkplace(t, postfix.Instance{ConfigDir: in.ConfigDir()})
	policyd := newPolicyd(t, in)
	policyd.serve(t, "mailbag-policy")
	policyd.serve(t, "mailbag-milter")
	for daemon, add := range map[string][]string{
		"mailbag-popd":  {"account", "add", "dent", "--mode", "pop3", "--domain", "dent.example", "--generate-password"},
		"mailbag-turnd": {"account", "add", "corp", "--mode", "atrn", "--domain", "corp.example", "--generate-password"},
	} {
		_, _, errs := w.run("postfix", "setup", "--config-dir", in.ConfigDir())
		if strings.Contains(errs, daemon) {
			t.Errorf("without an account that needs %s: %s", daemon, errs)
		}
		w.must(add...)
		status, _, errs := w.run("postfix", "setup", "--config-dir", in.ConfigDir())
		if status != done || !strings.Contains(errs, "warning: "+daemon+" does not answer") {
			t.Errorf("%s: status %d, %s", daemon, status, errs)
		}
	}
}

// valueOf is what postconf printed for a parameter.
func valueOf(printed, name string) string {
	for line := range strings.Lines(printed) {
		if v, ok := strings.CutPrefix(line, name+" ="); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func TestWaitingMailKeepsAnAccountUntilItIsReturned(t *testing.T) {
	t.Parallel()
	port, err := postfixtest.FreePort() // where nobody listens
	if err != nil {
		t.Fatal(err)
	}
	in := postfixtest.Run(t, postfixtest.Config{Main: map[string]string{
		"relay_domains":   "acme.example, bolt.example",
		"relay_transport": fmt.Sprintf("relay:[127.0.0.1]:%d", port),
	}})
	w := newWorkplace(t, postfix.Instance{ConfigDir: in.ConfigDir()})
	w.must("account", "add", "acme", "--mode", "backup", "--domain", "acme.example")
	w.must("account", "add", "bolt", "--mode", "backup", "--domain", "bolt.example")
	for _, to := range [][]string{{"a@acme.example"}, {"a@acme.example", "b@ACME.example"}, {"a@bolt.example", "c@bolt.example"}} {
		o, err := postfixtest.Send(in.Addr(), "", postfixtest.Mail{From: "sender@outside.example", To: to, Data: []byte("Subject: test\r\n\r\nbody\r\n")})
		if err != nil || !o.Accepted() {
			t.Fatalf("%+v, %v", o, err)
		}
	}
	if err := in.WaitQueue("3 messages deferred", func(all []postfixtest.Entry) bool {
		deferred := 0
		for _, e := range all {
			if e.Queue == "deferred" {
				deferred++
			}
		}
		return deferred == 3
	}); err != nil {
		t.Fatal(err)
	}

	for _, command := range [][]string{{"account", "delete", "acme"}, {"domain", "remove", "acme", "acme.example"}} {
		status, _, errs := w.run(command...)
		if status != failed || !strings.Contains(errs, "(2 messages, ") || !strings.Contains(errs, "--return") {
			t.Errorf("%q ended with status %d: %s", command, status, errs)
		}
	}
	if out := w.must("account", "delete", "acme", "--return"); !strings.Contains(out, "2 messages returned to the senders") {
		t.Error(out)
	}
	left, err := in.Queue()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range left {
		for _, r := range e.Recipients {
			if strings.HasSuffix(strings.ToLower(r.Address), "@acme.example") {
				t.Errorf("%s still waits for %s", e.ID, r.Address)
			}
		}
	}
	if status, _, errs := w.run("account", "delete", "bolt"); status != failed || !strings.Contains(errs, "(1 message, ") {
		t.Errorf("the mail of another account is not as it was: %s", errs)
	}
}

// TestHeldMailIsReturnedOrMovesToTheNewMode has two messages to different addresses move: of a single one
// qmgr(8) would remember the way for up to 30 s.
func TestHeldMailIsReturnedOrMovesToTheNewMode(t *testing.T) {
	t.Parallel()
	sink := postfixtest.RunSink(t)
	in := postfixtest.Prepare(t, postfixtest.Config{
		Main: map[string]string{
			"relay_domains":    "acme.example, corp.example",
			"defer_transports": "mailbag-turn",
		},
		Master: []string{"mailbag-turn unix - - n - 0 lmtp"},
	})
	w := newWorkplace(t, postfix.Instance{ConfigDir: in.ConfigDir()})
	w.must("account", "add", "acme", "--mode", "etrn", "--domain", "acme.example", "--host", "192.0.2.1", "--network", "192.0.2.1")
	l, err := meter.Open(t.Context(), w.path("mailbag.db"), meter.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	stop := keepTables(l, w.path("tables"), in.Reread)
	defer func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	}()
	if err := in.Set("transport_maps", "cdb:"+w.path("tables")+"/routes"); err != nil {
		t.Fatal(err)
	}
	if err := in.Start(); err != nil {
		t.Fatal(err)
	}
	w.must("account", "add", "corp", "--mode", "atrn", "--domain", "corp.example", "--generate-password")
	for _, to := range []string{"a@acme.example", "x@corp.example", "b@acme.example"} {
		o, err := postfixtest.Send(in.Addr(), "", postfixtest.Mail{From: "sender@outside.example", To: []string{to}, Data: []byte("Subject: test\r\n\r\nbody\r\n")})
		if err != nil || !o.Accepted() {
			t.Fatalf("%+v, %v", o, err)
		}
	}
	if err := in.WaitQueue("3 messages held", func(all []postfixtest.Entry) bool {
		return len(all) == 3 && !slices.ContainsFunc(all, func(e postfixtest.Entry) bool { return e.Queue != "deferred" })
	}); err != nil {
		t.Fatal(err)
	}
	if out := w.must("account", "delete", "corp", "--return"); !strings.Contains(out, "1 message returned to the senders") {
		t.Error(out)
	}
	if out := w.must("account", "set", "acme", "--mode", "backup", "--host", sink.Addr()); !strings.Contains(out, "2 messages for acme released") {
		t.Error(out)
	}
	if _, err := sink.WaitMessages(2); err != nil {
		t.Error(err)
	}
}

func TestCommandsForAnotherMTASaySo(t *testing.T) {
	t.Parallel()
	w := newWorkplace(t, storyMail{})
	for _, command := range []string{"setup", "check", "remove", "step-aside", "step-in"} {
		if status, out, errs := w.run("exim", command); status != failed || out != "" || !strings.Contains(errs, "mailbag runs beside Postfix on this machine") {
			t.Errorf("mailbag exim %s ended with status %d: %s%s", command, status, out, errs)
		}
	}
}
