package e2e

import (
	"slices"
	"strings"
	"testing"

	mtatest "mailbag/testdata/mta"
	"mailbag/testdata/peer"
)

// A message of which the customer's server dies is found out and left to the end, and all others arrive. It is tried once in
// each later turn, and the operator sees its name.
func TestMessageThatKillsTheServerHoldsUpNoOther(t *testing.T) {
	for name, poisons := range map[string]int{"one": 1, "three in a row": 3} {
		t.Run(name, func(t *testing.T) {
			s := turning(t, mtatest.Config{}, prompt...)
			server := peer.RunGateway(t, peer.ChokesOn("POISON"))
			s.dialled("acme", "acme.example", server.Addr())
			good, bad := addresses(60, "good", "acme.example"), addresses(poisons, "bad", "acme.example")
			s.holdEach("x", good[:30]...)
			s.holdEach("POISON", bad...)
			s.holdEach("x", good[30:]...)

			s.turnFor("acme", "acme.example")
			s.wantOnce(arrived(server.Messages()), good...)
			var left []string
			queue, err := s.mta.Queue()
			s.must(err)
			for _, e := range queue {
				left = append(left, e.ID)
			}
			if len(left) != poisons {
				t.Fatalf("%d messages are left, want %d; the turns are %+v", len(left), poisons, s.turnsOf("acme"))
			}
			turns := s.turnsOf("acme")
			if len(turns) != 1 || turns[0].Connections < 2 || !sameIDs(turns[0].Suspects, left) {
				t.Errorf("the turns are %+v, want one with the suspects %v", turns, left)
			}
			listing := s.mailbag("queue", "acme", "--json")
			for _, id := range left {
				if !strings.Contains(listing, id) {
					t.Errorf("mailbag queue does not name %s: %s", id, listing)
				}
			}

			before := len(server.Choked())
			t.Logf("it died %d times to find %d out", before, poisons)
			s.turnFor("acme", "acme.example")
			if again := len(server.Choked()) - before; again != poisons {
				t.Errorf("the next turn tried them %d times, want %d", again, poisons)
			}
			// New mail does not suffer from what is known.
			s.holdEach("x", addresses(5, "new", "acme.example")...)
			before = len(server.Choked())
			s.turnFor("acme", "acme.example")
			s.wantOnce(arrived(server.Messages()), append(good, addresses(5, "new", "acme.example")...)...)
			if again := len(server.Choked()) - before; again != poisons {
				t.Errorf("a turn with new mail tried them %d times, want %d", again, poisons)
			}
			s.wantBounces(0)
		})
	}
}

func sameIDs(a, b []string) bool {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	return slices.Equal(a, b)
}
