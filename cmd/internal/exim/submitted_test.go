package exim

import (
	"fmt"
	"strings"
	"testing"

	"mailbag/cmd/internal/mta"
	eximtest "mailbag/testdata/exim"
	postfixtest "mailbag/testdata/postfix"
)

func TestProgramsMailIsCounted(t *testing.T) {
	t.Parallel()
	x, p := wired(t, nil)
	send := func(from string, to ...string) string {
		cmd := x.Command("/usr/sbin/sendmail", append([]string{"-i", "-oee", "-f", from, "--"}, to...)...)
		cmd.Stdin = strings.NewReader(strings.ReplaceAll(content, "\r\n", "\n"))
		out, _ := cmd.CombinedOutput()
		return string(out)
	}
	send("cron@local.example", "a@turn.example", "x@local.example", "m@pop.example")
	q := p.questions("END-OF-MESSAGE")
	if len(q) != 1 || q[0]["recipient_domains"] != "turn.example pop.example" || q[0]["other_recipients"] != "yes" || q[0]["client_address"] != "" || q[0]["size"] != fmt.Sprint(len(content)) {
		t.Errorf("asked %v", q)
	}
	// A limit refuses it, and its sender is told; a bounce is not refused.
	p.answers(func(question) string { return "action=552 5.2.2 too much\n\n" })
	send("cron@local.example", "a@turn.example")
	if err := x.WaitLog("rejected by non-SMTP ACL: 552 5.2.2 too much"); err != nil {
		t.Error(err)
	}
	before := strings.Count(x.Log(), " <= <> U=root")
	send("<>", "a@turn.example")
	if n := strings.Count(x.Log(), " <= <> U=root"); n != before+1 {
		t.Errorf("a message with the null sender was not taken:\n%s", x.Log())
	}
}

func TestForwardedMailWaitsForTheTurnUnderItsOwnName(t *testing.T) {
	t.Parallel()
	x, p := wired(t, nil)
	aliases := `printf 'ali: "a $b, c"@turn.example, m@pop.example, x@local.example\n' >> /etc/aliases`
	if out, err := x.Command("/bin/sh", "-c", aliases).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s := dial(t, x, "")
	s.mail("ali@" + eximtest.Hostname)
	s.say("DATA", "354")
	came := id(s.say("Subject: x\r\n\r\n..\r\n..hidden\r\n.", "250"))
	var forwarded []mta.Entry
	if err := postfixtest.Wait("the message to go on", func() bool {
		forwarded = nil
		err := spool(x.Root("/var/spool/exim4")).list(t.Context(), func(e mta.Entry) error {
			if e.ID != came {
				forwarded = append(forwarded, e)
			}
			return nil
		})
		return err == nil && len(forwarded) == 1 && strings.Contains(x.Log(), "m@pop.example <ali@")
	}); err != nil {
		t.Fatal(err)
	}
	if e := forwarded[0]; e.Sender != "sender@elsewhere.example" || len(e.Recipients) != 1 || e.Recipients[0].Address != `"a $b, c"@turn.example` {
		t.Errorf("%+v waits", e)
	}
	text, err := x.Command("/usr/sbin/exim4", "-Mvb", forwarded[0].ID).CombinedOutput()
	if _, body, _ := strings.Cut(string(text), "-D\n"); err != nil || body != ".\n.hidden\n" {
		t.Errorf("it has %q, %v", text, err)
	}
	if q := p.questions("END-OF-MESSAGE"); len(q) > 0 {
		t.Errorf("it is counted: %v", q)
	}
}

