package e2e

import (
	"crypto/tls"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"mailbag/testdata/certificate"
	mtatest "mailbag/testdata/mta"
	"mailbag/testdata/peer"
	postfixtest "mailbag/testdata/postfix"
)

// fetched holds messages for so many users, has them fetched in one turn from a gateway with these quirks, and wants each to
// arrive once and none to be bounced.
func fetched(t *testing.T, n int, quirks ...peer.Quirk) (*story, *peer.Gateway) {
	t.Helper()
	s := turning(t, mtatest.Config{}, prompt...)
	server := peer.RunGateway(t, quirks...)
	s.dialled("acme", "acme.example", server.Addr())
	users := addresses(n, "user", "acme.example")
	s.holdEach("x", users...)
	s.turnFor("acme", "acme.example")
	s.wantOnce(arrived(server.Messages()), users...)
	s.wantBounces(0)
	return s, server
}

// What a gateway offers and does not do by itself is no reason to give up a message.
func TestCHUNKINGThatIsOfferedAndRefusedCostsNoMail(t *testing.T) {
	for name, reply := range map[string]string{
		"502":  "502 5.5.1 Command not implemented",
		"451":  "451 4.3.0 Internal error",
		"drop": postfixtest.HangUp,
	} {
		t.Run(name, func(t *testing.T) { fetched(t, 20, peer.Says("BDAT", reply)) })
	}
}

func TestReplyWithTwoCodesCostsNoMail(t *testing.T) {
	for verb, reply := range map[string]string{
		"MAIL": "250-2.1.0 Ok\r\n251 2.1.0 Ok",
		"RCPT": "250-2.1.5 Ok\r\n251 2.1.5 will forward",
	} {
		t.Run(verb, func(t *testing.T) { fetched(t, 20, peer.Says(verb, reply)) })
	}
}

func TestGreetingMayTakeItsTime(t *testing.T) {
	fetched(t, 5, peer.GreetsAfter(8*time.Second))
}

// A gateway that loses all but the first command of a group answers too little, which only time tells: a minute.
func TestPIPELININGThatIsALieCostsNoMail(t *testing.T) {
	s := turning(t, mtatest.Config{}, prompt...)
	server := peer.RunGateway(t, peer.SwallowsGroups())
	s.dialled("acme", "acme.example", server.Addr())
	users := addresses(20, "user", "acme.example")
	s.holdEach("x", users...)
	s.etrnAt(s.ODMR, "acme.example")
	_, err := server.WaitMessages(len(users))
	s.must(err)
	s.settled("acme")
	s.wantOnce(arrived(server.Messages()), users...)
	s.wantBounces(0)
}

// DSN's parameters are wishes of the sender. Where they are refused, the message is worth more.
func TestDSNThatIsOfferedAndRefusedCostsNoMail(t *testing.T) {
	for _, reply := range []string{"555 5.5.4 Unsupported option", "501 5.5.4 Syntax error in parameters"} {
		t.Run(reply[:3], func(t *testing.T) {
			s := beginPostfix(t, "its LMTP has no DSN", postfixtest.Config{}, nil)
			s.startTurns(prompt...)
			server := peer.RunGateway(t, peer.RefusesDSN(reply))
			s.dialled("acme", "acme.example", server.Addr())
			c, err := postfixtest.Dial(s.mta.Addr(), "")
			s.must(err)
			defer c.Close()
			for _, d := range [][2]string{
				{"EHLO client.example", "250"},
				{"MAIL FROM:<x@elsewhere.example> RET=HDRS ENVID=QQ314159", "250"},
				{"RCPT TO:<dsn@acme.example> NOTIFY=SUCCESS ORCPT=rfc822;dsn@acme.example", "250"},
				{"DATA", "354"},
				{"Subject: dsn\r\n\r\nx\r\n.", "250"},
			} {
				if reply, err := c.Say(d[0]); err != nil || !strings.HasPrefix(reply, d[1]) {
					t.Fatalf("%q: %q, %v", d[0], reply, err)
				}
			}
			s.waitFor("it is held", func() bool { return s.deferred() == 1 })
			s.holdEach("x", "plain@acme.example")
			s.turnFor("acme", "acme.example")
			s.wantOnce(arrived(server.Messages()), "dsn@acme.example", "plain@acme.example")
			if s.mta.Bounced() > 0 {
				t.Error("a message was bounced")
			}
		})
	}
}

// TLS that is not asked for is better than none, and none is better than no mail.
func TestTLSThatFailsBehindTheHandshakeCostsNoMail(t *testing.T) {
	config := &tls.Config{Certificates: []tls.Certificate{certificate.New(t, "mail.customer.example").Pair}}
	demanding := config.Clone()
	demanding.MinVersion, demanding.ClientAuth = tls.VersionTLS13, tls.RequireAnyClientCert
	old := config.Clone()
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS10
	for name, c := range map[string]struct {
		quirks []peer.Quirk
		tls    string
	}{
		"it works":                 {[]peer.Quirk{peer.StartsTLS(config)}, "TLS 1.3"},
		"it closes at EHLO":        {[]peer.Quirk{peer.StartsTLS(config), peer.ClosesUnderTLS()}, ""},
		"it wants our certificate": {[]peer.Quirk{peer.StartsTLS(demanding)}, ""},
		"it is old":                {[]peer.Quirk{peer.StartsTLS(old)}, "TLS 1.0"},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := fetched(t, 5, c.quirks...)
			if list := s.turnsOf("acme"); len(list) != 1 || list[0].TLS != c.tls {
				t.Errorf("the turns are %+v, want one by %q", list, c.tls)
			}
		})
	}
}

// Who has no room any more, from some message on, gets no further mail in this turn; who shares messages with him gets them,
// and nobody gets one twice.
func TestMailboxThatBecomesFullHoldsUpNobodyElse(t *testing.T) {
	const messages, room = 300, 100
	s := turning(t, mtatest.Config{}, prompt...)
	var mu sync.Mutex
	taken := 0
	server, err := postfixtest.NewSink()
	s.must(err)
	server.Extensions = postfixtest.Chunking
	server.OnRecipient = func(address string) string {
		mu.Lock()
		defer mu.Unlock()
		if strings.HasPrefix(address, "full@") {
			if taken++; taken > room {
				return "452 4.2.2 Mailbox full"
			}
		}
		return ""
	}
	s.must(server.Start())
	t.Cleanup(server.Stop)
	s.dialled("acme", "acme.example", server.Addr())
	to := []string{"full@acme.example", "a@acme.example", "b@acme.example"}
	for i := range messages {
		s.accept(fmt.Sprintf("Subject: message%d\r\n\r\nx\r\n", i), to...)
	}
	s.waitFor("all of it is held", func() bool { return s.deferred() == messages })
	s.turnFor("acme", "acme.example")
	got := map[string]int{}  // by message and recipient
	each := map[string]int{} // by recipient
	for _, m := range server.Messages() {
		for _, r := range m.Recipients {
			each[r]++
			if key := string(subject.Find(m.Data)) + " " + r; got[key] > 0 {
				t.Errorf("%s came twice", key)
			} else {
				got[key]++
			}
		}
	}
	if each[to[0]] != room || each[to[1]] != messages || each[to[2]] != messages {
		t.Errorf("they got %v, want %d, %d and %d", each, room, messages, messages)
	}
	if n := s.deferred(); n != messages-room {
		t.Errorf("%d messages wait, want %d", n, messages-room)
	}
	s.wantBounces(0)
}
