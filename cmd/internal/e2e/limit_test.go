package e2e

import (
	"strings"
	"sync"
	"testing"

	mtatest "mailbag/testdata/mta"
	postfixtest "mailbag/testdata/postfix"
)

// TestALimitBySizeIsBilledAsItIs has many senders of messages of all sizes come at once.
func TestALimitBySizeIsBilledAsItIs(t *testing.T) {
	s := begin(t, mtatest.Config{})
	for name, c := range map[string]struct {
		flags  []string
		charge string
	}{
		"defers":  {[]string{"--on-limit", "defer"}, "10.00"},
		"bounded": {[]string{"--max-tiers", "2"}, "20.00"},
	} {
		s.etrn(name, name+".example", append(c.flags, "--bytes", "20kB")...)
		var group sync.WaitGroup
		for i := range 12 {
			group.Go(func() {
				data := "Subject: sizes\r\n\r\n" + strings.Repeat(strings.Repeat("x", 70)+"\r\n", 20+i*20)
				if _, err := postfixtest.Send(s.mta.Addr(), "", postfixtest.Mail{From: "x@elsewhere.example", To: []string{"a@" + name + ".example"}, Data: []byte(data)}); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
		if bill := s.mailbag("invoice", "--month", s.month(), name, "--json"); !strings.Contains(bill, `"total": "`+c.charge+`"`) {
			t.Errorf("%s is billed\n%s\nwant %s", name, bill, c.charge)
		}
		if got := s.usage(name).Bytes; got <= 20_000 {
			t.Errorf("%s did not pass its limit: %d octets", name, got)
		}
	}
}

// together has so many senders past RCPT at the same time, then sends what is left of their messages, and returns the
// replies to it.
func (s *story) together(senders int, to string) []string {
	s.t.Helper()
	return s.finish(s.beginData(senders, to))
}

// beginData has so many senders come to where a message is sent.
func (s *story) beginData(senders int, to string) []*postfixtest.Client {
	s.t.Helper()
	connections := make([]*postfixtest.Client, senders)
	for i := range connections {
		c, err := postfixtest.Dial(s.mta.Addr(), "")
		s.must(err)
		s.t.Cleanup(func() { c.Close() })
		connections[i] = c
		s.must(say(c, "EHLO client.example", "250"))
		s.must(say(c, "MAIL FROM:<x@elsewhere.example>", "250"))
		s.must(say(c, "RCPT TO:<"+to+">", "250"))
		s.must(say(c, "DATA", "354"))
	}
	return connections
}

// finish has senders send their messages, all at once, and returns the replies.
func (s *story) finish(connections []*postfixtest.Client) []string {
	s.t.Helper()
	var group sync.WaitGroup
	replies := make([]string, len(connections))
	for i, c := range connections {
		group.Go(func() {
			reply, err := c.Say("Subject: together\r\n\r\n.")
			if err != nil {
				s.t.Error(err)
			}
			replies[i] = reply
			c.Say("QUIT")
		})
	}
	group.Wait()
	return replies
}

// TestALimitOfThreeMessages has twelve senders for each account past RCPT at the same time, and then sends
// what is left of their messages.
func TestALimitOfThreeMessages(t *testing.T) {
	s := begin(t, mtatest.Config{})
	const senders = 12
	for _, a := range []struct {
		name     string
		flags    []string
		accepted int64
		refused  string // at the end of a message, and at the next RCPT
		charge   string
	}{
		{"bills", []string{"--on-limit", "bill"}, senders, "", "40.00"},
		{"defers", []string{"--on-limit", "defer"}, 3, "452 4.2.2 ", "10.00"},
		{"rejects", []string{"--on-limit", "reject"}, 3, "552 5.2.2 ", "10.00"},
		{"bounded", []string{"--on-limit", "bill", "--max-tiers", "2"}, 6, "452 4.2.2 ", "20.00"},
	} {
		to := "a@" + a.name + ".example"
		s.etrn(a.name, a.name+".example", append(a.flags, "--messages", "3")...)
		replies := s.together(senders, to)
		accepted := int64(0)
		for _, reply := range replies {
			if strings.HasPrefix(reply, "250") {
				accepted++
			} else if a.refused == "" || !strings.HasPrefix(reply, a.refused) {
				t.Errorf("%s: a message is answered %q", a.name, reply)
			}
		}
		if got := s.usage(a.name).Messages; accepted != a.accepted || got != accepted {
			t.Errorf("%s: %d messages were accepted and %d counted, want %d", a.name, accepted, got, a.accepted)
		}
		if bill := s.mailbag("invoice", "--month", s.month(), a.name, "--json"); !strings.Contains(bill, `"total": "`+a.charge+`"`) {
			t.Errorf("%s is billed\n%s\nwant %s", a.name, bill, a.charge)
		}
		data, _ := letter("one more", 1)
		if outcome := s.send("x@elsewhere.example", data, to); a.refused != "" && !strings.HasPrefix(outcome.Recipients[0], a.refused) {
			t.Errorf("%s: the next message is answered %+v", a.name, outcome)
		}
	}
	// What raises the limit or lowers the usage lets mail in again.
	s.mailbag("account", "set", "defers", "--messages", "4")
	s.mailbag("usage", "adjust", "rejects", "--month", s.month(), "--messages", "-1", "--reason", "a test")
	for _, name := range []string{"defers", "rejects"} {
		s.waitFor(name+" takes mail again", func() bool {
			return s.send("x@elsewhere.example", "Subject: again\r\n\r\n", "a@"+name+".example").Accepted()
		})
	}
	s.wantUsage("defers", used{4, s.usage("defers").Bytes})
	s.wantUsage("rejects", used{3, s.usage("rejects").Bytes})
}

// tooMuchWaits reports whether a reply says so; Postfix has the recipient in that to RCPT.
func tooMuchWaits(reply string) bool {
	return strings.HasPrefix(reply, "452 4.2.2 ") && strings.Contains(reply, "Too much mail waits for the recipient")
}

func TestNoMoreWaitsThanMay(t *testing.T) {
	s := begin(t, mtatest.Config{})
	s.etrn("acme", "acme.example", "--waiting-messages", "3")
	accepted := 0
	for _, reply := range s.together(12, "a@acme.example") {
		if strings.HasPrefix(reply, "250") {
			accepted++
		} else if !tooMuchWaits(reply) {
			t.Errorf("a message is answered %q", reply)
		}
	}
	if used := s.usage("acme"); accepted != 3 || used.Messages != 3 {
		t.Errorf("%d messages were accepted and %+v is counted, want 3", accepted, used)
	}
	s.etrn("globex", "globex.example")
	data, _ := letter("one more", 1)
	outcome := s.send("x@elsewhere.example", data, "a@acme.example", "a@globex.example")
	if !tooMuchWaits(outcome.Recipients[0]) || !outcome.Accepted() {
		t.Errorf("the next message is answered %+v", outcome)
	}
	s.mailbag("account", "set", "acme", "--waiting-messages", "4")
	s.waitFor("there is room for one more", func() bool {
		return s.send("x@elsewhere.example", data, "a@acme.example").Accepted()
	})
	if outcome := s.send("x@elsewhere.example", data, "a@acme.example"); !tooMuchWaits(outcome.Recipients[0]) {
		t.Errorf("above the new bound it is answered %+v", outcome)
	}
}

func TestNoMoreWaitsForAServerThatIsAway(t *testing.T) {
	s := begin(t, restless)
	server, err := postfixtest.NewSink()
	s.must(err)
	t.Cleanup(server.Stop)
	s.account("acme", "backup", "acme.example", "--host", server.Addr(), "--waiting-bytes", "20")
	data, _ := letter("for the server", 1)
	outcome := func() string { return s.send("x@elsewhere.example", data, "a@acme.example").Recipients[0] }
	pass := func() { // one is made at every start
		s.must(s.Stop())
		s.must(s.Start())
	}
	s.waits(1, "a@acme.example")
	pass()
	s.waitFor("the bound is reached", func() bool { return tooMuchWaits(outcome()) })
	if show := s.mailbag("account", "show", "acme"); !strings.Contains(show, "at most 20B") {
		t.Errorf("the account is shown as\n%s", show)
	}
	s.must(server.Start())
	_, err = server.WaitMessages(1)
	s.must(err)
	s.waitFor("the queue is empty", func() bool { return s.queued() == 0 })
	pass()
	s.waitFor("there is room", func() bool { return strings.HasPrefix(outcome(), "250") })
}
