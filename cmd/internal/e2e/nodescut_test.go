package e2e

import (
	"fmt"
	"math/bits"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	mtatest "mailbag/testdata/mta"
)

// links are the ways between three machines.
var links = [][2]int{{0, 1}, {0, 2}, {1, 0}, {1, 2}, {2, 0}, {2, 1}}

// cuts are one of each kind of how the network of three machines can be cut, whatever the machines are called: sets of
// links, of which there are 15 that differ in more than that, beside none. Which of a kind it is, is chosen at random.
func cuts() (all [][][2]int) {
	orders := [][3]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}}
	kinds := map[int]bool{}
	sets := rand.Perm(1 << len(links))
	slices.SortStableFunc(sets, func(a, b int) int { return bits.OnesCount(uint(a)) - bits.OnesCount(uint(b)) })
	for _, set := range sets {
		kind := set
		var cut [][2]int
		for i, link := range links {
			if set&(1<<i) != 0 {
				cut = append(cut, link)
			}
		}
		for _, order := range orders {
			same := 0
			for _, link := range cut {
				same |= 1 << slices.Index(links, [2]int{order[link[0]], order[link[1]]})
			}
			kind = min(kind, same)
		}
		if len(cut) > 0 && !kinds[kind] {
			kinds[kind] = true
			all = append(all, cut)
		}
	}
	return all
}

func symmetric(cut [][2]int) bool {
	return !slices.ContainsFunc(cut, func(link [2]int) bool { return !slices.Contains(cut, [2]int{link[1], link[0]}) })
}

// TestTheNetworkIsCutInEveryWay cuts it between the nodes, and between the daemon and the nodes of others, while mail
// comes for an account and for a domain that is none of its.
func TestTheNetworkIsCutInEveryWay(t *testing.T) {
	t.Parallel()
	var halves [2][][][2]int // two at a time: where nobody answers the daemon, each takes its ten seconds
	for i, cut := range cuts() {
		halves[i%2] = append(halves[i%2], cut)
	}
	for i, half := range halves {
		t.Run(fmt.Sprint(i+1), func(t *testing.T) {
			t.Parallel()
			testCuts(t, half)
		})
	}
}

func testCuts(t *testing.T, cuts [][][2]int) {
	s := onNodes(t, startNodes(t, t.TempDir()), 0, mtatest.Config{Local: []string{"local.example"}})
	s.etrn("acme", "acme.example")
	ours := s.load(3, "a@acme.example")
	others := s.load(1, "someone@local.example")
	for _, cut := range cuts {
		leader := s.leader()
		for _, link := range cut {
			s.nodes.Network.Cut(link[:1], link[1:])
		}
		begun := time.Now()
		before, refusedBefore := ours.outcomes()
		others.more(s, 3)
		refused := false
		s.waitFor(fmt.Sprint("an answer while the network is cut: ", cut), func() bool {
			accepted, refusals := ours.outcomes()
			refused = fmt.Sprint(refusals) != fmt.Sprint(refusedBefore)
			return refused || accepted >= before+10
		})
		answered := time.Since(begun)
		way := func(from, to int) bool { return !slices.Contains(cut, [2]int{from, to}) }
		both := func(a, b int) bool { return way(a, b) && way(b, a) }
		alone := !both(0, 1) && !both(0, 2)
		switch {
		case alone && !refused:
			t.Errorf("%v: mail was accepted where nothing of the daemon's is answered", cut)
		case !alone && symmetric(cut): // otherwise Raft does not promise a leader
			ours.more(s, 5)
		}
		s.nodes.Network.Mend()
		begun = time.Now()
		ours.more(s, 5)
		t.Logf("%v, led by %d: refused: %v after %v; five more accepted %v after it was mended", cut, leader, refused, answered, time.Since(begun))
	}
	accepted, refusals := ours.stop()
	t.Logf("%d messages were accepted; otherwise senders heard %s", accepted, strings.Join(refusals, "\n"))
	for _, refusal := range refusals {
		if _, reply, _ := strings.Cut(refusal, " × "); !strings.HasPrefix(reply, "451") {
			t.Errorf("a sender heard %s", reply)
		}
	}
	if accepted, refusals := others.stop(); len(refusals) > 0 {
		t.Errorf("of others' mail %d messages were accepted, and senders heard %s", accepted, strings.Join(refusals, "\n"))
	}
	s.wantCounted(int64(5*len(cuts)), "acme")
}
