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
	t.Logf("%d kills", kills)
	s.wantCounted(enough, "acme", "globex")
	if out := s.mailbag("database", "check"); strings.Contains(out, "less than") {
		t.Error(out)
	}
}

// wantCounted fails the test where an account, whose domain is called like it, used another number of messages than the MTA
// accepted and keeps for it, or where the first has fewer than shows something. What was counted and not answered is taken back
// a little later.
func (s *story) wantCounted(enough int64, accounts ...string) {
	s.t.Helper()
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
	s.t.Logf("accepted: %v", accepted)
	for i, account := range accounts {
		want := accepted[account+".example"]
		got := int64(0)
		if postfixtest.Wait("", func() bool { got = s.usage(account).Messages; return got == want }) != nil {
			s.t.Errorf("%s: the ledger has %d messages, %s accepted %d", account, got, s.mta, want)
		}
		if i == 0 && want < enough {
			s.t.Errorf("only %d messages for %s were accepted; the test shows nothing", want, account)
		}
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
