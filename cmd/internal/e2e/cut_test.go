package e2e

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	mtatest "mailbag/testdata/mta"
	"mailbag/testdata/peer"
	postfixtest "mailbag/testdata/postfix"
)

// confirmed are the messages, by their recipients, of whose delivery turnd had read the confirmation: the octets that came
// up the line. The sink of these stories names the recipient in its reply.
var confirmed = regexp.MustCompile(`250 2\.0\.0 Ok ([^\r\n]+)\r\n`)

// naming is a sink that confirms a message with the name of its recipient.
func naming(t *testing.T, extensions []string) *postfixtest.Sink {
	t.Helper()
	s, err := postfixtest.NewSink()
	if err != nil {
		t.Fatal(err)
	}
	s.Extensions = extensions
	s.OnMessage = func(m postfixtest.Message) string { return "250 2.0.0 Ok " + m.Recipients[0] }
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

// TestCutAnywhereLosesNothing cuts the customer's connection after so many octets, of one direction and of the other, over
// a whole session. What the customer's server confirmed before does not come again, and everything comes.
func TestCutAnywhereLosesNothing(t *testing.T) {
	const (
		messages = 4
		size     = 300
		lanes    = 6 // accounts that are cut at the same time, each at other places
		places   = 10
	)
	s := turning(t, mtatest.Config{}, `idle_wait = "100ms"`, `first_wait = "5s"`)
	for lane := range lanes {
		s.atrn(fmt.Sprint("lane", lane), fmt.Sprintf("lane%d.example", lane))
	}
	var cutting sync.WaitGroup
	var cuts atomic.Int64
	for lane := range lanes {
		cutting.Go(func() {
			name := fmt.Sprint("lane", lane)
			extensions := postfixtest.Chunking
			if lane%3 == 2 {
				extensions = []string{"PIPELINING", "8BITMIME"}
			}
			for place := range places {
				customer := naming(t, extensions)
				line := peer.Line{Heard: new(peer.Heard)}
				// A log-in takes some 250 octets up and 400 down, the turned session 1,500 up and 3,500 down.
				if at := int64(place*lanes + lane); lane%2 == 0 {
					line.CutUp = 60 + at*29
				} else {
					line.CutDown = 250 + at*67
				}
				proxy := peer.RunProxy(t, s.ODMR, line)
				if err := s.accepted(name, messages, size); err != nil {
					t.Error(err)
					return
				}
				caller := s.caller(name, customer.Addr())
				caller.Server = proxy.Addr()
				_, _ = caller.Run(s.soon()) // cut
				heard := confirmed.FindAllSubmatch(line.Heard.Octets(), -1)
				before := arrived(customer.Messages())
				cuts.Add(1)
				// Whatever happened, all of it comes by further calls.
				var reply string
				caller.Server = s.ODMR
				_ = postfixtest.Wait("", func() bool { // 451 while the turn that was cut ends
					reply, _ = caller.Run(s.soon())
					return strings.HasPrefix(reply, "453")
				})
				got := arrived(customer.Messages())
				for i := range messages {
					if got[fmt.Sprintf("%d@%s.example", i, name)] == 0 {
						t.Errorf("cut at %+v: message %d is lost; ATRN says %q", line, i, reply)
					}
				}
				for _, m := range heard {
					if to := string(m[1]); got[to] > 1 {
						t.Errorf("cut at up %d, down %d: %s was confirmed before the cut (%d of %d then) and came %d times", line.CutUp, line.CutDown, to, before[to], len(before), got[to])
					}
				}
				customer.Stop()
				proxy.Stop()
			}
		})
	}
	cutting.Wait()
	s.waitFor("the queue is empty", func() bool { return s.queued() == 0 })
	if s.mta.Bounced() > 0 {
		t.Error("a message was bounced")
	}
	t.Logf("%d sessions were cut", cuts.Load())
}

// accepted has n messages for an account accepted, for recipients 0@ to n-1@.
func (s *story) accepted(account string, n, octets int) error {
	c, err := postfixtest.Dial(s.mta.Addr(), "")
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Say("EHLO client.example"); err != nil {
		return err
	}
	data := []byte("Subject: cut\r\n\r\n" + string(bytes.Repeat([]byte{'x'}, octets)) + "\r\n")
	for i := range n {
		o, err := c.Send(postfixtest.Mail{From: "x@elsewhere.example", To: []string{fmt.Sprintf("%d@%s.example", i, account)}, Data: data})
		if err != nil || !o.Accepted() {
			return fmt.Errorf("not accepted: %+v, %w", o, err)
		}
	}
	return nil
}

// inMidTurn holds n messages for an account, begins a turn, does something to it when the customer has a third of them, and
// then fetches until nothing is left. All messages have to arrive, and nothing may be bounced.
func inMidTurn(t *testing.T, again int, do func(s *story)) {
	t.Helper()
	const n = 300
	s := turning(t, mtatest.Config{}, `idle_wait = "200ms"`)
	third := make(chan struct{})
	reached := sync.OnceFunc(func() { close(third) })
	var taken atomic.Int64
	customer, err := postfixtest.NewSink()
	s.must(err)
	customer.Extensions = postfixtest.Chunking
	customer.OnMessage = func(postfixtest.Message) string {
		if taken.Add(1) == n/3 {
			reached()
		}
		<-time.After(20 * time.Millisecond) // slow enough for the turn to last
		return ""
	}
	s.must(customer.Start())
	t.Cleanup(customer.Stop)
	s.atrn("acme", "acme.example")
	s.hold(n, 1000, "acme.example")
	var calling sync.WaitGroup
	calling.Go(func() { _, _ = s.caller("acme", customer.Addr()).Run(s.soon()) })
	select {
	case <-third:
	case <-time.After(postfixtest.Patience):
		t.Fatal("the turn does not get to a third")
	}
	do(s)
	calling.Wait()
	s.fetch("acme", customer.Addr(), 20)
	// What the customer confirmed and the MTA did not hear of waits again from the next pass over
	// the queue on, which mailbag-policyd makes when it starts.
	s.must(s.Stop())
	s.must(s.Start())
	s.waitFor("a pass over the queue", func() bool {
		passed, err := s.Metric("mailbag_queue_pass_timestamp_seconds")
		return err == nil && passed > 0
	})
	s.fetch("acme", customer.Addr(), 20)
	// A message that was under way over Postfix's restart stays for a minute, without a recipient.
	s.must(s.mta.WaitQueue("nothing left to deliver", func(q []postfixtest.Entry) bool {
		return !slices.ContainsFunc(q, func(e postfixtest.Entry) bool { return len(e.Recipients) > 0 })
	}))
	got := arrived(customer.Messages())
	s.wantEach(n, "acme.example", got, true)
	twice := 0
	for _, c := range got {
		twice += c - 1
	}
	t.Logf("%d messages came twice", twice)
	if twice > again {
		t.Errorf("%d messages came twice, of which at most %d can have been under way", twice, again)
	}
	if s.mta.Bounced() > 0 {
		t.Error("a message was bounced")
	}
}

// What was under way to the customer when turnd died: at most one message for each of Postfix's hundred connections.
func TestTurndKilledInMidTurnLosesNothing(t *testing.T) {
	inMidTurn(t, 100, func(s *story) {
		s.Turnd.Kill()
		s.must(s.Turnd.Start())
	})
}

func TestTurndStoppedInMidTurnFinishesWhatIsUnderWay(t *testing.T) {
	inMidTurn(t, 0, func(s *story) {
		s.must(s.Turnd.Stop())
		if list := s.turnsOf("acme"); len(list) != 1 || list[0].Messages < 100 || list[0].Messages >= 300 {
			s.t.Errorf("the turns are %+v", list)
		}
		s.must(s.Turnd.Start())
	})
}

func TestPostfixReloadedInMidTurnLosesNothing(t *testing.T) {
	inMidTurn(t, 0, func(s *story) { s.must(s.mta.Reload()) })
}

func TestPostfixRestartedInMidTurnLosesNothing(t *testing.T) {
	inMidTurn(t, 0, func(s *story) {
		s.must(s.mta.Stop())
		s.must(s.mta.Start())
	})
}
