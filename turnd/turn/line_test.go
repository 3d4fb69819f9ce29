package turn

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"mailbag/meter"
	"mailbag/testdata/peer"
	"mailbag/turnd/relay"

	postfixtest "mailbag/testdata/postfix"
)

// fill holds n messages for a recipient, whose last lines are their numbers.
func (h *house) fill(n int, to string) (ids []string) {
	h.t.Helper()
	for i := range n {
		ids = append(ids, h.hold(true, fmt.Sprintf("%s%d\r\n", hello, i), to))
	}
	return ids
}

// dialled is a whole turn to hooli's server. It returns its record.
func (h *house) dialled(server *postfixtest.Sink) meter.Turn {
	h.t.Helper()
	if err := h.etrn(server.Addr()); err != nil {
		h.t.Fatal(err)
	}
	h.until("the turn is over", func() bool { return !h.turns.Open("hooli") && h.idle() })
	return h.record()
}

// once fails the test unless the server got n messages, each once, and nothing is held any more.
func (h *house) once(server *postfixtest.Sink, n int) {
	h.t.Helper()
	got := contents(server)
	for i := range n {
		if got[fmt.Sprint(i)] != 1 {
			h.t.Errorf("message %d arrived %d times", i, got[fmt.Sprint(i)])
		}
	}
	if h.held() != 0 || h.waiting("hooli") != 0 {
		h.t.Errorf("%d messages are held, %d wait by the index", h.held(), h.waiting("hooli"))
	}
	if n := h.turns.released.Load(); n != 0 {
		h.t.Errorf("%d messages seem to be released still", n)
	}
}

// A refusals counts the MAIL commands that a server was sent, by connection, behind the last that it took there.
type refusals struct {
	mu sync.Mutex
	of map[int]int
}

func (r *refusals) quirk(n int) peer.Quirk {
	r.of = map[int]int{}
	return func(g *peer.Gateway) {
		before := g.OnCommand
		g.OnCommand = func(s *postfixtest.Session, verb, argument string) string {
			if verb == "MAIL" && s.Taken >= n {
				r.mu.Lock()
				r.of[s.Number]++
				r.mu.Unlock()
			}
			if before == nil {
				return ""
			}
			return before(s, verb, argument)
		}
	}
}

// Servers bound what they take on one connection, and few say so before.
func TestDialledTurnGoesOnWhereTheServerEndsAConnection(t *testing.T) {
	t.Parallel()
	const n, each = 50, 10
	for name, quirk := range map[string]peer.Quirk{
		"by 421":         peer.EndsAfter(each, "421 4.7.0 enough"),
		"by 452 to MAIL": peer.EndsAfter(each, "452 4.5.3 enough"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, nil)
			var refused refusals
			server := peer.RunGateway(t, quirk, refused.quirk(each))
			h.fill(n, "a@hooli.example")
			r := h.dialled(server.Sink)
			h.once(server.Sink, n)
			if r.Outcome != "done" || r.Messages != n || len(r.Suspects) != 0 || r.Connections != server.Sessions() {
				t.Errorf("recorded %+v, over %d connections", r, server.Sessions())
			}
			if r.Connections < n/each || r.Connections > n/each+1 {
				t.Errorf("it took %d connections", r.Connections)
			}
			for number := 3; number <= server.Sessions(); number++ {
				if refused.of[number] > 0 {
					t.Errorf("connection %d was sent %d transactions more than the two before had", number, refused.of[number])
				}
			}
			if refused.of[1] == 0 {
				t.Error("the first connection was not ended by the server")
			}

			// What was learnt is for the next turn too.
			h.fill(2*each, "a@hooli.example")
			first := server.Sessions() + 1
			if r := h.dialled(server.Sink); r.Outcome != "done" || r.Messages != 2*each {
				t.Errorf("recorded of the next turn %+v", r)
			}
			if refused.of[first] > 0 {
				t.Errorf("the next turn's first connection was sent %d transactions too many", refused.of[first])
			}
		})
	}
}

// Nothing tells such an end from one because of a message, but that others came before it.
func TestServerThatHangsUpAfterSoManyMessagesLosesNone(t *testing.T) {
	t.Parallel()
	h := newHouse(t, nil)
	server := peer.RunGateway(t, peer.EndsAfter(10, postfixtest.HangUp))
	const n = 50
	h.fill(n, "a@hooli.example")
	if r := h.dialled(server.Sink); r.Messages < n-2 || r.Connections > n/10+3 {
		t.Errorf("recorded %+v", r)
	}
	if h.waiting("hooli") > 0 { // one that was under way alone
		h.dialled(server.Sink)
	}
	h.once(server.Sink, n)
}

