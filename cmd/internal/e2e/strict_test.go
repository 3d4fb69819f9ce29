package e2e

import (
	"encoding/base64"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	mtatest "mailbag/testdata/mta"
	postfixtest "mailbag/testdata/postfix"
)

func TestOneCustomersTurnsLeaveTheOthersMailHeld(t *testing.T) {
	s := turning(t, restless, `idle_wait = "100ms"`)
	acme, hooli := sink(t), sink(t)
	s.atrn("acme", "acme.example")
	s.atrn("globex", "globex.example")
	s.dialled("hooli", "hooli.example", hooli.Addr())
	s.hold(5, 500, "globex.example")
	s.hold(5, 500, "hooli.example")
	for range 10 {
		s.inject(1, 500, "user@acme.example")
		s.call("acme", acme.Addr())
	}
	s.fetch("acme", acme.Addr(), 3)
	if got := arrived(acme.Messages()); len(got) != 1 || got["1user@acme.example"] != 10 {
		t.Errorf("acme got %v, want its own ten messages", got)
	}
	if n := len(hooli.Messages()); n != 0 {
		t.Errorf("hooli got %d messages and had not asked", n)
	}
	s.must(s.mta.WaitQueue("the others' ten messages", func(q []postfixtest.Entry) bool { return len(q) == 10 }))

	for _, domain := range []string{"globex.example", "acme.example,globex.example", "hooli.example", "unknown.example"} {
		if reply := s.call("acme", acme.Addr(), domain); !strings.HasPrefix(reply, "450 ") {
			t.Errorf("ATRN %s by acme: %s", domain, reply)
		}
	}
	for _, node := range []string{"globex.example", "#globex", "@example", "elsewhere.example"} {
		if reply := s.etrnAt(s.ODMR, node); node == "@example" && !strings.HasPrefix(reply, "25") || node != "@example" && !strings.HasPrefix(reply, "459 ") {
			t.Errorf("ETRN %s from an address of hooli alone: %s", node, reply)
		}
	}
	s.waitFor("hooli's mail, which @example means here", func() bool { return len(hooli.Messages()) == 5 })
	s.waitFor("globex's five alone to wait", func() bool { return s.queued() == 5 })
}

func TestTheSocketOfATurnTakesItsAccountsMailAlone(t *testing.T) {
	s := turning(t, mtatest.Config{})
	customer, err := postfixtest.NewSink()
	s.must(err)
	release := make(chan struct{})
	customer.OnMessage = func(postfixtest.Message) string { <-release; return "" }
	s.must(customer.Start())
	t.Cleanup(customer.Stop)
	s.atrn("acme", "acme.example")
	s.atrn("globex", "globex.example")
	s.hold(1, 500, "acme.example")
	s.background(func() { _, _ = s.caller("acme", customer.Addr()).Run(s.soon()) })
	s.waitFor("the turn is open", func() bool { return s.open("acme") })
	defer close(release)
	if s.open("globex") {
		t.Error("globex has a socket, and no turn")
	}
	conn, err := net.Dial("unix", s.TurnSocket("acme"))
	s.must(err)
	defer conn.Close()
	s.must(conn.SetDeadline(time.Now().Add(postfixtest.Patience)))
	if reply := talk(t, conn, "LHLO mx.provider.example", "MAIL FROM:<x@elsewhere.example>", "RCPT TO:<a@globex.example>"); strings.HasPrefix(reply, "2") {
		t.Errorf("a recipient of another account: %s", reply)
	}
}

// talk says each of the commands on a connection that greets, and returns the last line of the last reply.
func talk(t *testing.T, conn net.Conn, commands ...string) string {
	t.Helper()
	var text string
	for i := -1; i < len(commands); i++ {
		if i >= 0 {
			if _, err := conn.Write([]byte(commands[i] + "\r\n")); err != nil {
				t.Fatal(err)
			}
		}
		b := make([]byte, 4096)
		n, err := conn.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(string(b[:n])), "\r\n")
		text = lines[len(lines)-1]
	}
	return text
}

