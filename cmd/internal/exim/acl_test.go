package exim

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	postfixtest "mailbag/testdata/postfix"
)

func TestHeldMailIsCountedAndKeptInItsQueue(t *testing.T) {
	t.Parallel()
	x, p := wired(t, nil)
	s := dial(t, x, "")
	s.mail("a@turn.example", "b@second.example", "C@Turn.Example")
	held := id(s.data("250 OK id="))
	waitsIn(t, x, "mailbag", held)
	q := p.questions("END-OF-MESSAGE")
	if len(q) != 1 {
		t.Fatalf("asked %v", q)
	}
	for name, want := range map[string]string{
		"request": "smtpd_access_policy", "policy_context": "exim", "queue_id": held, "client_address": "127.0.0.1",
		"recipient_domains": "turn.example second.example", "other_recipients": "no", "size": fmt.Sprint(len(content)), "cut": "", "twice": "",
	} {
		if q[0][name] != want {
			t.Errorf("%s=%q, want %q", name, q[0][name], want)
		}
	}
	if len(q[0]["fingerprint"]) != 64 {
		t.Errorf("the fingerprint is %q", q[0]["fingerprint"])
	}
	// The next message of the connection is somebody else's, and is not held.
	p.answers(dunno)
	s.mail("x@local.example")
	others := id(s.data("250 OK id="))
	if err := x.WaitLog("=> :blackhole: <x@local.example>"); err != nil {
		t.Error(err)
	}
	for line := range strings.Lines(x.Log()) {
		if strings.Contains(line, others+" <= ") && strings.Contains(line, "Q=mailbag") {
			t.Errorf("it was in the queue of held mail: %s", line)
		}
	}
	if n := len(p.questions("RCPT")) + len(p.questions("END-OF-MESSAGE")); n > 0 {
		t.Errorf("others' mail is asked about %d times", n)
	}
	if out, err := x.Command("/usr/sbin/exim4", "-qff").CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	waitsIn(t, x, "mailbag", held)
}

func TestAMessageIsHeldWholeOrNotAtAll(t *testing.T) {
	t.Parallel()
	x, p := wired(t, nil)
	s := dial(t, x, "")
	s.mail("a@turn.example")
	s.say("RCPT TO:<x@local.example>", "452 4.5.3")
	s.say("RCPT TO:<m@pop.example>", "452 4.5.3")
	s.say("RCPT TO:<b@second.example>", "250")
	waitsIn(t, x, "mailbag", id(s.data("250")))
	s.mail("x@local.example", "m@pop.example")
	s.say("RCPT TO:<a@turn.example>", "452 4.5.3")
	waitsIn(t, x, "", id(s.data("250")))
	q := p.questions("END-OF-MESSAGE")
	if len(q) != 2 || q[1]["recipient_domains"] != "pop.example" || q[1]["other_recipients"] != "yes" {
		t.Errorf("asked %v", q)
	}
	// A recipient that is refused has no part in it.
	s.say("MAIL FROM:<s@elsewhere.example>", "250")
	s.say("RCPT TO:<x@unknown.example>", "550 relay not permitted")
	s.say("RCPT TO:<a@turn.example>", "250")
	s.say("RSET", "250")
	s.mail("x@local.example")
}

func TestAnswersReachTheClient(t *testing.T) {
	t.Parallel()
	x, p := wired(t, nil)
	s := dial(t, x, "")
	s.say("MAIL FROM:<s@elsewhere.example>", "250")
	for answer, want := range map[string]string{
		"action=550 5.1.1 <a>: no such ${run{/bin/false}} $local_part user\n\n": "550 5.1.1 <a>: no such ${run{/bin/false}} $local_part user",
		"action=552 5.2.2 full\n\n":  "552 5.2.2 full",
		"action=452 4.2.2 later\n\n": "452 4.2.2 later",
		"action=450 4.2.0 ${if\n\n":  "450 4.2.0 ${if",
		"action=DUNNO\n\n":           "250",
	} {
		p.answers(func(question) string { return answer })
		s.say("RCPT TO:<a@turn.example>", want)
	}
	for answer, want := range map[string]string{"452 4.2.2 no more": "452 4.2.2 no more", "552 5.2.2 too much": "552 5.2.2 too much", "451 4.3.0 ledger": "451 4.3.0 ledger"} {
		p.answers(func(q question) string {
			if q["protocol_state"] == "END-OF-MESSAGE" {
				return "action=" + answer + "\n\n"
			}
			return dunno(q)
		})
		s.say("RSET", "250")
		s.mail("a@turn.example")
		s.data(want)
	}
	if n := strings.Count(x.Log(), " <= "); n > 0 {
		t.Errorf("%d messages were taken", n)
	}
}