func TestHangingUpBetweenMessagesMakesNoneSuspect(t *testing.T) {
	t.Parallel()
	h := newHouse(t, nil)
	h.mta.gate = make(chan struct{}, 1) // the MTA brings one at a time
	server := peer.RunGateway(t, peer.EndsAfter(10, postfixtest.HangUp))
	const n = 50
	h.fill(n, "a@hooli.example")
	if r := h.dialled(server.Sink); r.Outcome != "done" || len(r.Suspects) != 0 {
		t.Errorf("recorded %+v", r)
	}
	h.once(server.Sink, n)
}

// After how many messages varies, so that nothing is learnt of it.
func TestServerThatHangsUpNowAndThenMakesNoneSuspect(t *testing.T) {
	t.Parallel()
	h := newHouse(t, nil)
	const n = 12
	h.fill(n, "a@hooli.example")
	server := customer(t, func(s *postfixtest.Sink) {
		s.OnCommand = func(s *postfixtest.Session, verb, _ string) string {
			if verb == "MAIL" && s.Taken >= 3+s.Number%3 {
				return postfixtest.HangUp
			}
			return ""
		}
	})
	if r := h.dialled(server); r.Outcome != "done" || len(r.Suspects) != 0 || len(h.suspects("hooli")) != 0 {
		t.Errorf("recorded %+v; the index suspects %v", r, h.suspects("hooli"))
	}
	h.once(server, n)
}

// tried is how often each reverse-path was said to a server, and on how many connections.
type tried struct {
	mu    sync.Mutex
	times map[string]int
	over  map[string]map[int]bool
}

func (c *tried) quirk(g *peer.Gateway) {
	c.times, c.over = map[string]int{}, map[string]map[int]bool{}
	before := g.OnCommand
	g.OnCommand = func(s *postfixtest.Session, verb, argument string) string {
		if verb == "MAIL" {
			from, _, _ := strings.Cut(strings.TrimPrefix(argument, "FROM:<"), ">")
			c.mu.Lock()
			if c.times[from]++; c.over[from] == nil {
				c.over[from] = map[int]bool{}
			}
			c.over[from][s.Number] = true
			c.mu.Unlock()
		}
		if before == nil {
			return ""
		}
		return before(s, verb, argument)
	}
}

// from gives a message that is held another sender.
func (h *house) from(id, sender string) {
	h.mta.mu.Lock()
	defer h.mta.mu.Unlock()
	l := h.queue[id]
	l.from = sender
	h.queue[id] = l
}

func TestAnnouncedLimitOfTransactionsIsKept(t *testing.T) {
	t.Parallel()
	h := newHouse(t, nil)
	const n, most = 30, 8
	tooMany := make(chan struct{}, n)
	server := peer.RunGateway(t, peer.Limits(most, 100), func(g *peer.Gateway) {
		keeps := g.OnCommand
		g.OnCommand = func(s *postfixtest.Session, verb, argument string) string {
			reply := keeps(s, verb, argument)
			if strings.HasPrefix(reply, "421") {
				tooMany <- struct{}{}
			}
			return reply
		}
	})
	h.fill(n, "a@hooli.example")
	r := h.dialled(server.Sink)
	h.once(server.Sink, n)
	// One transaction of each connection may be for a question.
	if r.Outcome != "done" || len(r.Suspects) != 0 || r.Connections != server.Sessions() || r.Connections > n/(most-1)+1 {
		t.Errorf("recorded %+v, over %d connections", r, server.Sessions())
	}
	if len(tooMany) > 0 {
		t.Errorf("it had to be told %d times", len(tooMany))
	}
}

// Nobody but the customer's server can call for another connection of a reversed turn.
func TestReversedTurnThatALimitOfTransactionsEndedSaysSo(t *testing.T) {
	t.Parallel()
	h := newHouse(t, nil)
	const n, most = 5, 2
	server := peer.RunGateway(t, peer.Limits(most, 100))
	h.fill(n, "a@globex.example")
	err := h.reverse("globex", server.Sink)
	if r := h.record(); !errors.Is(err, ErrLimited) || r.Outcome != "failed: "+ErrLimited.Error() || r.Messages != most {
		t.Errorf("it ended with %v, recorded %+v", err, r)
	}
	if len(server.Messages()) != most || h.held() != n-most || h.waiting("globex") != n-most {
		t.Errorf("%d arrived, %d are held, %d wait by the index", len(server.Messages()), h.held(), h.waiting("globex"))
	}
}