func TestOperatorsFlushReleasesNothing(t *testing.T) {
	s := turning(t, mtatest.Config{})
	acme, globex := sink(t), sink(t)
	s.atrn("acme", "acme.example")
	s.dialled("globex", "globex.example", globex.Addr())
	s.hold(5, 500, "acme.example")
	s.hold(5, 500, "globex.example")
	s.must(s.mta.FlushQueue())
	s.waitFor("the MTA has tried it all", func() bool { // Postfix once before, when it came
		return strings.Count(s.mta.Log(), by("status=deferred", "No such file or directory")) >= by(20, 10) && s.deferred() == 10
	})
	if n := len(acme.Messages()) + len(globex.Messages()); n != 0 {
		t.Errorf("%d messages went out", n)
	}
	// Both destinations count as dead now, and both are delivered at once when asked for.
	s.call("acme", acme.Addr())
	s.wantEach(5, "acme.example", arrived(acme.Messages()), false)
	if reply := s.etrnAt(s.mta.Addr(), "globex.example"); !strings.HasPrefix(reply, by("250 ", "253 2.0.0 OK, 5 pending messages for node globex.example started")) {
		t.Errorf("ETRN: %s", reply)
	}
	_, err := globex.WaitMessages(5)
	s.must(err)
}

func TestMessageForTwoAccountsReachesEachInItsOwnTurn(t *testing.T) {
	s := turning(t, mtatest.Config{})
	acme, globex := sink(t), sink(t)
	s.atrn("acme", "acme.example")
	s.atrn("globex", "globex.example")
	s.waits(1, "a@acme.example", "b@acme.example", "c@globex.example")
	s.call("acme", acme.Addr())
	if got := arrived(acme.Messages()); len(got) != 2 || got["a@acme.example"] != 1 || got["b@acme.example"] != 1 {
		t.Errorf("acme got %v", got)
	}
	s.settled("acme") // the line is closed before
	if reply := s.call("acme", acme.Addr()); !strings.HasPrefix(reply, "453 ") {
		t.Errorf("acme's second ATRN: %s", reply)
	}
	s.call("globex", globex.Addr())
	if got := arrived(globex.Messages()); len(got) != 1 || got["c@globex.example"] != 1 {
		t.Errorf("globex got %v", got)
	}
	s.waitFor("the queue is empty", func() bool { return s.queued() == 0 })
	if n := len(acme.Messages()); n != 1 {
		t.Errorf("acme got the message %d times", n)
	}
}

// The replies of RFC 2645 and RFC 1985 that need no mail; the other stories have 250, 253, 451 and 458.
// What the operator puts on hold waits for nobody, and keeps nothing that comes after it. Taken off hold it waits again.
func TestMailOnHoldWaitsForNoTurn(t *testing.T) {
	s := turning(t, mtatest.Config{}, `first_wait = "3s"`, "window = 20")
	acme := sink(t)
	s.atrn("acme", "acme.example")
	const onHold, later = 30, 5
	s.hold(onHold, 1000, "acme.example")
	s.must(s.mta.HoldAll(true))
	if reply := s.call("acme", acme.Addr()); !strings.HasPrefix(reply, "453 ") {
		t.Errorf("ATRN while all mail is on hold: %s", reply)
	}
	s.hold(later, 1000, "acme.example")
	if reply := s.call("acme", acme.Addr()); !strings.HasPrefix(reply, "250 ") || len(acme.Messages()) != later {
		t.Errorf("ATRN with mail behind what is on hold: %s; %d messages arrived", reply, len(acme.Messages()))
	}
	s.must(s.mta.HoldAll(false))
	s.must(s.Stop())
	s.must(s.Start()) // a pass is made at every start
	s.waitFor("the index has what was on hold", func() bool {
		return strings.Contains(s.mailbag("account", "show", "acme", "--json"), fmt.Sprintf(`"messages": %d`, onHold))
	})
	if reply := s.call("acme", acme.Addr()); !strings.HasPrefix(reply, "250 ") || len(acme.Messages()) != later+onHold {
		t.Errorf("ATRN afterwards: %s; %d messages arrived", reply, len(acme.Messages()))
	}
}

func TestPort366WhileNothingWaits(t *testing.T) {
	s := turning(t, mtatest.Config{})
	s.atrn("acme", "acme.example")
	s.dialled("globex", "globex.example", "192.0.2.1")
	secret := func(password string) string {
		return base64.StdEncoding.EncodeToString([]byte("\x00acme\x00" + password))
	}
	s.must(postfixtest.Dialogue(s.ODMR, "127.0.0.1", "testdata/atrn-and-etrn.smtp",
		map[string]string{"RIGHT": secret(password), "WRONG": secret("wrong")}))
}