// What is no whole answer is none: the accounts' mail is put off, and others' goes on in the same connection.
func TestWithoutAnAnswerOnlyTheAccountsMailWaits(t *testing.T) {
	t.Parallel()
	x, p := wired(t, nil)
	for _, answer := range []string{"", "action=DUNNO", "action=DUNNO\n", "action=OK\n\n", "DUNNO\n\n", "action=DUNNO\n\nmore", "action=250 2.0.0 ok\n\n",
		"action=550\n\n", "action=550 5.1.1\n\n", "${run{/bin/false}}", strings.Repeat("x", 100_000)} {
		p.answers(func(question) string { return answer })
		s := dial(t, x, "")
		s.say("MAIL FROM:<s@elsewhere.example>", "250")
		s.say("RCPT TO:<a@turn.example>", "451 4.3.0 Temporary failure, try again later")
		s.say("RCPT TO:<b@second.example>", "451 4.3.0")
		s.say("RCPT TO:<x@local.example>", "250")
		s.data("250")
		s.say("ETRN turn.example", "458 4.3.0")
		s.say("QUIT", "221")
		if n := len(p.questions("RCPT")); n != 1 {
			t.Errorf("%.40q: asked %d times in one connection", answer, n)
		}
	}
}

// What Exim keeps of a socket that it could not connect must not cost it a file of a later message.
func TestWithoutASocketOthersMailGoesOn(t *testing.T) {
	t.Parallel()
	x, p := wired(t, nil)
	taken := 0
	for _, c := range []struct {
		name string
		lose func(path string) error
	}{
		{"none", os.Remove},
		{"nobody listens", func(path string) error {
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
			if err != nil {
				return err
			}
			l.SetUnlinkOnClose(false)
			return errors.Join(os.Chmod(path, 0o666), l.Close())
		}},
		{"not for Exim", func(path string) error {
			l, err := net.Listen("unix", path)
			if err != nil {
				return err
			}
			t.Cleanup(func() { l.Close() })
			return os.Chmod(path, 0o600)
		}},
	} {
		p.stop()
		if err := c.lose(x.Root(policySocket)); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("%s: %v", c.name, err)
		}
		for _, commands := range [][]string{ // before others' mail in the same connection
			{"RCPT TO:<a@turn.example>"},
			{"RCPT TO:<a@pop.example>"},
			{"RCPT TO:<a@mx.example>", "RCPT TO:<a@turn.example>"},
			{"ETRN turn.example"},
			{},
		} {
			s := dial(t, x, "")
			for range 3 {
				for _, command := range commands {
					want := "451 4.3.0"
					if strings.HasPrefix(command, "ETRN") {
						want = "458 4.3.0"
					} else {
						s.say("MAIL FROM:<s@elsewhere.example>", "250")
					}
					s.say(command, want)
					s.say("RSET", "250")
				}
				s.mail("x@local.example")
				for _, command := range commands {
					if strings.HasPrefix(command, "RCPT") {
						s.say(command, "45")
					}
				}
				s.data("250 OK id=")
				taken++
			}
			s.say("QUIT", "221")
		}
		// Several messages of one process of this host, which are taken without being counted.
		var messages strings.Builder
		for _, to := range []string{"a@turn.example", "x@local.example", "a@pop.example", "x@local.example"} {
			fmt.Fprintf(&messages, "MAIL FROM:<root@local.example>\nRCPT TO:<%s>\nDATA\nSubject: x\n\nhello\n.\n", to)
			taken++
		}
		batch := x.Command("/usr/sbin/exim4", "-bS")
		batch.Stdin = strings.NewReader(messages.String())
		if out, err := batch.CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", c.name, err, out)
		}
		idle(t, x) // or what is delivered late is counted, and taken once more to wait
		// It is back, and so is the mail, in the next connection.
		p.listen(t, x)
		s := dial(t, x, "")
		s.mail("a@turn.example")
		s.data("250")
		s.say("QUIT", "221")
		taken++
	}
	if n := strings.Count(x.Log(), " <= "); n != taken {
		t.Errorf("%d messages are in the log, want %d", n, taken)
	}
	if panics, err := os.ReadFile(x.Root("/var/log/exim4/paniclog")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Exim panics: %s, %v", panics, err)
	}
}