func TestProgramsMailWaitsUntilItIsCounted(t *testing.T) {
	t.Parallel()
	x, p := wired(t, nil)
	run := func(name string, args ...string) {
		t.Helper()
		cmd := x.Command(name, args...)
		cmd.Stdin = strings.NewReader(strings.ReplaceAll(content, "\r\n", "\n"))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", name, err, out)
		}
	}
	wait := func(text string) {
		t.Helper()
		if err := x.WaitLog(text); err != nil {
			t.Error(err)
		}
	}
	for _, answer := range []string{"", "action=451 4.3.0 ledger\n\n"} {
		p.answers(func(question) string { return answer })
		run("/usr/sbin/sendmail", "-i", "-f", "cron@local.example", "--", "a@turn.example", "m@pop.example", "x@local.example")
	}
	wait(`is not counted yet: "action=451 4.3.0 ledger`)
	p.stop()
	run("/usr/sbin/sendmail", "-i", "-f", "cron@local.example", "--", "a@turn.example", "m@pop.example", "x@local.example")
	wait("is not counted yet: down")
	idle(t, x)
	run("/usr/sbin/exim4", "-qff")
	if n := strings.Count(x.Log(), "=> :blackhole: <x@local.example>"); n != 3 {
		t.Errorf("others have %d of the 3 messages", n)
	}
	if strings.Contains(x.Log(), "T=mailbag_") {
		t.Errorf("mail goes on that is not counted:\n%s", x.Log())
	}
	uncounted := 0
	if err := spool(x.Root("/var/spool/exim4")).list(t.Context(), func(e mta.Entry) error {
		if e.Uncounted && len(e.Recipients) == 2 {
			uncounted++
		}
		return nil
	}); err != nil || uncounted != 3 {
		t.Errorf("%d of 3 messages are listed as uncounted, %v", uncounted, err)
	}
	p.answers(dunno)
	p.listen(t, x)
	run("/usr/sbin/exim4", "-qff")
	for _, way := range []string{"a@turn.example R=mailbag_turn T=", "m@pop.example R=mailbag_pop T="} {
		if n := strings.Count(x.Log(), way); n != 3 {
			t.Errorf("%s: %d of the 3 messages", way, n)
		}
	}
	for _, q := range p.questions("END-OF-MESSAGE") {
		if q["recipient_domains"] != "turn.example pop.example" || q["other_recipients"] != "yes" || q["client_address"] != "" || q["size"] != fmt.Sprint(len(content)) ||
			!strings.Contains(q["received"], " id "+q["queue_id"]+";") {
			t.Errorf("asked %v", q)
		}
	}
	// A limit that was reached meanwhile returns it.
	p.stop()
	run("/usr/sbin/sendmail", "-i", "-f", "cron@local.example", "--", "b@turn.example")
	idle(t, x)
	p.answers(func(question) string { return "action=552 5.2.2 too much\n\n" })
	p.listen(t, x)
	run("/usr/sbin/exim4", "-qff")
	wait("** b@turn.example R=mailbag_uncounted: 552 5.2.2 too much")
}

func TestWhatEximMayNotComeToWriteIsNotCounted(t *testing.T) {
	t.Parallel()
	x, p := wired(t, nil, func(x *eximtest.Instance) {
		if out, err := x.Command("mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=16m,mode=750,uid=%d,gid=%[1]d", x.Gid()), "tmpfs", "/var/spool/exim4").CombinedOutput(); err != nil {
			t.Skipf("no file system can be mounted here: %s", out)
		}
	})
	room := func(script string) {
		t.Helper()
		if out, err := x.Command("/bin/sh", "-c", script).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	submit := func() {
		cmd := x.Command("/usr/sbin/sendmail", "-i", "-oee", "-f", "cron@local.example", "--", "a@turn.example")
		cmd.Stdin = strings.NewReader("Subject: x\n\nhello\n")
		_ = cmd.Run() // refused, or not
	}
	s := dial(t, x, "")
	s.mail("a@turn.example")
	room("cd /var/spool/exim4; dd if=/dev/zero of=fill bs=4096 2>/dev/null; truncate -s -12288 fill")
	s.data("452 4.3.1 Insufficient system storage")
	submit()
	if q := p.questions("END-OF-MESSAGE"); len(q) > 0 {
		t.Errorf("asked %v", q)
	}
	room("rm /var/spool/exim4/fill")
	s.mail("a@turn.example")
	s.data("250")
	submit()
	if q := p.questions("END-OF-MESSAGE"); len(q) != 2 {
		t.Errorf("asked %v", q)
	}
}

func TestWhatEximSaysOfOtherMailIsNotCounted(t *testing.T) {
	t.Parallel()
	x, p := wired(t, nil)
	cmd := x.Command("/usr/sbin/sendmail", "-i", "-f", "a@turn.example", "--", "nosuch@"+eximtest.Hostname)
	cmd.Stdin = strings.NewReader("Subject: x\n\nhello\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := x.WaitLog(" <= <> R="); err != nil {
		t.Fatal(err)
	}
	_, of, _ := strings.Cut(x.Log(), " <= <> R=")
	if err := x.WaitLog(of[:16] + " Completed"); err != nil {
		t.Error(err)
	}
	if q := p.questions("END-OF-MESSAGE"); len(q) > 0 {
		t.Errorf("a bounce is counted: %v", q)
	}
}
