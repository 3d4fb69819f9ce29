package e2e

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"mailbag/meter"
	"mailbag/meter/login"
	mtatest "mailbag/testdata/mta"
	postfixtest "mailbag/testdata/postfix"
)

// TestSlowCustomerHoldsNobodyUp is the reason for windows: all of a customer's mail in the active queue at once keeps
// everybody else's out of it for as long as that customer takes.
func TestSlowCustomerHoldsNobodyUp(t *testing.T) {
	// More than Postfix's active queue has room for. What Exim has no queue in memory for is shown by fewer.
	backlog := by(25_000, 2_000)
	s := turning(t, mtatest.Config{Postfix: map[string]string{
		// A backlog is rescanned when it has waited for long; that is not what this is about.
		"minimal_backoff_time": "1h", "maximal_backoff_time": "1h",
	}})
	slow, err := postfixtest.NewSink()
	s.must(err)
	slow.OnMessage = func(postfixtest.Message) string { <-time.After(250 * time.Millisecond); return "" } // four a second
	s.must(slow.Start())
	t.Cleanup(slow.Stop)
	quick, backup := sink(t), sink(t)
	s.atrn("slow", "slow.example")
	s.atrn("quick", "quick.example")
	s.account("backup", "backup", "backup.example", "--host", backup.Addr())
	began := time.Now()
	s.hold(500, 2000, "quick.example")
	s.hold(backlog, 500, "slow.example")
	t.Logf("%d messages were held after %v", backlog, time.Since(began).Round(time.Second))
	s.background(func() { _, _ = s.caller("slow", slow.Addr()).Run(t.Context()) }) // for as long as the test takes
	_, err = slow.WaitMessages(8)
	s.must(err)

	data, _ := letter("meanwhile", 10)
	for i := range 5 {
		sent := time.Now()
		s.accept(data, "a@backup.example")
		_, err = backup.WaitMessages(i + 1)
		s.must(err)
		t.Logf("a message for the backup domain took %v", time.Since(sent).Round(time.Millisecond))
	}
	before := len(slow.Messages())
	ended := make(chan error, 1)
	soon := s.soon()
	go func() { _, err := s.caller("quick", quick.Addr()).Run(soon); ended <- err }()
	_, err = quick.WaitMessages(500)
	s.must(err)
	if n := len(slow.Messages()) - before; n > 480 {
		t.Errorf("the quick customer's 500 messages took as long as %d of the slow one's: two minutes", n)
	} else {
		t.Logf("the slow customer took %d messages meanwhile", n)
	}
	s.must(<-ended)
	s.wantEach(500, "quick.example", arrived(quick.Messages()), false)
	if !s.open("slow") {
		t.Error("the slow customer's turn is over; the test shows nothing")
	}
	slow.Stop() // it would take two hours
}

// A held message may be busy with a recipient of another domain for as long as that one's server takes. A turn must not
// say meanwhile that nothing waits.
func TestHeldMessageBehindAHangingRecipientIsNotForgotten(t *testing.T) {
	s := beginPostfix(t, "it takes held and other mail in messages of their own", postfixtest.Config{}, nil)
	s.startTurns()
	acme := sink(t)
	hanging, err := postfixtest.NewSink()
	s.must(err)
	release := make(chan struct{})
	let := sync.OnceFunc(func() { close(release) })
	hanging.OnMessage = func(postfixtest.Message) string { <-release; return "" }
	s.must(hanging.Start())
	t.Cleanup(hanging.Stop)
	t.Cleanup(let)
	s.atrn("acme", "acme.example")
	s.account("backup", "backup", "backup.example", "--host", hanging.Addr())
	data, _ := letter("for both", 5)
	s.accept(data, "a@acme.example", "b@backup.example")
	s.waitFor("acme's part is held", func() bool { return strings.Contains(s.mta.Log(), "to=<a@acme.example>, relay=none") })
	if reply := s.call("acme", acme.Addr()); !strings.HasPrefix(reply, "451 ") {
		t.Errorf("ATRN while the only message is stuck: %s", reply)
	}
	let()
	s.waitFor("the message is back in the deferred queue", func() bool { return s.deferred() == 1 })
	if reply := s.call("acme", acme.Addr()); !strings.HasPrefix(reply, "250 ") {
		t.Errorf("ATRN afterwards: %s", reply)
	}
	if got := arrived(acme.Messages()); got["a@acme.example"] != 1 {
		t.Errorf("acme got %v", got)
	}
}

