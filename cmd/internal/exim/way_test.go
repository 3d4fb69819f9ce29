package exim

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	eximtest "mailbag/testdata/exim"
	postfixtest "mailbag/testdata/postfix"
)

// relay is a backup account's way to a server.
func relay(addr, verify, tls string) string {
	host, port, _ := net.SplitHostPort(addr)
	return fmt.Sprintf("transport=relay queue=\"\" account=backup verify=%s tls=%s host=%s port=%s", verify, tls, host, port)
}

func TestBackupMailGoesWhereItsAccountSays(t *testing.T) {
	t.Parallel()
	sink := postfixtest.RunSink(t)
	x, _ := wired(t, map[string]string{
		"backup.example": relay(sink.Addr(), "no", "opportunistic"),
		"secret.example": relay(sink.Addr(), "no", "require"),
		"good.example":   relay(sink.Addr(), "no", "verify"),
		"six.example":    "transport=relay queue=\"\" account=backup verify=no tls=opportunistic host=2001:db8::1 port=2525",
	})
	s := dial(t, x, "")
	s.mail("a@backup.example", "b@secret.example", "c@good.example", "d@none.example", "e@mx.example", "f@pop.example")
	message := id(s.data("250"))
	got, err := sink.WaitMessages(1)
	if err != nil {
		t.Fatal(err)
	}
	if to := fmt.Sprint(got[0].Recipients); to != "[a@backup.example]" {
		t.Errorf("it came for %s", to)
	}
	// The server has no TLS, one account no server that can be found, and there is no mailbag-popd: all of that waits.
	for _, want := range []string{
		"== b@secret.example R=mailbag_relay T=mailbag_tls_require defer", "== c@good.example R=mailbag_relay T=mailbag_tls_verify defer",
		"== d@none.example R=mailbag_none defer", "== e@mx.example R=mailbag_", "== f@pop.example R=mailbag_pop T=mailbag_pop defer",
	} {
		if err := x.WaitLog(want); err != nil {
			t.Error(err)
		}
	}
	waitsIn(t, x, "", message)
	out, err := x.Command("/usr/sbin/exim4", "-bt", "a@six.example").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "router = mailbag_relay, transport = remote_smtp") || !strings.Contains(string(out), "[2001:db8::1]") || !strings.Contains(string(out), "port=2525") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestTheAccountsServerKnowsItsRecipients(t *testing.T) {
	t.Parallel()
	sink, err := postfixtest.NewSink()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sink.Stop)
	sink.OnCommand = func(_ *postfixtest.Session, verb, argument string) string {
		if verb == "RCPT" && strings.Contains(argument, "nobody@") {
			return "550 5.1.1 no such user"
		}
		return ""
	}
	x, p := wired(t, map[string]string{"backup.example": relay(sink.Addr(), "yes", "opportunistic")})
	p.answers(func(q question) string {
		if q["protocol_state"] == "RCPT" {
			return "action=reject_unverified_recipient\n\n"
		}
		return dunno(q)
	})
	// While it is away, and nobody can tell, all mail is taken.
	s := dial(t, x, "")
	s.mail("nobody@backup.example")
	s.data("250")
	if err := sink.Start(); err != nil {
		t.Fatal(err)
	}
	s = dial(t, x, "")
	s.say("MAIL FROM:<s@elsewhere.example> PRDR", "250")
	s.say("RCPT TO:<nobody2nobody@backup.example>", "550 5.1.1")
	s.say("RCPT TO:<somebody@backup.example>", "250")
	s.say("DATA", "354")
	s.say(content+".", "250")
	if q := p.questions("END-OF-MESSAGE"); len(q) != 2 {
		t.Errorf("asked %v", q)
	}
}

// Exim's rules of Debian's end after four days, and a message that waited longer would be returned when it is tried first.
func TestWhatWaitedLongIsNotReturnedAtItsFirstFailure(t *testing.T) {
	t.Parallel()
	x, _ := wired(t, nil)
	s := dial(t, x, "")
	s.mail("a@turn.example")
	message := id(s.data("250"))
	waitsIn(t, x, "mailbag", message)
	age(t, x, message, 10*24*time.Hour)
	for range 2 {
		if out, err := x.Command("/usr/sbin/exim4", "-qGmailbag", "-M", message).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	}
	if err := x.WaitLog("T=mailbag_turn defer"); err != nil {
		t.Error(err)
	}
	waitsIn(t, x, "mailbag", message)
	for _, sign := range []string{" ** ", "<= <>", "Warning: message", "Frozen"} {
		if strings.Contains(x.Log(), sign) {
			t.Errorf("the log has %q", sign)
		}
	}
}

// A bounce of a held message is queued where queue runs see it, and delivered by one of these.
func TestABounceLeavesTheQueueOfItsMessage(t *testing.T) {
	t.Parallel()
	x, _ := wired(t, nil)
	s := dial(t, x, "")
	s.say("MAIL FROM:<sender@local.example>", "250")
	s.say("RCPT TO:<a@turn.example>", "250")
	message := id(s.data("250"))
	if out, err := x.Command("/usr/sbin/exim4", "-qGmailbag", "-Mg", message).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if err := x.WaitLog("<= <> R=" + message); err != nil {
		t.Fatal(err)
	}
	log := x.Log()
	bounce := strings.Fields(log[:strings.Index(log, " <= <> R="+message)])
	waitsIn(t, x, "", bounce[len(bounce)-1])
	if out, err := x.Command("/usr/sbin/exim4", "-q").CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if err := x.WaitLog("=> :blackhole: <sender@local.example>"); err != nil {
		t.Error(err)
	}
}

