package e2e

import (
	"path/filepath"
	"strings"
	"testing"

	postfixtest "mailbag/testdata/postfix"
)

// TestMailComesToEveryMailboxOrItIsSaidThatItDoesNot makes mailboxes of strange names. Mail from outside has to come to
// each, unless "mailbag mailbox add" has said that it will not; and where Postfix is set as that said, to those too.
func TestMailComesToEveryMailboxOrItIsSaidThatItDoesNot(t *testing.T) {
	s := beginPostfix(t, "the names that it refuses are others", postfixtest.Config{Main: map[string]string{"smtputf8_enable": "yes"}}, nil)
	s.must(s.Popd.Start())
	s.account("dent", "pop3", "dent.example", "--catch-all", "no")
	mails := func(local string) bool {
		t.Helper()
		data, _ := letter(local, 1)
		accepted, err := s.sendTo("", local+"@dent.example", data)
		s.must(err)
		return accepted
	}
	var boxes, deaf []string
	for _, local := range []string{
		"user+tag", "+x", "o'brien", "a/b", "|x", "a{b}", "#x", "~x", strings.Repeat("x", 64), "jörg", "double-bounce",
		`"two words"`, `" x"`, `"x "`, `"a..b"`, `".x"`, `"x."`, `"a\"b"`, `"a\\b"`, `"a,b"`, `":include:x"`, `"a(b"`, `"a<b"`, `"[192.0.2.1]"`,
		"-x", `"-y"`, "a%b", `"c%d"`, "%x", "a!b", "x!", `"a@b"`, `"@x"`, "jörg%x",
	} {
		_, said, err := s.Mailbag("mailbox", "add", "--generate-password", "--", "dent", local+"@dent.example")
		s.must(err)
		switch warned := strings.Contains(said, "from outside is refused"); {
		case !warned:
			s.waitFor("mail for "+local+" to be accepted", func() bool { return mails(local) })
			boxes = append(boxes, local)
		case mails(local):
			t.Errorf("mail for %s is accepted, and %q was said", local, said)
		default:
			deaf = append(deaf, local)
		}
	}
	for _, setting := range []string{"allow_min_user=yes", "allow_untrusted_routing=yes"} {
		name, value, _ := strings.Cut(setting, "=")
		s.must(s.postfix.Set(name, value))
	}
	s.must(s.mta.Reload())
	for _, local := range deaf {
		if !mails(local) {
			t.Errorf("mail for %s is refused in spite of the settings", local)
		}
	}
	s.waitFor("all of it is in the Maildirs", func() bool { return s.queued() == 0 })
	for _, dir := range []string{"new", "cur"} {
		if lost, _ := filepath.Glob(filepath.Join(s.maildir("dent", ""), dir, "*")); len(lost) > 0 {
			t.Errorf("mail went to the catch-all: %q", lost)
		}
	}
	stored, err := filepath.Glob(filepath.Join(s.maildir("dent", "dent.example"), "*", "new", "*"))
	s.must(err)
	if len(stored) != len(boxes)+len(deaf) {
		t.Errorf("%d messages are in the mailboxes, want one in each of %d", len(stored), len(boxes)+len(deaf))
	}
	for _, path := range stored {
		if here := s.read(filepath.Dir(path)); len(here) != 1 {
			t.Errorf("%s has %d messages", filepath.Dir(path), len(here))
		}
	}
}
