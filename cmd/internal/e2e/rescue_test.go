package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	postfixtest "mailbag/testdata/postfix"
)

// TestMailForADeadServerIsReadFromAMailbox takes an account from relaying to a mailbox and back, while its server is away
// and after it returned.
func TestMailForADeadServerIsReadFromAMailbox(t *testing.T) {
	s := beginPOP(t)
	server, err := postfixtest.NewSink()
	s.must(err)
	t.Cleanup(server.Stop)
	s.account("acme", "backup", "acme.example", "--host", server.Addr(), "--recipients", "verify")
	s.must(s.Wire()) // now that an account verifies
	s.must(s.mta.Reload())
	s.waits(2, "info@acme.example")

	set := func(args ...string) (says string) {
		t.Helper()
		out, errs, err := s.Mailbag(append([]string{"account", "set", "acme"}, args...)...)
		if err != nil {
			t.Fatalf("account set %q: %v", args, err)
		}
		return out + errs
	}
	if _, errs, err := s.Mailbag("account", "set", "acme", "--mode", "pop3"); err == nil || !strings.Contains(errs, "set recipients to any or list") {
		t.Errorf("with recipients that the server is asked about: %v\n%s", err, errs)
	}
	says := set("--mode", "pop3", "--recipients", "any")
	for _, next := range []string{`"mailbag passwd acme" gives it one`, `"mailbag account sheet acme"`} {
		if !strings.Contains(says, next) {
			t.Errorf("it does not say %s:\n%s", next, says)
		}
	}
	_, password, _ := strings.Cut(s.mailbag("passwd", "acme", "--generate-password"), "password: ")
	b := box{s: s, user: "acme", password: strings.TrimSpace(password)}
	loggedIn := func() bool {
		c, err := popLogin(s.POP3, b.user, b.password)
		if err == nil {
			_, err = c.say("QUIT") // once it is answered the next one may come
			c.Close()
		}
		return err == nil
	}
	stored := s.stored(s.maildir("acme", ""), 2)
	s.waitFor("an empty queue", func() bool { return s.queued() == 0 })
	s.waitFor("the log-in", loggedIn)
	fetch := func(to string, want []string) {
		t.Helper()
		b.dir = s.mta.Path(to)
		s.must(os.MkdirAll(filepath.Join(b.dir, "got"), 0o700))
		clients["fetchmail"](b)
		if got := s.read(filepath.Join(b.dir, "got")); strings.Join(got, "") != strings.Join(want, "") {
			t.Errorf("fetched was\n%q\nwant\n%q", got, want)
		}
	}
	fetch("rescued", stored)
	if got := s.usage("acme").Messages; got != 2 {
		t.Errorf("%d messages are counted, want each once", got)
	}

	// The server returns, and what was not fetched is said to be left, with what to do.
	data, _ := letter("the last for the mailbox", 1)
	s.accept(data, "info@acme.example")
	stored = s.stored(s.maildir("acme", ""), 1)
	s.must(server.Start())
	says = set("--mode", "backup", "--recipients", "verify")
	if !strings.Contains(says, "1 message, ") || !strings.Contains(says, `"mailbag account set acme --mode pop3" lets it be fetched again`) {
		t.Errorf("it does not say what is left:\n%s", says)
	}
	s.waitFor("the end of the log-in", func() bool { return !loggedIn() })
	s.accept(data, "info@acme.example")
	_, err = server.WaitMessages(1)
	s.must(err)

	set("--mode", "pop3", "--recipients", "any")
	s.waitFor("the log-in", loggedIn)
	fetch("left", stored)
}
