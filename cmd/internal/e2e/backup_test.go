package e2e

import (
	"bytes"
	"strings"
	"testing"

	"mailbag/policy/routes"
	mtatest "mailbag/testdata/mta"
	postfixtest "mailbag/testdata/postfix"
)

// awkward is a message whose every octet must survive: lines of dots, long and 8-bit ones, no text.
func awkward() string {
	return "Subject: awkward\r\nX-Long: " + strings.Repeat("x", 900) + "\r\n\r\n" +
		".\r\n..\r\n...\r\n.leading\r\n" + strings.Repeat("long ", 190) + "\r\n" +
		"\xc3\xa4\xf6\xfc 8-bit\r\n\ttab \r\n\r\n\r\nFrom here\r\n"
}

func TestBackupHoldsMailUntilTheServerReturns(t *testing.T) {
	s := begin(t, restless) // the test waits for the MTA's own retry
	server, err := postfixtest.NewSink()
	s.must(err)
	t.Cleanup(server.Stop)
	s.account("acme", "backup", "acme.example", "--host", server.Addr())
	data := awkward()
	s.accept(data, "a@acme.example", "b@acme.example")
	s.wantUsage("acme", used{1, int64(len(data))})
	s.must(s.mta.WaitQueue("the message is deferred", func(q []postfixtest.Entry) bool {
		return len(q) == 1 && q[0].Waits()
	}))
	s.must(server.Start())
	messages, err := server.WaitMessages(1)
	s.must(err)
	// The MTA adds its Received: line above, and nothing else.
	received, body, _ := bytes.Cut(messages[0].Data, []byte("Subject: awkward"))
	if !bytes.HasPrefix(received, []byte("Received: ")) || "Subject: awkward"+string(body) != data {
		t.Errorf("the message arrived as\n%q\nwant a Received: line and\n%q", messages[0].Data, data)
	}
	if got := strings.Join(messages[0].Recipients, " "); got != "a@acme.example b@acme.example" {
		t.Errorf("the recipients arrived as %s", got)
	}
	s.wantUsage("acme", used{1, int64(len(data))})
}

func TestBackupByMX(t *testing.T) {
	s := begin(t, mtatest.Config{})
	s.account("acme", "backup", "acme.example")
	want := by("relay:acme.example", `transport=mx queue="" account=acme verify=no tls=opportunistic`)
	if got := s.lookup(routes.Routes, "acme.example"); got != want {
		t.Errorf("mail for an account without a host goes to %q, want %q", got, want)
	}
}

func TestListedRecipients(t *testing.T) {
	s := begin(t, mtatest.Config{})
	server := postfixtest.RunSink(t)
	s.account("acme", "backup", "acme.example", "--host", server.Addr(), "--recipients", "list")
	s.mailbag("recipient", "add", "acme", "info@acme.example", "Sales@acme.example")
	s.waitFor("the list is in force", func() bool { // while it is empty, everybody is refused
		c, err := postfixtest.Dial(s.mta.Addr(), "")
		s.must(err)
		defer c.Close()
		s.must(say(c, "EHLO client.example", "250"))
		s.must(say(c, "MAIL FROM:<x@elsewhere.example>", "250"))
		return say(c, "RCPT TO:<info@acme.example>", "250") == nil
	})
	data, size := letter("listed", 1)
	outcome := s.send("x@elsewhere.example", data, "info@acme.example", "nobody@acme.example", "SALES+eu@Acme.example")
	if !outcome.Accepted() || !strings.HasPrefix(outcome.Recipients[1], "550 5.1.1 ") {
		t.Fatalf("the outcome is %+v", outcome)
	}
	messages, err := server.WaitMessages(1)
	s.must(err)
	if len(messages[0].Recipients) != 2 {
		t.Errorf("it arrived for %v", messages[0].Recipients)
	}
	s.wantUsage("acme", used{1, size})
}

func TestVerifiedRecipients(t *testing.T) {
	s := begin(t, mtatest.Config{Restless: true, Postfix: map[string]string{"address_verify_poll_delay": "1s", "address_verify_poll_count": "60"}})
	server, err := postfixtest.NewSink()
	s.must(err)
	t.Cleanup(server.Stop)
	server.OnRecipient = func(address string) string {
		if strings.HasPrefix(address, "known") {
			return ""
		}
		return "550 5.1.1 unknown here"
	}
	s.must(server.Start())
	s.account("acme", "backup", "acme.example", "--host", server.Addr(), "--recipients", "verify")
	s.must(s.Wire()) // now that an account verifies
	s.must(s.mta.Reload())
	data, size := letter("verified", 1)
	if outcome := s.send("x@elsewhere.example", data, "unknown@acme.example"); !strings.HasPrefix(outcome.Recipients[0], "550") {
		t.Errorf("an unknown user while the server is up: %+v, want 550", outcome)
	}
	s.accept(data, "known@acme.example")
	s.wantUsage("acme", used{1, size})
	_, err = server.WaitMessages(1)
	s.must(err)

	// A message for another account too, of which the customer's server refuses acme's only recipient.
	s.etrn("globex", "globex.example")
	outcome := s.send("x@elsewhere.example", data, "unknown.too@acme.example", "a@globex.example", "b@globex.example")
	if !outcome.Accepted() || !strings.HasPrefix(outcome.Recipients[0], "550") {
		t.Errorf("the outcome is %+v", outcome)
	}
	s.wantUsage("acme", used{1, size})
	s.wantUsage("globex", used{1, size})

	server.Stop()
	s.accept(data, "known.new@acme.example") // never seen before: that is what backup is for
	s.wantUsage("acme", used{2, 2 * size})
	s.must(server.Start())
	_, err = server.WaitMessages(2)
	s.must(err)
}