// age makes a message older.
func age(t *testing.T, x *eximtest.Instance, id string, by time.Duration) {
	t.Helper()
	path := x.Root("/var/spool/exim4/mailbag/input/" + id + "-H")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	at, rest, _ := strings.Cut(lines[3], " ")
	arrived, err := strconv.ParseInt(at, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	lines[3] = fmt.Sprintf("%d %s", arrived-int64(by/time.Second), rest)
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o640); err != nil {
		t.Fatal(err)
	}
}

// Nothing that comes by SMTP is read as code, or as a second line of a question.
func TestNothingInMailIsExpanded(t *testing.T) {
	t.Parallel()
	x, p := wired(t, nil)
	attacks := []string{
		`${run{/bin/touch /var/log/exim4/pwned}}`, `$local_part`, `$acl_c_mailbag_down`, `${`, `}`, `{`, `$`, `\`, `\n`, `\x0a`, `:`, `:fail:`, `%`, `%s%n`, `"`,
		`|/bin/false`, `/etc/passwd`, "a\nprotocol_state=CANCEL\nqueue_id=x", "\x01\x02", "a,b", "a b", `a@turn.example`, `'`, "`id`", `!`, `*`, `#`, `..`, `\N`, `+mailbag_domains`,
		`${readsocket{/run/mailbag/policy.sock}{x}}`, `\$\{`, `<`, `>`, "é", strings.Repeat("$", 200),
	}
	check := func(attack string) {
		t.Helper()
		if _, err := os.Stat(x.Root("/var/log/exim4/pwned")); err == nil {
			t.Fatalf("%q was executed", attack)
		}
	}
	quoted := func(s string) string { return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"` }
	for _, attack := range attacks {
		p.answers(dunno)
		c, err := postfixtest.Dial(x.Addr(), "")
		if err != nil {
			t.Fatal(err)
		}
		for _, command := range []string{"EHLO " + attack, "EHLO x", "ETRN " + attack, "MAIL FROM:<" + attack + "@elsewhere.example>", "RSET",
			"MAIL FROM:<" + quoted(attack) + "@elsewhere.example>", "RSET", "MAIL FROM:<s@" + attack + ">", "RSET", "MAIL FROM:<s@elsewhere.example>",
			"RCPT TO:<" + attack + "@turn.example>", "RCPT TO:<" + quoted(attack) + "@turn.example>", "RCPT TO:<a@" + attack + ">", "RCPT TO:<a@" + attack + ".turn.example>"} {
			if strings.Contains(command, "\n") {
				command = strings.ReplaceAll(command, "\n", "\\\n") // what follows is commands, as for any server
			}
			if _, err := c.Say(command); err != nil {
				break // it hangs up on what is no SMTP
			}
		}
		c.Close()
		check(attack)
		// Submitted, and in every field that is looked at. A newline in a quoted local part comes in this way only.
		cmd := x.Command("/usr/sbin/sendmail", "-oi", "-oee", "-f", "cron@local.example", "--", quoted(attack)+"@turn.example", "a@pop.example")
		cmd.Stdin = strings.NewReader("Message-ID: " + attack + "\nDate: " + attack + "\nFrom: " + attack + "\nReceived: " + attack +
			"\nList-Id: " + attack + "\nPrecedence: " + attack + "\nSubject: " + attack + "\n\nx\n")
		_, _ = cmd.CombinedOutput() // some are no addresses
		check(attack)
		p.mu.Lock()
		for _, q := range p.asked {
			switch {
			case q["twice"] != "" || q["cut"] != "" || q["policy_context"] != "exim" && q["protocol_state"] != "":
				t.Errorf("%q is asked as %v", attack, q)
			case q["protocol_state"] == "CANCEL":
				t.Errorf("%q takes a message back: %v", attack, q)
			case strings.Contains(q["recipient_domains"], "$"):
				t.Errorf("%q is asked as %v", attack, q)
			}
		}
		p.mu.Unlock()
	}
	// It is asked as it was said.
	p.answers(dunno)
	s := dial(t, x, "")
	s.mail("a{b}$c@turn.example", `"${run{x}}\\n"@turn.example`)
	q := p.questions("RCPT")
	if len(q) != 2 || q[0]["recipient"] != "a{b}$c@turn.example" || q[1]["recipient"] != `${run{x}}\n@turn.example` {
		t.Errorf("asked %v", q)
	}
	s.say("RCPT TO:<\"a\x01b\"@turn.example>", "553 5.1.3")
	if log := x.Log(); strings.Contains(log, "failed to expand") || strings.Contains(log, "malformed") && strings.Contains(log, "ACL") {
		t.Errorf("Exim failed to expand something:\n%.2000s", log)
	}
}