// Greylisting, or a server that is full.
func TestServerThatPutsOffEveryTransactionEndsTheTurn(t *testing.T) {
	t.Parallel()
	for name, reply := range map[string]string{"452": "452 4.3.1 the disk is full", "450": "450 4.7.1 come again"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, nil)
			var mails tried
			server := peer.RunGateway(t, peer.Says("MAIL", reply), mails.quirk)
			const n = 12
			for i, id := range h.fill(n, "a@hooli.example") {
				h.from(id, fmt.Sprintf("%d@sender.example", i))
			}
			r := h.dialled(server.Sink)
			if len(server.Messages()) != 0 || h.held() != n || h.waiting("hooli") != n || len(h.returned) != 0 {
				t.Errorf("%d arrived, %d are held, %d wait by the index, %v were returned", len(server.Messages()), h.held(), h.waiting("hooli"), h.returned)
			}
			if r.Messages != 0 || len(r.Suspects) != 0 || r.Connections > 2*n {
				t.Errorf("recorded %+v", r)
			}
			for i := range n {
				from := fmt.Sprintf("%d@sender.example", i)
				if mails.times[from] > 2 || len(mails.over[from]) > 2 {
					t.Errorf("message %d was tried %d times over %d connections", i, mails.times[from], len(mails.over[from]))
				}
			}
		})
	}
}

func TestServerThatDropsEveryConnectionIsNotDialledForever(t *testing.T) {
	t.Parallel()
	for name, verb := range map[string]string{"at MAIL": "MAIL", "at RCPT": "RCPT"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, nil)
			server := peer.RunGateway(t, peer.Says(verb, postfixtest.HangUp))
			const n = 20
			h.fill(n, "a@hooli.example")
			r := h.dialled(server.Sink)
			if r.Connections > maxFruitless || server.Sessions() > maxFruitless {
				t.Errorf("recorded %+v, over %d connections", r, server.Sessions())
			}
			if !strings.HasPrefix(r.Outcome, "failed: ") || !strings.Contains(r.Outcome, relay.ErrLost.Error()) {
				t.Errorf("recorded %+v", r)
			}
			if h.held() != n || h.waiting("hooli") != n {
				t.Errorf("%d are held, %d wait by the index", h.held(), h.waiting("hooli"))
			}
		})
	}
}

// A policy daemon of the customer's that ends connections for the sake of one sender.
func TestSenderAtWhomTheServerClosesHoldsUpNobody(t *testing.T) {
	t.Parallel()
	h := newHouse(t, nil)
	var mails tried
	server := peer.RunGateway(t, refusesOutcasts("421 4.7.0 not you"), mails.quirk)
	const n = 30
	ids := h.fill(n, "a@hooli.example")
	cast := map[string]bool{"0": true, "10": true, "29": true}
	for i := range n {
		if cast[fmt.Sprint(i)] {
			h.from(ids[i], fmt.Sprintf("outcast@%d.example", i))
		}
	}
	r := h.dialled(server.Sink)
	got := contents(server.Sink)
	for i := range n {
		if want := map[bool]int{false: 1}[cast[fmt.Sprint(i)]]; got[fmt.Sprint(i)] != want {
			t.Errorf("message %d arrived %d times, want %d", i, got[fmt.Sprint(i)], want)
		}
	}
	if h.held() != len(cast) || h.waiting("hooli") != int64(len(cast)) {
		t.Errorf("%d are held, %d wait by the index; recorded %+v", h.held(), h.waiting("hooli"), r)
	}
	if r.Messages != n-int64(len(cast)) {
		t.Errorf("recorded %+v", r)
	}
	if r.Connections > 5*len(cast)+maxFruitless {
		t.Errorf("it took %d connections, and %v tries", r.Connections, mails.times)
	}
}

// refusesOutcasts has a gateway answer MAIL so for the sake of one sender.
func refusesOutcasts(reply string) peer.Quirk {
	return func(g *peer.Gateway) {
		g.OnCommand = func(_ *postfixtest.Session, verb, argument string) string {
			if verb == "MAIL" && strings.Contains(argument, "<outcast@") {
				return reply
			}
			return ""
		}
	}
}

// outcasts holds n messages for a recipient that [refusesOutcasts] is about.
func (h *house) outcasts(n int, to string) {
	h.t.Helper()
	for range n {
		h.from(h.hold(true, hello+"outcast\r\n", to), "outcast@sender.example")
	}
}

func TestSenderAtWhomTheServerClosesTeachesNoLimitOfTransactions(t *testing.T) {
	t.Parallel()
	h := newHouse(t, nil)
	server := peer.RunGateway(t, refusesOutcasts("421 4.7.0 not you"))
	ids := h.fill(30, "a@hooli.example")
	h.from(ids[3], "outcast@sender.example")
	h.dialled(server.Sink)
	if _, served := h.turns.memory.server(h.account("hooli").ID); served != 0 {
		t.Errorf("it is remembered that the server takes %d transactions", served)
	}
	h.fill(30, "a@hooli.example")
	if r := h.dialled(server.Sink); r.Messages != 30 || r.Connections > 10 {
		t.Errorf("recorded of the next turn %+v", r)
	}
}

