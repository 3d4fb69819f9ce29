package e2e

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	mtatest "mailbag/testdata/mta"
	postfixtest "mailbag/testdata/postfix"
	rqlitetest "mailbag/testdata/rqlite"
)

// startNodes starts three nodes of rqlite, each on a machine of its own, with their files in dir.
func startNodes(t *testing.T, dir string) *rqlitetest.Nodes {
	t.Helper()
	if err := mtatest.Available(besides()); err != nil {
		t.Skip(err)
	}
	if err := rqlitetest.Available(); err != nil {
		t.Skip(err)
	}
	nodes, err := rqlitetest.Start(t.Context(), dir, 3, rqlitetest.Options{Network: true, Args: rqlitetest.Unhurried})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		nodes.Stop()
		for i := range nodes.All {
			if log, err := os.ReadFile(rqlitetest.Dir(dir, i) + ".log"); err == nil && t.Failed() {
				t.Logf("end of the log of node %d:\n%s", i, log[max(0, len(log)-4000):])
			}
		}
	})
	return nodes
}

// onNodes is begin with the ledger on nodes, as on the machine of one of them.
func onNodes(t *testing.T, nodes *rqlitetest.Nodes, machine int, c mtatest.Config) *story {
	t.Helper()
	s := &story{t: t, mta: mtatest.Prepare(t, besides(), c), nodes: nodes, machine: machine}
	s.start()
	return s
}

// leader waits until a node leads the others, and returns its number.
func (s *story) leader() (leader int) {
	s.t.Helper()
	s.waitFor("the nodes to have a leader", func() bool {
		leader = s.nodes.Leader()
		return leader >= 0
	})
	return leader
}

// load is what senders hear who send one message after another until it is stopped.
type load struct {
	over    chan struct{}
	senders sync.WaitGroup

	mu    sync.Mutex
	heard map[string]int // by the outcome; "250" is a message that was accepted
}

// load begins to send so many at a time.
func (s *story) load(senders int, to ...string) *load {
	l := &load{over: make(chan struct{}), heard: map[string]int{}}
	data, _ := letter("load", 5)
	for range senders {
		l.senders.Go(func() {
			for {
				select {
				case <-l.over:
					return
				default:
				}
				outcome, err := postfixtest.Send(s.mta.Addr(), "", postfixtest.Mail{From: "x@elsewhere.example", To: to, Data: []byte(data)})
				l.note(outcome, err)
			}
		})
	}
	return l
}

func (l *load) note(o postfixtest.Outcome, err error) {
	what := "250"
	switch refused := slices.IndexFunc(o.Recipients, func(reply string) bool { return reply[0] != '2' }); {
	case err != nil:
		what = err.Error()
	case refused >= 0:
		what = o.Recipients[refused]
	case !o.Accepted():
		what = o.Data
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heard[what]++
}

// outcomes are how many messages were accepted so far, and what else the senders heard.
func (l *load) outcomes() (accepted int, refusals []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, what := range slices.Sorted(maps.Keys(l.heard)) {
		if what == "250" {
			accepted = l.heard[what]
		} else {
			refusals = append(refusals, fmt.Sprintf("%d × %s", l.heard[what], what))
		}
	}
	return accepted, refusals
}

// more waits until so many more messages were accepted.
func (l *load) more(s *story, n int) {
	s.t.Helper()
	before, _ := l.outcomes()
	s.waitFor(fmt.Sprint(n, " more messages to be accepted"), func() bool {
		accepted, _ := l.outcomes()
		return accepted >= before+n
	})
}

// stop waits for what is under way.
func (l *load) stop() (accepted int, refusals []string) {
	close(l.over)
	l.senders.Wait()
	return l.outcomes()
}

// TestNoSenderHearsOfALeadersDeath kills the leader of the nodes again and again while mail comes in.
func TestNoSenderHearsOfALeadersDeath(t *testing.T) {
	t.Parallel()
	s := onNodes(t, startNodes(t, t.TempDir()), 0, mtatest.Config{})
	s.etrn("acme", "acme.example")
	s.etrn("globex", "globex.example")
	l := s.load(6, "a@acme.example", "b@globex.example", "c@globex.example")
	longest := time.Duration(0)
	for range 5 {
		l.more(s, 20)
		killed := s.nodes.All[s.leader()]
		before := time.Now()
		killed.Kill()
		l.more(s, 20)
		longest = max(longest, time.Since(before))
		s.must(killed.Start())
		s.must(s.nodes.Wait(t.Context()))
	}
	accepted, refusals := l.stop()
	t.Logf("%d messages; it took %v at most until twenty more were accepted", accepted, longest)
	if words := strings.Join(refusals, "\n"); len(refusals) > 0 && longest < 8*time.Second {
		t.Errorf("senders heard %s", words)
	} else if len(refusals) > 0 { // mailbag-policyd waits for ten seconds
		t.Logf("the machine is too slow for what senders hear to tell anything: %s", words)
	}
	s.wantCounted(200, "acme", "globex")
}

// TestKillsOfLeadersAndOfTheDaemonInTurns kills both without warning while mail pours in, the daemon with its sockets kept
// open as systemd does.
func TestKillsOfLeadersAndOfTheDaemonInTurns(t *testing.T) {
	t.Parallel()
	s := onNodes(t, startNodes(t, t.TempDir()), 0, mtatest.Config{})
	s.etrn("acme", "acme.example")
	s.etrn("globex", "globex.example")
	s.must(s.Stop())
	s.must(s.HoldSockets())
	s.must(s.Start())
	both := s.load(4, "a@acme.example", "b@globex.example", "c@globex.example")
	one := s.load(2, "d@acme.example")
	for range 6 {
		// The pauses are the point: the blows must fall anywhere, also while the other is away.
		pause := func() { <-time.After(time.Duration(rand.IntN(1200)) * time.Millisecond) }
		both.more(s, 5)
		leader := s.nodes.All[s.leader()]
		leader.Kill()
		pause()
		s.Kill()
		s.must(s.Launch())
		pause()
		s.must(leader.Start())
		pause()
		s.Kill()
		s.must(s.Launch())
	}
	both.more(s, 20) // it has healed
	accepted, refusals := both.stop()
	alone, _ := one.stop()
	t.Logf("%d and %d messages were accepted; otherwise senders heard %s", accepted, alone, strings.Join(refusals, "\n"))
	s.wantCounted(50, "acme", "globex")
	s.must(s.Stop())
	s.must(s.Start())
	s.wantCounted(50, "acme", "globex") // also what was taken back at the end
}

// set replaces a text in the settings.
func (s *story) set(old, with string) {
	s.t.Helper()
	text, err := os.ReadFile(s.Config)
	s.must(err)
	if strings.Count(string(text), old) != 1 {
		s.t.Fatalf("%q is not once in\n%s", old, text)
	}
	s.must(os.WriteFile(s.Config, []byte(strings.Replace(string(text), old, with, 1)), 0o644))
}
