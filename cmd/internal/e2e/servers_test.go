package e2e

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	mtatest "mailbag/testdata/mta"
	"mailbag/testdata/peer"
	postfixtest "mailbag/testdata/postfix"
)

// A keeper is a customer's mail server that keeps what it takes.
type keeper interface {
	Addr() string
	Messages() ([][]byte, error)
}

// prompt are the settings of turns that need not wait long for Postfix.
var prompt = []string{`idle_wait = "1s"`, `first_wait = "15s"`}

// addresses are so many of a domain that begin with name.
func addresses(n int, name, domain string) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("%s%d@%s", name, i+1, domain)
	}
	return all
}

// holdEach has one message held for each address, in this order. An address is also its message's subject, by which servers
// that keep no envelope tell it. What is in the text of all is text.
func (s *story) holdEach(text string, to ...string) {
	s.t.Helper()
	before := s.idle()
	c, err := postfixtest.Dial(s.mta.Addr(), "")
	s.must(err)
	defer c.Close()
	_, err = c.Say("EHLO client.example")
	s.must(err)
	for _, address := range to {
		data := fmt.Sprintf("From: <x@elsewhere.example>\r\nSubject: %s\r\n\r\n%s\r\n", address, text)
		o, err := c.Send(postfixtest.Mail{From: "x@elsewhere.example", To: []string{address}, Data: []byte(data)})
		s.must(err)
		if !o.Accepted() {
			s.t.Fatalf("not accepted: %+v", o)
		}
	}
	s.waitFor("all of it is held", func() bool { return s.deferred() == before+len(to) })
}

// turnFor has an account's customer say ETRN, and waits until the turn is over, which takes a server that slows down after
// errors a minute.
func (s *story) turnFor(account, domain string) {
	s.t.Helper()
	if reply := s.etrnAt(s.ODMR, domain); !strings.HasPrefix(reply, "25") {
		s.t.Fatalf("ETRN: %s", reply)
	}
	s.settled(account)
}

// settled waits until an account has no turn, and none of its mail is under way.
func (s *story) settled(account string) {
	s.t.Helper()
	s.must(postfixtest.Wait(account+"'s turn is over", func() bool {
		return !s.open(account) && !s.mta.Busy() &&
			!slices.ContainsFunc(s.turnsOf(account), func(l turnLine) bool { return l.Running })
	}))
}

var subject = regexp.MustCompile(`(?m)^Subject: (\S+)`)

// subjects counts messages by their subjects.
func (s *story) subjects(k keeper) map[string]int {
	s.t.Helper()
	messages, err := k.Messages()
	s.must(err)
	n := map[string]int{}
	for _, m := range messages {
		if found := subject.FindSubmatch(m); found != nil {
			n[string(found[1])]++
		}
	}
	return n
}

// wantKept waits until each of the addresses has its message, and fails where one has two. A server that has taken a message
// needs a moment to put it where it is seen.
func (s *story) wantKept(k keeper, to ...string) {
	s.t.Helper()
	err := postfixtest.Wait("all to be delivered", func() bool {
		got := s.subjects(k)
		for _, address := range to {
			if got[address] == 0 {
				return false
			}
		}
		return true
	})
	if err != nil {
		s.t.Error(err)
	}
	s.wantOnce(s.subjects(k), to...)
}

// wantOnce fails the test unless each of the addresses has one message.
func (s *story) wantOnce(got map[string]int, to ...string) {
	s.t.Helper()
	missing, twice := 0, 0
	for _, address := range to {
		switch n := got[address]; {
		case n == 0:
			missing++
		case n > 1:
			twice++
		}
	}
	if missing > 0 || twice > 0 {
		s.t.Errorf("of %d messages %d are missing and %d came more than once", len(to), missing, twice)
	}
}

// wantBounces fails the test unless so many senders hear that their message is not delivered.
func (s *story) wantBounces(n int) {
	s.t.Helper()
	_ = postfixtest.Wait("the bounces", func() bool { return s.mta.Notified() >= n })
	if got := s.mta.Notified(); got != n {
		s.t.Errorf("%d senders got a bounce, want %d", got, n)
	}
}

// wantOneTurn fails the test unless an account had one turn, of so many messages over at least so many connections.
func (s *story) wantOneTurn(account string, messages int64, connections int) {
	s.t.Helper()
	list := s.turnsOf(account)
	if len(list) != 1 || list[0].Messages != messages || list[0].Connections < connections {
		s.t.Errorf("the turns are %+v, want one of %d messages over at least %d connections", list, messages, connections)
	}
}

// A connection carries as many messages as the customer's server takes over one. The turn carries all.
func TestTurnOutlastsTheConnectionsOfAServer(t *testing.T) {
	for name, c := range map[string]struct {
		messages, connections int
		run                   func(t *testing.T, users []string) keeper
	}{
		"OpenSMTPD": {130, 2, func(t *testing.T, users []string) keeper { return peer.RunOpenSMTPD(t, users) }},
		"Exim": {60, 6, func(t *testing.T, users []string) keeper {
			return peer.RunLimitedExim(t, peer.EximLimits{PerConnection: 10})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := turning(t, mtatest.Config{}, prompt...)
			users := addresses(c.messages, "user", "acme.example")
			server := c.run(t, users)
			s.dialled("acme", "acme.example", server.Addr())
			s.holdEach("x", users...)
			s.turnFor("acme", "acme.example")
			s.wantKept(server, users...)
			s.wantOneTurn("acme", int64(c.messages), c.connections)
			s.wantBounces(0)
		})
	}
}