func TestFiveThousandMessagesInOneTurnAndWhatComesMeanwhile(t *testing.T) {
	s := turning(t, mtatest.Config{})
	acme := sink(t)
	s.atrn("acme", "acme.example", "acme.test")
	s.hold(5000, 1000, "acme.example")
	var calling sync.WaitGroup
	calling.Go(func() {
		if reply, err := s.caller("acme", acme.Addr()).Run(s.soon()); err != nil || !strings.HasPrefix(reply, "250") {
			t.Errorf("ATRN: %s, %v", reply, err)
		}
	})
	_, err := acme.WaitMessages(1)
	s.must(err)
	s.inject(200, 1000, "user@acme.test")
	calling.Wait()
	s.settled("acme")
	s.wantEach(5000, "acme.example", arrived(acme.Messages()), false)
	s.wantEach(200, "acme.test", arrived(acme.Messages()), false)
	if list := s.turnsOf("acme"); len(list) != 1 || list[0].Messages != 5200 {
		t.Errorf("the turns are %+v", list)
	}
	if reply := s.call("acme", acme.Addr()); !strings.HasPrefix(reply, "453 ") {
		t.Errorf("ATRN with nothing waiting: %s", reply)
	}
}

func TestTwoHundredTurnsAtOnce(t *testing.T) {
	const accounts = 200
	s := turning(t, mtatest.Config{}, "max_turns = 200", `first_wait = "10m"`)
	customer, err := postfixtest.NewSink()
	s.must(err)
	all := make(chan struct{}) // closed when all turns are open: nobody's mail is taken before
	open := sync.OnceFunc(func() { close(all) })
	customer.OnMessage = func(postfixtest.Message) string { <-all; return "" }
	s.must(customer.Start())
	t.Cleanup(customer.Stop)
	t.Cleanup(open)
	name := func(i int) string { return fmt.Sprint("customer", i) }
	// Not by the command line, which would take longer than all the rest.
	ledger, err := meter.Open(t.Context(), s.Ledger, meter.Options{})
	s.must(err)
	verifier, err := login.NewVerifier(password, false)
	s.must(err)
	for i := range accounts + 1 { // one more than may have a turn
		s.must(ledger.AddAccount(t.Context(), meter.Account{Name: name(i), Mode: meter.ATRN, Recipients: meter.AnyRecipient, Copies: meter.PerRecipient, Domains: []string{name(i) + ".example"}}, verifier))
	}
	s.must(ledger.Close())
	s.must(s.AwaitDomain(name(accounts)+".example", name(accounts)))
	data, _ := letter("one for each", 3)
	var sending sync.WaitGroup
	for w := range 10 {
		sending.Go(func() {
			for i := w; i <= accounts; i += 10 {
				outcome, err := postfixtest.Send(s.mta.Addr(), "", postfixtest.Mail{From: "x@elsewhere.example", To: []string{"a@" + name(i) + ".example"}, Data: []byte(data)})
				if err != nil || !outcome.Accepted() {
					t.Errorf("%+v, %v", outcome, err)
				}
			}
		})
	}
	sending.Wait()
	s.must(postfixtest.Wait("all mail is held", func() bool { return s.deferred() == accounts+1 }))
	var calling sync.WaitGroup
	for i := range accounts {
		calling.Go(func() {
			caller := s.caller(name(i), customer.Addr())
			caller.From = fmt.Sprint("127.0.1.", i+1) // customers are not all at one address
			if reply, err := caller.Run(s.soon()); err != nil || !strings.HasPrefix(reply, "250") {
				t.Errorf("ATRN by %s: %s, %v", name(i), reply, err)
			}
		})
	}
	s.must(postfixtest.Wait("all turns are open", func() bool {
		for i := range accounts {
			if !s.open(name(i)) {
				return false
			}
		}
		return true
	}))
	for i, want := range map[int]string{0: "451 4.3.2", accounts: "451 4.3.2"} { // a second turn, and one too many
		if reply := s.call(name(i), customer.Addr()); !strings.HasPrefix(reply, want) {
			t.Errorf("ATRN by %s while %d turns are open: %s", name(i), accounts, reply)
		}
	}
	open()
	calling.Wait()
	if n := len(customer.Messages()); n != accounts {
		t.Errorf("%d messages arrived", n)
	}
	s.fetch(name(accounts), customer.Addr(), 1) // 451 while all others still end
	if n := len(customer.Messages()); n != accounts+1 {
		t.Errorf("%d messages arrived", n)
	}
}