func TestETRNAnswersAsRFC1985(t *testing.T) {
	t.Parallel()
	x, p := wired(t, nil)
	for _, c := range []struct{ argument, domain, answer, want string }{
		{"turn.example", "turn.example", "250 2.0.0 OK, queuing for node turn.example started", "250 2.0.0 OK, queuing for node turn.example started"},
		{"@turn.example", "turn.example", "251 2.0.0 OK, no messages waiting for node turn.example", "251 2.0.0 OK, no messages"},
		{"turn.example", "turn.example", "252 2.0.0 OK, pending messages for node turn.example started", "252 2.0.0 OK, pending"},
		{"#turn.example", "turn.example", "253 2.0.0 OK, 7 pending messages for node turn.example started", "253 2.0.0 OK, 7 pending"},
		{"x.example", "x.example", "459 4.7.1 Node x.example not allowed: why", "459 4.7.1 Node x.example not allowed: why"},
		{"x.example", "x.example", "458 4.3.0 Unable to queue", "458 4.3.0 Unable to queue"},
		{"..", "..", "501 5.5.4 Syntax", "459 4.5.4 Syntax"},
		{"${run{/bin/false}}", "${run{/bin/false}}", "459 4.7.1 Node not allowed", "459 4.7.1 Node not allowed"},
		{"a\x01b\tc", "abc", "459 4.7.1 Node not allowed", "459 4.7.1 Node not allowed"},
	} {
		p.answers(func(question) string { return "action=" + c.answer + "\n\n" })
		dial(t, x, "").say("ETRN "+c.argument, c.want)
		if q := p.questions("ETRN"); len(q) != 1 || q[0]["etrn_domain"] != c.domain || q[0]["client_address"] != "127.0.0.1" {
			t.Errorf("%s: asked %v", c.argument, q)
		}
	}
	// Each once, also when they come together.
	p.answers(func(q question) string { return "action=250 2.0.0 OK, " + q["etrn_domain"] + "\n\n" })
	s := dial(t, x, "")
	if _, err := s.Write([]byte("ETRN a.example\r\nETRN b.example\r\nNOOP\r\n")); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"250 2.0.0 OK, a.example", "250 2.0.0 OK, b.example", "250 OK"} {
		if reply, err := s.Reply(); err != nil || reply != want {
			t.Errorf("%q, %v, want %q", reply, err, want)
		}
	}
}

func TestPRDRRefusesOneRecipientAndCountsTheOthers(t *testing.T) {
	t.Parallel()
	x, p := wired(t, nil)
	asked := map[string]int{}
	p.answers(func(q question) string {
		if r := q["recipient"]; r != "" {
			p.mu.Lock()
			asked[r]++
			n := asked[r]
			p.mu.Unlock()
			if r == "a@turn.example" && n == 2 {
				return "action=452 4.2.2 no more\n\n"
			}
		}
		return dunno(q)
	})
	s := dial(t, x, "")
	s.say("MAIL FROM:<s@elsewhere.example> PRDR", "250")
	s.say("RCPT TO:<a@turn.example>", "250")
	s.say("RCPT TO:<b@second.example>", "250")
	s.data("353")
	for _, want := range []string{"452 4.2.2 no more", "250", "250"} {
		if reply, err := s.Reply(); err != nil || !strings.HasPrefix(reply, want) {
			t.Errorf("%q, %v, want %s", reply, err, want)
		}
	}
	q := p.questions("END-OF-MESSAGE")
	if len(q) != 1 || q[0]["recipient_domains"] != "second.example" {
		t.Errorf("asked %v", q)
	}
}