// Likewise where the server says its limit in another way, or does not.
func TestTurnOutlastsTheConnectionsOfAGateway(t *testing.T) {
	for name, quirk := range map[string]peer.Quirk{
		"that says 421":      peer.EndsAfter(7, "421 4.7.0 that is enough for now"),
		"that says 452":      peer.EndsAfter(7, "452 4.5.3 that is enough for now"),
		"that says nothing":  peer.EndsAfter(7, postfixtest.HangUp),
		"that announces it":  peer.Limits(7, 5),
		"that announces one": peer.Limits(1, 5),
	} {
		t.Run(name, func(t *testing.T) {
			s := turning(t, mtatest.Config{}, prompt...)
			server := peer.RunGateway(t, quirk)
			s.dialled("acme", "acme.example", server.Addr())
			users := addresses(40, "user", "acme.example")
			s.holdEach("x", users...)
			s.turnFor("acme", "acme.example")
			s.wantOnce(arrived(server.Messages()), users...)
			s.wantOneTurn("acme", 40, 6)
			s.wantBounces(0)
		})
	}
}

// Mail for users that are gone comes first, and a server that ends the connection for it, or slows down, is no reason for
// those who are there to wait.
func TestUsersThatAreGoneDelayNobody(t *testing.T) {
	for name, run := range map[string]func(t *testing.T, users []string) keeper{
		"Postfix": func(t *testing.T, users []string) keeper { return peer.RunPostfix(t, users) },
		"Exim": func(t *testing.T, users []string) keeper {
			return peer.RunLimitedExim(t, peer.EximLimits{Users: users})
		},
		"OpenSMTPD": func(t *testing.T, users []string) keeper { return peer.RunOpenSMTPD(t, users) },
		"aiosmtpd":  func(t *testing.T, users []string) keeper { return peer.RunAiosmtpd(t, users) },
	} {
		t.Run(name, func(t *testing.T) {
			s := turning(t, restless, prompt...) // a bounce waits for the next run of Exim's queue
			good := addresses(5, "good", "acme.example")
			server := run(t, good)
			s.dialled("acme", "acme.example", server.Addr())
			s.holdEach("x", addresses(30, "gone", "acme.example")...)
			s.holdEach("x", good...)
			s.turnFor("acme", "acme.example")
			s.wantKept(server, good...)
			s.wantBounces(30)
			s.waitFor("an empty queue", func() bool { return s.queued() == 0 }) // the bounces leave it a little later
		})
	}
}

// A turned connection is the only one, and the Postfix behind it hangs up at the twentieth error: the call ends early. The
// next call begins with other mail, and who is gone is known by then.
func TestUsersThatAreGoneDelayACallerByOneCall(t *testing.T) {
	s := turning(t, mtatest.Config{}, prompt...)
	good, later := addresses(5, "good", "acme.example"), addresses(5, "later", "acme.example")
	gone := addresses(30, "gone", "acme.example")
	server := peer.RunPostfix(t, append(good, later...))
	s.atrn("acme", "acme.example")
	s.holdEach("x", gone...)
	s.holdEach("x", good...)
	for range 2 {
		if reply := s.call("acme", server.Addr()); !strings.HasPrefix(reply, "25") && !strings.HasPrefix(reply, "453") {
			t.Errorf("ATRN: %s", reply)
		}
		s.settled("acme")
	}
	s.wantKept(server, good...)
	s.holdEach("x", gone[:25]...)
	s.holdEach("x", later...)
	if reply := s.call("acme", server.Addr()); !strings.HasPrefix(reply, "250") {
		t.Errorf("ATRN: %s", reply)
	}
	s.settled("acme")
	s.wantKept(server, later...)
}

// A server that is away makes one turn that says so, however often its customer asks.
func TestETRNInALoopMakesOneTurn(t *testing.T) {
	s := turning(t, mtatest.Config{}, prompt...)
	port, err := postfixtest.FreePort()
	s.must(err)
	s.dialled("acme", "acme.example", fmt.Sprintf("127.0.0.1:%d", port))
	s.holdEach("x", addresses(3, "user", "acme.example")...)
	for range 50 {
		if reply := s.etrnAt(s.ODMR, "acme.example"); !strings.HasPrefix(reply, "458 ") {
			t.Errorf("ETRN: %s", reply)
		}
	}
	if list := s.turnsOf("acme"); len(list) != 1 {
		t.Errorf("50 ETRNs made %d turns", len(list))
	}
	if n := s.idle(); n != 3 {
		t.Errorf("%d messages are held, want 3", n)
	}
}
