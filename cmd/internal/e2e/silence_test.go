package e2e

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	mtatest "mailbag/testdata/mta"
	postfixtest "mailbag/testdata/postfix"
)

// called is when an account's customer was last there, and whether mail was fetched ever, as mailbag account list has it.
func (s *story) called(account string) (at time.Time, fetched bool) {
	s.t.Helper()
	var list []struct {
		Name    string    `json:"name"`
		Called  time.Time `json:"last_called"`
		Fetched time.Time `json:"last_fetched"`
	}
	s.must(json.Unmarshal([]byte(s.mailbag("account", "list", "--json")), &list))
	for _, a := range list {
		if a.Name == account {
			return a.Called, !a.Fetched.IsZero()
		}
	}
	s.t.Fatalf("%s is not listed", account)
	return at, false
}

// A customer for whom there is no mail is no customer who stays away, whichever way he asks.
func TestWhoAsksForMailInVainWasThere(t *testing.T) {
	s := turning(t, mtatest.Config{})
	s.must(s.Popd.Start())
	s.dialled("smtp", "smtp.example", "127.0.0.1:9")
	s.dialled("odmr", "odmr.example", "127.0.0.1:9")
	s.etrn("else", "else.example") // from elsewhere
	s.atrn("atrn", "atrn.example")
	password := s.pop3("pop3", "pop3.example")
	for account, ask := range map[string]func() bool{
		"smtp": func() bool { return strings.HasPrefix(s.etrnAt(s.mta.Addr(), "smtp.example"), "25") },
		"odmr": func() bool { return strings.HasPrefix(s.etrnAt(s.ODMR, "odmr.example"), "251 ") },
		"atrn": func() bool { return strings.HasPrefix(s.call("atrn", "127.0.0.1:9"), "453 ") },
		"pop3": func() bool {
			c, err := popLogin(s.POP3, "pop3", password)
			s.must(err)
			_, err = c.say("QUIT")
			return err == nil
		},
	} {
		if account != "atrn" { // which nobody else can ask for
			s.mailbag("flush", account)
		}
		if at, _ := s.called(account); !at.IsZero() {
			t.Errorf("the customer of %s, whom an operator called, was there at %s", account, at)
		}
		s.waitFor(account+" can ask", ask)
		s.waitFor("the customer of "+account+" was there", func() bool {
			at, _ := s.called(account)
			return time.Since(at) < time.Minute
		})
		if _, fetched := s.called(account); fetched {
			t.Errorf("%s fetched mail that there was not", account)
		}
	}
	for _, addr := range []string{s.mta.Addr(), s.ODMR} {
		c, err := postfixtest.Dial(addr, "127.0.0.9")
		s.must(err)
		_, err = c.Say("EHLO stranger.example")
		s.must(err)
		if reply, err := c.Say("ETRN else.example"); err != nil || !strings.HasPrefix(reply, "459 ") {
			t.Errorf("a stranger's ETRN is answered %q, %v", reply, err)
		}
		c.Close()
	}
	if at, _ := s.called("else"); !at.IsZero() {
		t.Errorf("by a stranger's ETRN the customer was there at %s", at)
	}
}