func TestAMessageWhoseClientHasGoneIsTakenBack(t *testing.T) {
	t.Parallel()
	x, p := wired(t, nil)
	gone := make(chan struct{})
	p.answers(func(q question) string {
		if q["protocol_state"] == "END-OF-MESSAGE" {
			<-gone
		}
		return dunno(q)
	})
	s := dial(t, x, "")
	s.mail("a@turn.example")
	s.say("DATA", "354")
	if _, err := s.Write([]byte(content + ".\r\n")); err != nil {
		t.Fatal(err)
	}
	if err := postfixtest.Wait("the message to be counted", func() bool { return len(p.questions("END-OF-MESSAGE")) == 1 }); err != nil {
		t.Fatal(err)
	}
	s.Close()
	close(gone)
	if err := postfixtest.Wait("the message to be taken back", func() bool { return len(p.questions("CANCEL")) == 1 }); err != nil {
		t.Fatal(err)
	}
	if counted, back := p.questions("END-OF-MESSAGE")[0]["queue_id"], p.questions("CANCEL")[0]["queue_id"]; counted == "" || counted != back {
		t.Errorf("%s was counted, and %s taken back", counted, back)
	}
	if strings.Contains(x.Log(), " <= ") {
		t.Error("the message was accepted")
	}
	// One that was answered is not taken back, however its client leaves.
	p.answers(dunno)
	s = dial(t, x, "")
	s.mail("a@turn.example")
	s.data("250")
	s.Close()
	if err := x.WaitLog("lost"); err != nil {
		t.Log(err)
	}
	if n := len(p.questions("CANCEL")); n > 0 {
		t.Error("an accepted message was taken back")
	}
}

// A name of this host's may lead to an account. What goes on there waits under the account's, and has not come for it.
// Without an answer a program's mail is taken, and goes on when it is counted.
// Where Exim may find no room for a message's head it is not counted, from whomever it comes.
// Postfix tells no milter of its own bounces either.
// One that hangs is not waited for again in the connection.
func TestAHangCostsAConnectionItsTimeOnce(t *testing.T) {
	t.Parallel()
	x, p := wired(t, nil)
	over := make(chan struct{})
	defer close(over)
	p.answers(func(question) string { <-over; return "" })
	s := dial(t, x, "")
	s.say("MAIL FROM:<s@elsewhere.example>", "250")
	for range 3 {
		s.say("RCPT TO:<a@turn.example>", "451 4.3.0")
	}
	s.say("RCPT TO:<x@local.example>", "250")
	s.data("250")
	if n := len(p.questions("RCPT")); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

// The question at the end has all domains of a message, and mailbag-policyd reads no question of any length.
func TestDomainsOfAMessageAreBounded(t *testing.T) {
	t.Parallel()
	more := map[string]string{}
	for i := range 700 {
		more[longDomain(i)] = `transport=turn queue=mailbag account=many verify=no`
	}
	x, p := wired(t, more)
	p.answers(dunno)
	s := dial(t, x, "")
	s.mail("a@" + longDomain(0))
	taken := 1
	for ; taken < 700; taken++ {
		reply := s.say("RCPT TO:<a@"+longDomain(taken)+">", "")
		if strings.HasPrefix(reply, "452 4.5.3 Too many domains") {
			break
		}
		if !strings.HasPrefix(reply, "250") {
			t.Fatal(reply)
		}
	}
	s.data("250")
	q := p.questions("END-OF-MESSAGE")
	if len(q) != 1 || len(q[0]["recipient_domains"]) > 41000 || len(strings.Fields(q[0]["recipient_domains"])) != taken || taken < 600 || taken == 700 {
		t.Errorf("%d domains were taken, asked %.200v", taken, q)
	}

	to := []string{"-i", "-oee", "-f", "cron@local.example", "--"}
	for i := range 700 {
		to = append(to, "a@"+longDomain(i))
	}
	cmd := x.Command("/usr/sbin/sendmail", to...)
	cmd.Stdin = strings.NewReader("Subject: x\n\nhello\n")
	_ = cmd.Run() // its sender hears by mail
	if err := x.WaitLog("rejected by non-SMTP ACL: Too many domains for one message"); err != nil {
		t.Error(err)
	}
	if q := p.questions("END-OF-MESSAGE"); len(q) != 1 {
		t.Errorf("asked %d times", len(q))
	}
}

func longDomain(i int) string { return fmt.Sprintf("a%03d%s.example", i, strings.Repeat("a", 50)) }
