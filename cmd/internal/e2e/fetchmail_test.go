package e2e

import (
	"os"
	"strings"
	"testing"

	mtatest "mailbag/testdata/mta"
	"mailbag/testdata/peer"
	postfixtest "mailbag/testdata/postfix"
)

// fetchmail runs it once and returns what it says.
func (s *story) fetchmail(f peer.Fetchmail) string {
	s.t.Helper()
	dir, err := os.MkdirTemp(s.mta.Path(), "fetchmail-")
	s.must(err)
	out, err := f.Run(s.soon(), dir)
	s.must(err)
	return out
}

// customersPostfix is a Postfix that takes all mail and passes it on to a sink.
func customersPostfix(t *testing.T) (*postfixtest.Instance, *postfixtest.Sink) {
	t.Helper()
	behind := sink(t)
	in := postfixtest.Run(t, postfixtest.Config{Main: map[string]string{
		"myhostname": "mail.customer.example", "mydestination": "", "mynetworks": "127.0.0.0/8",
		"default_transport": "smtp:[" + host(behind.Addr()) + "]:" + port(behind.Addr()),
	}})
	return in, behind
}

func TestFetchmailFetchesByATRN(t *testing.T) {
	s := turning(t, mtatest.Config{})
	s.must(peer.FetchmailAvailable())
	customer, behind := customersPostfix(t)
	s.atrn("acme", "acme.example", "acme.test")
	ask := peer.Fetchmail{Protocol: "odmr", Server: s.ODMR, User: "acme", Password: password,
		Domains: []string{"acme.example", "acme.test"}, SMTP: customer.Addr()}
	s.waitFor("mailbag-turnd to know acme", func() bool {
		known, err := s.Turnd.Metric("mailbag_accounts")
		return err == nil && known == 1
	})
	if out := s.fetchmail(ask); !strings.Contains(out, "453 ") {
		t.Errorf("with no mail:\n%s", out)
	}
	s.hold(20, 2000, "acme.example")
	s.hold(10, 100, "acme.test")
	s.fetchmail(ask)
	got, err := behind.WaitMessages(30)
	s.must(err)
	s.wantEach(20, "acme.example", arrived(got), false)
	s.wantEach(10, "acme.test", arrived(got), false)
	s.waitFor("the queue is empty", func() bool { return s.queued() == 0 })
	if n, err := s.Turnd.Metric("mailbag_turn_delivery_seconds_count"); n != 30 || err != nil {
		t.Errorf("the time was taken of %v messages, %v", n, err)
	}

	// One domain of the two.
	s.settled("acme")
	s.hold(2, 100, "acme.example")
	s.hold(3, 100, "acme.test")
	ask.Domains = []string{"acme.test"}
	s.fetchmail(ask)
	got, err = behind.WaitMessages(33)
	s.must(err)
	s.settled("acme")
	if n := s.queued(); n != 2 {
		t.Errorf("%d messages wait after ATRN for one domain, want the 2 of the other: %v", n, arrived(got))
	}
	ask.Password = "wrong"
	dir := s.mta.Path("wrong")
	s.must(os.Mkdir(dir, 0o700))
	if out, err := ask.Run(s.soon(), dir); err == nil {
		t.Errorf("a wrong password is no error:\n%s", out)
	}
}

func TestFetchmailFetchesUnderTLS(t *testing.T) {
	s := turning(t, mtatest.Config{})
	s.must(peer.FetchmailAvailable())
	exim := peer.RunExim(t)
	s.atrn("acme", "acme.example")
	s.hold(500, 3000, "acme.example")
	s.fetchmail(peer.Fetchmail{Protocol: "odmr", Server: s.ODMRTLS, User: "acme", Password: password,
		Domains: []string{"acme.example"}, SMTP: exim.Addr(), TLS: true})
	s.must(postfixtest.Wait("500 messages at Exim", func() bool {
		got, err := exim.Messages()
		return err == nil && len(got) == 500
	}))
	s.settled("acme")
	if n := s.queued(); n != 0 {
		t.Errorf("%d messages are still in the queue", n)
	}
	if last := s.turnsOf("acme"); len(last) != 1 || last[0].Messages != 500 || last[0].Kind != "atrn" {
		t.Errorf("the turns are %+v", last)
	}
}

func TestFetchmailTriggersByETRN(t *testing.T) {
	s := turning(t, mtatest.Config{})
	s.must(peer.FetchmailAvailable())
	customer, behind := customersPostfix(t)
	s.dialled("acme", "acme.example", customer.Addr())
	for i, server := range []string{s.mta.Addr(), s.ODMR} {
		s.hold(10, 500, "acme.example")
		if out := s.fetchmail(peer.Fetchmail{Protocol: "etrn", Server: server, Domains: []string{"acme.example"}}); !strings.Contains(out, "acme.example started") {
			t.Errorf("at %s:\n%s", server, out)
		}
		got, err := behind.WaitMessages(10 * (i + 1))
		s.must(err)
		if len(got) != 10*(i+1) {
			t.Errorf("%d messages came", len(got))
		}
		s.waitFor("the turn is over, and nothing waits", func() bool {
			return strings.HasPrefix(s.etrnAt(s.ODMR, "acme.example"), "251 ")
		})
	}
	if reply := s.etrnAt(s.mta.Addr(), "acme.example"); !strings.HasPrefix(reply, by("250 ", "251 2.0.0 OK, no messages waiting for node acme.example")) {
		t.Errorf("with nothing waiting, on port 25: %s", reply)
	}
}

// What is not flushed fetchmail names as RFC 1985 does, and not as an error that it does not know.
func TestFetchmailUnderstandsWhyETRNIsRefused(t *testing.T) {
	s := turning(t, mtatest.Config{})
	s.must(peer.FetchmailAvailable())
	s.account("dent", "pop3", "dent.example", "--generate-password")
	s.dialled("acme", "acme.example", "127.0.0.1:1")
	s.hold(1, 500, "acme.example")
	for domain, want := range map[string]string{
		"nobody.example": "Node nobody.example not allowed: ",
		"dent.example":   "Node dent.example not allowed: ",
		"acme.example":   "Unable to queue messages for node acme.example",
	} {
		f := peer.Fetchmail{Protocol: "etrn", Server: s.mta.Addr(), Domains: []string{domain}}
		dir := s.mta.Path("fetchmail-" + domain)
		s.must(os.Mkdir(dir, 0o700))
		if out, err := f.Run(s.soon(), dir); !strings.Contains(out, want) {
			t.Errorf("fetchmail says\n%s%v\nwant %q", out, err, want)
		}
	}
}
