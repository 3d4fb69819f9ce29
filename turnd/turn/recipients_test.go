package turn

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"

	"mailbag/meter"
	"mailbag/testdata/peer"

	postfixtest "mailbag/testdata/postfix"
)

// all fails the test unless each of so many recipients of hooli's got a message once, in transactions of at most limit.
func (h *house) all(server *postfixtest.Sink, recipients, limit int) {
	h.t.Helper()
	got := map[string]int{}
	for _, m := range server.Messages() {
		if len(m.Recipients) > limit {
			h.t.Errorf("a transaction had %d recipients", len(m.Recipients))
		}
		for _, to := range m.Recipients {
			got[to]++
		}
	}
	for i := range recipients {
		if n := got[fmt.Sprintf("%d@hooli.example", i)]; n != 1 {
			h.t.Errorf("recipient %d got it %d times", i, n)
		}
	}
	if h.held() != 0 || h.waiting("hooli") != 0 || len(h.returned) != 0 {
		h.t.Errorf("%d messages are held, %d wait by the index, %v were returned", h.held(), h.waiting("hooli"), h.returned)
	}
}

func TestMessageForMoreRecipientsThanATransactionTakesReachesAll(t *testing.T) {
	t.Parallel()
	const recipients, limit = 10, 3
	for name, quirk := range map[string]peer.Quirk{
		"announced": peer.Limits(100, limit),
		"kept without a word": func(g *peer.Gateway) {
			peer.Limits(100, limit)(g)
			g.Extensions = slices.Clone(postfixtest.Chunking)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, nil)
			var toomany atomic.Int32
			server := peer.RunGateway(t, quirk, func(g *peer.Gateway) {
				keeps := g.OnCommand
				g.OnCommand = func(s *postfixtest.Session, verb, argument string) string {
					reply := keeps(s, verb, argument)
					if reply != "" {
						toomany.Add(1)
					}
					return reply
				}
			})
			var to []string
			for i := range recipients {
				to = append(to, fmt.Sprintf("%d@hooli.example", i))
			}
			h.hold(true, hello, to...)
			r := h.dialled(server.Sink)
			h.all(server.Sink, recipients, limit)
			if r.Outcome != "done" || r.Connections != 1 || len(server.Messages()) != (recipients+limit-1)/limit {
				t.Errorf("recorded %+v, in %d transactions", r, len(server.Messages()))
			}
			if name == "announced" && toomany.Load() > 0 {
				t.Errorf("the server had to refuse %d times", toomany.Load())
			}
		})
	}
}

// Some are of another account, and of no account any more.
func TestOnlyTheRecipientsOfTheTurnGetAMessageThatIsPartlyForIt(t *testing.T) {
	t.Parallel()
	h := newHouse(t, nil)
	server := customer(t, nil)
	h.hold(true, hello+"mixed\r\n", "0@hooli.example", "a@globex.example", "b@hooli.test", "1@hooli.example")
	others := h.hold(false, hello+"others\r\n", "b@hooli.test")
	h.index(others, 100, "b@hooli.example") // whose domain it was
	h.hold(true, hello+"own\r\n", "2@hooli.example")
	r := h.dialled(server)
	got := map[string]int{}
	for _, m := range server.Messages() {
		for _, to := range m.Recipients {
			got[to]++
		}
	}
	if len(got) != 3 || len(server.Messages()) != 2 || r.Outcome != "done" || r.Messages != 2 {
		t.Errorf("arrived for %v, recorded %+v", got, r)
	}
	if h.waiting("hooli") != 1 || h.waiting("globex") != 1 || h.held() != 2 || len(h.returned) != 0 {
		t.Errorf("%d wait for hooli and %d for globex, %d are held, %v were returned", h.waiting("hooli"), h.waiting("globex"), h.held(), h.returned)
	}
	if to := h.queue["Q0000001"].to; !slices.Equal(to, []string{"a@globex.example", "b@hooli.test"}) {
		t.Errorf("the message is left for %q", to)
	}
}

func TestRecipientsBehindThoseThatArePutOffAreTriedToo(t *testing.T) {
	t.Parallel()
	h := newHouse(t, nil)
	full := []string{"full1@hooli.example", "full2@hooli.example"}
	server := peer.RunGateway(t, peer.Limits(100, len(full)), func(g *peer.Gateway) {
		g.OnRecipient = func(address string) string {
			if slices.Contains(full, address) {
				return "452 4.2.2 full"
			}
			return ""
		}
	})
	id := h.hold(true, hello, append(slices.Clone(full), "a@hooli.example")...)
	r := h.dialled(server.Sink)
	if got := server.Messages(); len(got) != 1 || !slices.Equal(got[0].Recipients, []string{"a@hooli.example"}) || r.Outcome != "done" {
		t.Errorf("arrived: %+v; recorded %+v", got, r)
	}
	if to := h.queue[id].to; !slices.Equal(to, full) || h.waiting("hooli") != 1 {
		t.Errorf("the message is left for %q, %d wait by the index", to, h.waiting("hooli"))
	}
}

// With soft_bounce the MTA keeps what is refused for good, and brings it as often as it is asked.
func TestRefusedRecipientsThatTheMTAKeepsAreNotAskedForAgain(t *testing.T) {
	t.Parallel()
	h := newHouse(t, nil)
	h.soft = true
	var tries atomic.Int32
	server := customer(t, func(s *postfixtest.Sink) {
		s.OnRecipient = func(address string) string {
			if address == "full@hooli.example" {
				return "452 4.2.2 full"
			}
			tries.Add(1)
			return "550 5.1.1 unknown"
		}
	})
	h.hold(true, hello, "unknown@hooli.example", "full@hooli.example")
	if r := h.dialled(server); r.Outcome != "done" || tries.Load() != 1 || h.held() != 1 {
		t.Errorf("tried %d times, %d are held, recorded %+v", tries.Load(), h.held(), r)
	}
}

// The MTA brings them in several transactions.
func TestMessageForMoreThanAThousandRecipientsIsStruckOffWhenNoneIsLeft(t *testing.T) {
	t.Parallel()
	h := newHouse(t, nil)
	for name, c := range map[string]struct {
		first verdict
		want  []string
	}{"none": {gone, []string{"A"}}, "one is put off": {again, nil}, "all of the first are put off": {kept, nil}} {
		t.Run(name, func(t *testing.T) {
			w := suspicious(t, h, meter.WaitingMessage{ID: "A"})
			w.bring("A")
			w.answered("A", 1, recipientLimit, nil, c.first)
			w.bring("A")
			w.answered("A", 1, 200, nil, gone)
			if !slices.Equal(w.book.struck, c.want) {
				t.Errorf("%q are struck off, want %q", w.book.struck, c.want)
			}
		})
	}
}
