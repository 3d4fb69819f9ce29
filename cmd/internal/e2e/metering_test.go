package e2e

import (
	"fmt"
	"strings"
	"testing"

	mtatest "mailbag/testdata/mta"
	postfixtest "mailbag/testdata/postfix"
)

// letter is a message of so many lines, and its true size in octets.
func letter(subject string, lines int) (data string, size int64) {
	data = "Subject: " + subject + "\r\n\r\n" + strings.Repeat("All work and no play makes Jack a dull boy.\r\n", lines)
	return data, int64(len(data))
}

func TestEachAccountCountsAMessageOnce(t *testing.T) {
	s := begin(t, mtatest.Config{})
	s.etrn("acme", "acme.example")
	s.account("globex", "atrn", "globex.example", "--generate-password")
	first, firstSize := letter("first", 10)
	second, secondSize := letter("second", 200)
	s.must(postfixtest.Dialogue(s.mta.Addr(), "", "testdata/two-accounts.smtp", map[string]string{
		"FIRST":  strings.TrimSuffix(first, "\r\n"),
		"SECOND": strings.TrimSuffix(second, "\r\n"),
		// Postfix, as the tests have it, leaves open whether it might relay one day.
		"STRANGER": by("454", "550"),
	}))
	for _, account := range []string{"acme", "globex"} {
		s.wantUsage(account, used{2, firstSize + secondSize})
	}
	var committed float64
	s.waitFor("the commits to be counted", func() bool {
		var err error
		committed, err = s.Metric("mailbag_ledger_batch_messages_sum")
		return err == nil && committed >= 2
	})
	if committed != 2 {
		t.Errorf("the commits had %v messages", committed)
	}
}

func TestWhatIsNotAcceptedIsNotCounted(t *testing.T) {
	s := beginPostfix(t, "smtpd_data_restrictions are Postfix's", postfixtest.Config{Main: map[string]string{
		// Behind mailbag's: a whole message is refused after its recipients were let through.
		"smtpd_data_restrictions": "check_sender_access inline:{ { refused@elsewhere.example = REJECT } }",
	}}, nil)
	s.etrn("acme", "acme.example")
	data, size := letter("counted", 3)
	c, err := postfixtest.Dial(s.mta.Addr(), "")
	s.must(err)
	defer c.Close()
	s.must(say(c, "EHLO client.example", "250"))
	// Refused at DATA.
	outcome, err := c.Send(postfixtest.Mail{From: "refused@elsewhere.example", To: []string{"a@acme.example"}, Data: []byte(data)})
	s.must(err)
	if outcome.Accepted() {
		t.Fatalf("smtpd_data_restrictions did not refuse: %+v", outcome)
	}
	s.must(say(c, "RSET", "250"))
	// Given up after RCPT.
	s.must(say(c, "MAIL FROM:<x@elsewhere.example>", "250"))
	s.must(say(c, "RCPT TO:<a@acme.example>", "250"))
	s.must(say(c, "RSET", "250"))
	s.wantUsage("acme", used{})
	// Accepted, on the same connection.
	outcome, err = c.Send(postfixtest.Mail{From: "x@elsewhere.example", To: []string{"a@acme.example"}, Data: []byte(data)})
	s.must(err)
	if !outcome.Accepted() {
		t.Fatalf("not accepted: %+v", outcome)
	}
	s.wantUsage("acme", used{1, size})
	// Given up in the middle of DATA.
	s.must(say(c, "MAIL FROM:<x@elsewhere.example>", "250"))
	s.must(say(c, "RCPT TO:<a@acme.example>", "250"))
	s.must(say(c, "DATA", "354"))
	if _, err := c.Write([]byte("Subject: half\r\n\r\nand")); err != nil {
		t.Fatal(err)
	}
	c.Close()
	s.must(s.mta.WaitLog("lost connection after DATA"))
	s.wantUsage("acme", used{1, size})
}

// say sends a command and wants a reply that begins with code.
func say(c *postfixtest.Client, command, code string) error {
	reply, err := c.Say(command)
	if err == nil && !strings.HasPrefix(reply, code) {
		err = fmt.Errorf("%s: the reply is %q, want %s", command, reply, code)
	}
	return err
}

func TestRecipientRefusedByALaterRestrictionIsNotCounted(t *testing.T) {
	s := beginPostfix(t, "there is nothing behind mailbag's ACL", postfixtest.Config{}, nil)
	s.etrn("acme", "acme.example")
	s.etrn("globex", "globex.example")
	// Somebody adds a restriction behind mailbag's.
	restrictions, err := s.postfix.Postconf("-h", "smtpd_recipient_restrictions")
	s.must(err)
	s.must(s.postfix.Set("smtpd_recipient_restrictions", strings.TrimSpace(restrictions)+
		", check_recipient_access inline:{ { a@globex.example = REJECT } }"))
	s.must(s.mta.Reload())
	data, size := letter("one of two", 3)
	outcome := s.send("x@elsewhere.example", data, "a@acme.example", "a@globex.example")
	if !outcome.Accepted() || !strings.HasPrefix(outcome.Recipients[1], "5") {
		t.Fatalf("the outcome is %+v", outcome)
	}
	s.wantUsage("acme", used{1, size})
	s.wantUsage("globex", used{})
}
