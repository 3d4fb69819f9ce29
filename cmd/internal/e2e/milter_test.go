package e2e

import (
	"net"
	"net/textproto"
	"strings"
	"testing"

	"github.com/d--j/go-milter"

	postfixtest "mailbag/testdata/postfix"
)

// rspamd stands for the filter that an operator has: it refuses recipients that begin with "spamtrap"
// at RCPT and messages whose subject has "spam" at end of data.
type rspamd struct {
	milter.NoOpMilter
	spam bool
}

func (r *rspamd) RcptTo(to, _ string, _ milter.Modifier) (*milter.Response, error) {
	if strings.HasPrefix(to, "spamtrap") {
		return milter.RespReject, nil
	}
	return milter.RespContinue, nil
}

func (r *rspamd) Header(name, value string, _ milter.Modifier) (*milter.Response, error) {
	if textproto.CanonicalMIMEHeaderKey(name) == "Subject" && strings.Contains(value, "spam") {
		r.spam = true
	}
	return milter.RespContinue, nil
}

func (r *rspamd) EndOfMessage(milter.Modifier) (*milter.Response, error) {
	spam := r.spam
	r.spam = false
	if spam {
		return milter.RespReject, nil
	}
	return milter.RespAccept, nil
}

func (r *rspamd) Abort(milter.Modifier) error {
	r.spam = false
	return nil
}

// startRspamd serves the filter and returns what smtpd_milters calls it.
func startRspamd(t *testing.T) string {
	t.Helper()
	return startMilter(t, func() milter.Milter { return &rspamd{} })
}

// startMilter serves a filter and returns what smtpd_milters calls it.
func startMilter(t *testing.T, filter func() milter.Milter, options ...milter.Option) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := milter.NewServer(append(options, milter.WithMilter(filter))...)
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.Serve(listener)
	}()
	t.Cleanup(func() {
		server.Close()
		<-done
	})
	return "inet:" + listener.Addr().String()
}

func TestWhatAnotherMilterRefusesIsNotCounted(t *testing.T) {
	s := beginPostfix(t, "Exim has no milters", postfixtest.Config{Main: map[string]string{"smtpd_milters": startRspamd(t)}}, nil)
	s.etrn("acme", "acme.example")
	s.account("globex", "atrn", "globex.example", "--generate-password")

	spam, _ := letter("spam", 3)
	if outcome := s.send("x@elsewhere.example", spam, "a@acme.example", "a@globex.example"); outcome.Accepted() {
		t.Fatalf("the filter did not refuse: %+v", outcome)
	}
	s.wantUsage("acme", used{})

	ham, size := letter("ham", 3)
	outcome := s.send("x@elsewhere.example", ham, "a@acme.example", "spamtrap@acme.example", "spamtrap@globex.example", "b@acme.example")
	if !outcome.Accepted() || !strings.HasPrefix(outcome.Recipients[2], "5") {
		t.Fatalf("the outcome is %+v", outcome)
	}
	s.wantUsage("acme", used{1, size})
	s.wantUsage("globex", used{})

	// What waits is known by the queue ID that Postfix gave.
	show := s.mailbag("account", "show", "acme", "--json")
	if !strings.Contains(show, `"messages": 1`) {
		t.Errorf("account show does not tell of the message that waits:\n%s", show)
	}
}

func TestWhatHeaderChecksRefuseIsNotCounted(t *testing.T) {
	s := beginPostfix(t, "header and body checks are Postfix's", postfixtest.Config{Main: map[string]string{
		"header_checks": "regexp:{ {/^Subject:.*spam/ REJECT no spam here} }",
		"body_checks":   "regexp:{ {/viagra/ REJECT no pills here} }",
	}}, nil)
	s.etrn("acme", "acme.example")
	c, err := postfixtest.Dial(s.mta.Addr(), "")
	s.must(err)
	defer c.Close()
	s.must(say(c, "EHLO client.example", "250"))
	spam, _ := letter("spam", 3)
	for _, data := range []string{spam, "Subject: x\r\n\r\nviagra\r\n"} {
		outcome, err := c.Send(postfixtest.Mail{From: "x@elsewhere.example", To: []string{"a@acme.example"}, Data: []byte(data)})
		s.must(err)
		if outcome.Accepted() {
			t.Fatalf("the checks did not refuse: %+v", outcome)
		}
	}
	s.wantUsage("acme", used{})
	ham, size := letter("ham", 3)
	outcome, err := c.Send(postfixtest.Mail{From: "x@elsewhere.example", To: []string{"a@acme.example"}, Data: []byte(ham)})
	s.must(err)
	if !outcome.Accepted() {
		t.Fatalf("not accepted: %+v", outcome)
	}
	s.wantUsage("acme", used{1, size})
}