// Whether it is the connection or the message that the server puts off, a second connection shows.
func TestSenderThatIsPutOffIsTriedOverTwoConnections(t *testing.T) {
	t.Parallel()
	h := newHouse(t, nil)
	var mails tried
	server := peer.RunGateway(t, refusesOutcasts("451 4.7.1 come again"), mails.quirk)
	const n = 20
	h.from(h.fill(n, "a@hooli.example")[3], "outcast@sender.example")
	r := h.dialled(server.Sink)
	if len(contents(server.Sink)) != n-1 || len(server.Messages()) != n-1 || h.held() != 1 || h.waiting("hooli") != 1 {
		t.Errorf("%d arrived, %d are held, %d wait by the index", len(server.Messages()), h.held(), h.waiting("hooli"))
	}
	if r.Connections != 2 || r.Outcome != "done" || len(mails.over["outcast@sender.example"]) != 2 || mails.times["outcast@sender.example"] != 2 {
		t.Errorf("recorded %+v; tried %v over %v", r, mails.times, mails.over)
	}
}

// They come one after the other, and before all others, so that it looks as if the server took nothing at all.
func TestSendersThatArePutOffFirstHoldUpNoOther(t *testing.T) {
	t.Parallel()
	const n, outcasts = 20, 4
	quirk := refusesOutcasts("450 4.1.8 no such domain")
	one := func(t *testing.T, to string) *house {
		h := newHouse(t, nil)
		h.mta.gate = make(chan struct{}, 1) // the MTA brings one at a time
		h.outcasts(outcasts, to)
		h.fill(n, to)
		return h
	}
	check := func(h *house, server *peer.Gateway, account string, r meter.Turn) {
		h.t.Helper()
		if r.Outcome != "done" || r.Messages != n || len(contents(server.Sink)) != n || h.held() != outcasts || h.waiting(account) != outcasts {
			h.t.Errorf("recorded %+v; %d are held, %d wait by the index", r, h.held(), h.waiting(account))
		}
	}
	t.Run("reversed", func(t *testing.T) {
		t.Parallel()
		server := peer.RunGateway(t, quirk)
		h := one(t, "a@globex.example")
		if err := h.reverse("globex", server.Sink); err != nil {
			t.Error(err)
		}
		check(h, server, "globex", h.record())
	})
	t.Run("dialled", func(t *testing.T) {
		t.Parallel()
		server := peer.RunGateway(t, quirk)
		h := one(t, "a@hooli.example")
		r := h.dialled(server.Sink)
		check(h, server, "hooli", r)
		_, served := h.turns.memory.server(h.account("hooli").ID)
		if r.Connections > outcasts+2 || served != 0 {
			t.Errorf("it took %d connections, and it is remembered that the server takes %d transactions", r.Connections, served)
		}
	})
}

// More than a window full of them, in front of all others.
func TestManySendersThatArePutOffHoldUpNoOther(t *testing.T) {
	t.Parallel()
	h := newHouse(t, nil)
	const n, outcasts = 20, 60
	server := peer.RunGateway(t, refusesOutcasts("450 4.1.8 no such domain"))
	h.outcasts(outcasts, "a@hooli.example")
	h.fill(n, "a@hooli.example")
	r := h.dialled(server.Sink)
	if r.Outcome != "done" || len(contents(server.Sink)) != n || len(server.Messages()) != n {
		t.Errorf("%d arrived, recorded %+v", len(server.Messages()), r)
	}
	if h.held() != outcasts || h.waiting("hooli") != outcasts || len(h.returned) != 0 {
		t.Errorf("%d are held, %d wait by the index, %v were returned", h.held(), h.waiting("hooli"), h.returned)
	}
}

func TestServerThatHasNoSpaceForAWhileTeachesNoLimitOfTransactions(t *testing.T) {
	t.Parallel()
	h := newHouse(t, nil)
	const n = 40
	h.fill(n, "a@hooli.example")
	server := customer(t, func(s *postfixtest.Sink) {
		s.OnCommand = func(s *postfixtest.Session, verb, _ string) string {
			if s.Number <= 2 && (verb == "MAIL" || verb == "RCPT") {
				return "452 4.3.1 no space"
			}
			return ""
		}
	})
	r := h.dialled(server)
	if _, served := h.turns.memory.server(h.account("hooli").ID); r.Connections > 5 || served != 0 {
		t.Errorf("recorded %+v, and it is remembered that the server takes %d transactions", r, served)
	}
	if r := h.dialled(server); r.Outcome != "done" || r.Connections > 1 {
		t.Errorf("recorded of the next turn %+v", r)
	}
	h.once(server, n)
}
