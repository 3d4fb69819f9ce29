package e2e

import (
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	mtatest "mailbag/testdata/mta"
	postfixtest "mailbag/testdata/postfix"
)

// TestKilledAgainAndAgainTheLedgerIsExact kills the daemon without warning while mail pours in, with
// its sockets kept open as systemd does. Whatever Postfix accepted is counted once, whatever it
// refused is not.
func TestKilledAgainAndAgainTheLedgerIsExact(t *testing.T) {
	s := begin(t, mtatest.Config{})
	for _, account := range []string{"acme", "globex"} {
		s.etrn(account, account+".example")
	}
	s.must(s.Stop())
	s.must(s.HoldSockets())
	s.must(s.Start())

	stop := make(chan struct{})
	var load sync.WaitGroup
	stopped := func() bool {
		select {
		case <-stop:
			return true
		default:
			return false
		}
	}
	for _, recipients := range []string{"1", "3"} {
		load.Go(func() {
			for !stopped() {
				// It gives up at the first refusal, and is started again.
				exec.Command("smtp-source", "-s", "4", "-m", "50", "-l", "2000", "-r", recipients,
					"-f", "x@elsewhere.example", "-t", "a@acme.example", s.mta.Addr()).Run()
			}
		})
	}
	load.Go(func() {
		data, _ := letter("to both", 5)
		for !stopped() {
			postfixtest.Send(s.mta.Addr(), "", postfixtest.Mail{
				From: "x@elsewhere.example", To: []string{"a@acme.example", "b@globex.example", "c@globex.example"}, Data: []byte(data),
			})
		}
	})
	const enough = 100 // messages
	kills := 0
	// On a busy machine few messages get in between two blows.
	for until := time.Now().Add(3 * time.Minute); kills < 15 || s.queued() < enough && time.Now().Before(until); kills++ {
		// The pause is the point: the blow must fall anywhere.
		<-time.After(time.Duration(100+rand.IntN(900)) * time.Millisecond)
		s.Kill()
		s.must(s.Launch())
	}
	close(stop)
	load.Wait()
	s.must(s.Stop())
	s.idle() // what was answered last is being put into the queue

	list, err := s.mta.Queue()
	s.must(err)
	accepted := map[string]int64{}
	for _, entry := range list {
		seen := map[string]bool{}
		for _, recipient := range entry.Recipients {
			_, domain, _ := strings.Cut(recipient.Address, "@")
			if !seen[domain] {
				seen[domain] = true
				accepted[domain]++
			}
		}
	}
	t.Logf("%d messages accepted over %d kills: %v", len(list), kills, accepted)
	if len(list) < enough {
		t.Errorf("only %d messages were accepted; the test shows nothing", len(list))
	}
	for _, account := range []string{"acme", "globex"} {
		if got, want := s.usage(account).Messages, accepted[account+".example"]; got != want {
			t.Errorf("%s: the ledger has %d messages, Postfix accepted %d", account, got, want)
		}
	}
	if out := s.mailbag("database", "check"); strings.Contains(out, "less than") {
		t.Error(out)
	}
}

func TestStoppedDaemonAnswersWhatItHasRead(t *testing.T) {
	s := begin(t, mtatest.Config{})
	s.etrn("acme", "acme.example")
	s.must(s.Stop())
	s.must(s.HoldSockets())
	s.must(s.Start())
	var load sync.WaitGroup
	var mu sync.Mutex
	accepted := int64(0)
	for i := range 8 {
		load.Go(func() {
			data, _ := letter(fmt.Sprint("from sender ", i), 5)
			for range 25 {
				outcome, err := postfixtest.Send(s.mta.Addr(), "", postfixtest.Mail{From: "x@elsewhere.example", To: []string{"a@acme.example"}, Data: []byte(data)})
				if err != nil || !outcome.Accepted() {
					t.Errorf("refused over a graceful restart: %+v, %v", outcome, err)
					return
				}
				mu.Lock()
				accepted++
				mu.Unlock()
			}
		})
	}
	for range 3 {
		s.must(s.Stop())
		s.must(s.Start())
	}
	load.Wait()
	if got := s.usage("acme").Messages; got != accepted {
		t.Errorf("the ledger has %d messages, %d were accepted", got, accepted)
	}
}
