package turn

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"mailbag/meter"
	"mailbag/testdata/peer"
	"mailbag/turnd/relay"

	postfixtest "mailbag/testdata/postfix"
)

// suspects are the IDs of what is suspected in an account by the index.
func (h *house) suspects(account string) (ids []string) {
	h.t.Helper()
	list, err := h.ledger.Suspects(h.t.Context(), h.account(account).ID, 100)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, m := range list {
		ids = append(ids, m.ID)
	}
	slices.Sort(ids)
	return ids
}

// suspect has the index suspect messages of an account.
func (h *house) suspect(account string, suspicion map[string]int) {
	h.t.Helper()
	if err := h.ledger.Suspect(h.t.Context(), h.account(account).ID, suspicion); err != nil {
		h.t.Fatal(err)
	}
}

// bringsNow has the MTA try messages by itself, as in a run of its queue, and waits until it is told what becomes of them.
func (h *house) bringsNow(ids ...string) {
	back := func() bool {
		h.mta.mu.Lock()
		defer h.mta.mu.Unlock()
		return !slices.ContainsFunc(ids, func(id string) bool { return h.busy[id] })
	}
	before := postfixtest.Wait("the MTA has put them back", back)
	h.mta.Release(context.Background(), ids...)
	if err := errors.Join(before, postfixtest.Wait("the MTA was told what becomes of them", back)); err != nil {
		h.t.Error(err)
	}
}

// named is the ID of the message that ends with a line.
func (h *house) named(line string) string {
	h.mta.mu.Lock()
	defer h.mta.mu.Unlock()
	for id, l := range h.queue {
		if strings.HasSuffix(l.content, line+"\r\n") {
			return id
		}
	}
	return ""
}

// A log is what came to the end of its content at a server, in order: last lines, and how many messages the MTA was at
// in the turn at that moment.
type log struct {
	mu    sync.Mutex
	lines []string
	alone []bool
}

// quirk logs, and hangs up at what has the marker while it is poisonous.
func (l *log) quirk(h *house, account string, poisonous *atomic.Bool) peer.Quirk {
	return func(g *peer.Gateway) {
		g.OnMessage = func(m postfixtest.Message) string {
			h.turns.mu.Lock()
			window := h.turns.open[account].window
			h.turns.mu.Unlock()
			window.mu.Lock()
			active := window.active
			window.mu.Unlock()
			lines := bytes.Split(bytes.TrimSpace(m.Data), []byte("\r\n"))
			line := string(lines[len(lines)-1])
			l.mu.Lock()
			defer l.mu.Unlock()
			l.lines, l.alone = append(l.lines, line), append(l.alone, active == 1)
			if bytes.HasPrefix([]byte(line), []byte("POISON")) && poisonous.Load() {
				return postfixtest.HangUp
			}
			return ""
		}
	}
}

// since returns what was logged behind n lines.
func (l *log) since(n int) (lines []string, alone []bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.lines[n:]), slices.Clone(l.alone[n:])
}

func (l *log) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.lines)
}

// A virus scanner of the customer's dies of some messages.
func TestMessageAtWhichTheServerBreaksOffHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	const n = 40
	for name, poison := range map[string][]int{"one": {20}, "the first": {0}, "the last": {n - 1}, "three in a row": {10, 11, 12}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, nil)
			var poisonous atomic.Bool
			poisonous.Store(true)
			var log log
			server := peer.RunGateway(t, log.quirk(h, "hooli", &poisonous))
			hold := func(i int) string {
				line := fmt.Sprint(i)
				if slices.Contains(poison, i) {
					line = "POISON"
				}
				return h.hold(true, hello+line+"\r\n", "a@hooli.example")
			}
			var bad []string
			for i := range n {
				if id := hold(i); slices.Contains(poison, i) {
					bad = append(bad, id)
				}
			}
			others := func(from, to int) {
				t.Helper()
				got := contents(server.Sink)
				for i := from; i < to; i++ {
					if want := map[bool]int{false: 1}[slices.Contains(poison, i)]; got[fmt.Sprint(i)] != want {
						t.Errorf("message %d arrived %d times", i, got[fmt.Sprint(i)])
					}
				}
			}

			r := h.dialled(server.Sink)
			others(0, n)
			slices.Sort(r.Suspects)
			if diff := cmp.Diff(bad, r.Suspects); diff != "" {
				t.Errorf("suspects of the turn (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(bad, h.suspects("hooli")); diff != "" {
				t.Errorf("suspects by the index (-want +got):\n%s", diff)
			}
			if want := fmt.Sprintf("done, but the customer's server breaks off at %d of the messages", len(bad)); r.Outcome != want || r.Messages != int64(n-len(bad)) {
				t.Errorf("recorded %+v", r)
			}
			if h.held() != len(bad) || h.waiting("hooli") != int64(len(bad)) {
				t.Errorf("%d are held, %d wait by the index", h.held(), h.waiting("hooli"))
			}

			// The next turn tries each once, last and alone.
			const more = 20
			before := log.len()
			for i := range more {
				hold(n + i)
			}
			if r := h.dialled(server.Sink); r.Messages != more || len(r.Suspects) != len(bad) {
				t.Errorf("recorded of the next turn %+v", r)
			}
			others(0, n+more)
			lines, alone := log.since(before)
			for i, line := range lines {
				if suspect := i >= more; (line == "POISON") != suspect || suspect && !alone[i] {
					t.Errorf("the server was given, as number %d of %d, %q, alone %v", i, more+len(bad), line, alone[i])
				}
			}
			if len(lines) != more+len(bad) {
				t.Errorf("the server was given %q", lines)
			}

			// Until the server takes it.
			poisonous.Store(false)
			if r := h.dialled(server.Sink); r.Outcome != "done" || r.Messages != int64(len(bad)) || len(r.Suspects) != 0 {
				t.Errorf("recorded when the server takes it %+v", r)
			}
			if h.held() != 0 || h.waiting("hooli") != 0 || len(h.suspects("hooli")) != 0 {
				t.Errorf("%d are held, %d wait by the index, which suspects %v", h.held(), h.waiting("hooli"), h.suspects("hooli"))
			}
		})
	}
}

func TestReversedTurnsThatBreakDeliverAllOthers(t *testing.T) {
	t.Parallel()
	reversedPast(t, 3)
}

// What was under way with the message at which the server hung up is no less suspected than that, which is older.
func TestReversedTurnThatWasBrokenIsFollowedByOneForTheOthers(t *testing.T) {
	t.Parallel()
	reversedPast(t, 2)
}

// reversedPast has so many reversed turns get 40 messages past an older one, at which the server hangs up.
func reversedPast(t *testing.T, turns int) {
	h := newHouse(t, nil)
	var poisonous atomic.Bool
	poisonous.Store(true)
	var log log
	server := peer.RunGateway(t, log.quirk(h, "globex", &poisonous))
	bad := h.hold(true, hello+"POISON\r\n", "a@globex.example")
	n := 40
	h.fill(n, "a@globex.example")
	for i := range turns {
		if i > 1 { // so that there is more than suspects
			h.hold(true, fmt.Sprintf("%smore %d\r\n", hello, i), "a@globex.example")
			n++
		}
		if err := h.reverse("globex", server.Sink); !errors.Is(err, relay.ErrLost) {
			t.Errorf("turn %d ended with %v", i+1, err)
		}
	}
	if got := contents(server.Sink); len(got) != n || len(server.Messages()) != n {
		t.Errorf("after %d turns %d of %d have arrived, %d in all", turns, len(got), n, len(server.Messages()))
	}
	if lines, alone := log.since(log.len() - 1); lines[0] != "POISON" || !alone[0] {
		t.Errorf("the last message was %q, alone %v", lines[0], alone[0])
	}
	if h.held() != 1 || h.waiting("globex") != 1 || !slices.Equal(h.suspects("globex"), []string{bad}) || !slices.Equal(h.record().Suspects, []string{bad}) {
		t.Errorf("%d are held, %d wait by the index, which suspects %v, recorded %+v", h.held(), h.waiting("globex"), h.suspects("globex"), h.record())
	}
}

func TestReversedTurnBeginsWhereNothingButSuspectsWaits(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(c *plan) { c.FirstWait = 20 * time.Second })
	server := peer.RunGateway(t)
	id := h.hold(true, hello, "a@globex.example")
	h.suspect("globex", map[string]int{id: 1})
	if err := h.reverse("globex", server.Sink); err != nil || len(server.Messages()) != 1 || h.waiting("globex") != 0 {
		t.Errorf("%v; %d messages arrived, %d wait by the index", err, len(server.Messages()), h.waiting("globex"))
	}
}

// An MTA that was asked for a message more than once may bring it again when the turn has done with it.
func TestMessageAtWhichTheServerBreaksOffIsNotTriedAgainInTheTurn(t *testing.T) {
	t.Parallel()
	h := newHouse(t, nil)
	var mu sync.Mutex // connections follow one another
	var tried []string
	server := peer.RunGateway(t, func(g *peer.Gateway) {
		g.OnMessage = func(m postfixtest.Message) string {
			mu.Lock()
			defer mu.Unlock()
			line := string(bytes.TrimSpace(m.Data[bytes.LastIndex(m.Data, []byte("POISON ")):]))
			if tried = append(tried, line); len(tried) > 1 && len(tried) < 10 {
				h.bringsNow(h.named(tried[0]))
			}
			return postfixtest.HangUp
		}
	})
	bad := map[string]int{}
	for i := range 3 {
		bad[h.hold(true, fmt.Sprintf("%sPOISON %d\r\n", hello, i), "a@hooli.example")] = 2
	}
	h.suspect("hooli", bad)
	r := h.dialled(server.Sink)
	mu.Lock()
	defer mu.Unlock()
	slices.Sort(tried)
	if want := []string{"POISON 0", "POISON 1", "POISON 2"}; !slices.Equal(tried, want) || len(r.Suspects) != len(want) || h.held() != len(want) {
		t.Errorf("tried were %q, want each once; %d are held, recorded %+v", tried, h.held(), r)
	}
}

// An operator holds a suspect back (postsuper -h), or the MTA has it in work for long.
func TestSuspectThatTheMTADoesNotBringBlocksNoOther(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(c *plan) { c.FirstWait = 3 * againAfter })
	var poisonous atomic.Bool
	var log log
	server := peer.RunGateway(t, log.quirk(h, "hooli", &poisonous))
	stuck := h.hold(true, hello+"stuck\r\n", "a@hooli.example")
	moves := h.hold(true, hello+"moves\r\n", "a@hooli.example")
	h.suspect("hooli", map[string]int{stuck: 1, moves: 2})
	h.stuck[stuck] = true
	const n = 10
	h.fill(n, "a@hooli.example")
	r := h.dialled(server.Sink)
	if got := contents(server.Sink); len(got) != n+1 || got["moves"] != 1 || h.held() != 1 || h.waiting("hooli") != 1 {
		t.Errorf("arrived: %v; %d are held, %d wait by the index", got, h.held(), h.waiting("hooli"))
	}
	if r.Outcome != "done, but the MTA did not bring 1 of what was released" {
		t.Errorf("recorded %+v", r)
	}
	if lines, _ := log.since(0); lines[len(lines)-1] != "moves" {
		t.Errorf("the suspect was not the last: %q", lines)
	}
}

func TestSuspectThatTheMTADoesNotBringEndsWithTheTurn(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(c *plan) { c.FirstWait = 3 * againAfter })
	server := peer.RunGateway(t)
	stuck := h.hold(true, hello+"stuck\r\n", "a@hooli.example")
	h.suspect("hooli", map[string]int{stuck: 2})
	h.stuck[stuck] = true
	const n = 10
	h.fill(n, "a@hooli.example")
	r := h.dialled(server.Sink)
	if len(server.Messages()) != n || h.held() != 1 || !slices.Equal(h.suspects("hooli"), []string{stuck}) {
		t.Errorf("%d arrived, %d are held, the index suspects %v", len(server.Messages()), h.held(), h.suspects("hooli"))
	}
	if r.Outcome != "done, but the MTA did not bring 1 of what was released" || len(r.Suspects) != 0 {
		t.Errorf("recorded %+v", r)
	}
}

func TestMailThatComesWhileTheMTADoesNotBringASuspectIsDelivered(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(c *plan) { c.FirstWait = 3 * againAfter })
	server := peer.RunGateway(t)
	moves := h.hold(true, hello+"moves\r\n", "a@hooli.example")
	stuck := h.hold(true, hello+"stuck\r\n", "a@hooli.example")
	h.suspect("hooli", map[string]int{moves: 1, stuck: 1})
	h.stuck[stuck] = true
	if err := h.etrn(server.Addr()); err != nil {
		t.Fatal(err)
	}
	h.until("the MTA is asked for the suspect that it does not bring", func() bool {
		h.mta.mu.Lock()
		defer h.mta.mu.Unlock()
		return h.released > 0
	})
	h.hold(true, hello+"new\r\n", "a@hooli.example")
	h.until("the turn is over", func() bool { return !h.turns.Open("hooli") && h.idle() })
	if got := contents(server.Sink); len(got) != 2 || got["moves"] != 1 || got["new"] != 1 || h.held() != 1 {
		t.Errorf("arrived: %v; %d are held, recorded %+v", got, h.held(), h.record())
	}
}

// suspicious is the window of a turn that has read these to be all that waits.
func suspicious(t *testing.T, h *house, page ...meter.WaitingMessage) *window {
	one := h.turns.new(h.account("globex"), meter.TurnATRN, Client{})
	t.Cleanup(one.cut)
	w := newWindow(one)
	w.connect()
	w.looked(nil, 0)
	w.add(page)
	return w
}

func TestLastSuspectHasItsTimeBehindOneThatTheMTADoesNotBring(t *testing.T) {
	t.Parallel()
	h := newHouse(t, nil)
	w := suspicious(t, h, meter.WaitingMessage{ID: "STUCK", Suspicion: 1}, meter.WaitingMessage{ID: "MOVES", Suspicion: 2})
	w.lastOnes()
	now := time.Now().Add(w.turn.cfg.Bounds().FirstWait)
	w.overdue(now)
	if n := w.left(); n != 1 || w.finished(now) {
		t.Errorf("%d are left to the MTA, the turn is over: %v", n, w.finished(now))
	}
	if ids := w.lastOnes(); !slices.Equal(ids, []string{"MOVES"}) {
		t.Errorf("behind the one that is stuck %q are tried", ids)
	}
	asked := time.Now()
	if w.finished(asked.Add(w.turn.cfg.Bounds().FirstWait / 2)) {
		t.Error("the turn is over before the MTA had its time for the last one")
	}
	if !w.finished(asked.Add(w.turn.cfg.Bounds().FirstWait)) {
		t.Error("the turn waits for what the MTA does not bring")
	}
}

// Such as one that the MTA brought for the first of many recipients.
func TestSuspectThatIsAskedForOnceMoreIsAloneAgain(t *testing.T) {
	t.Parallel()
	h := newHouse(t, nil)
	w := suspicious(t, h, meter.WaitingMessage{ID: "BAD", Suspicion: 2})
	for i := range 3 {
		if ids, room := w.lastOnes(), w.room(); !slices.Equal(ids, []string{"BAD"}) || room != 0 {
			t.Errorf("%q are tried, with room for %d beside", ids, room)
		}
		w.bring("BAD")
		w.answered("BAD", 1, 1, nil, again)
		fresh := fmt.Sprint("NEW", i)
		if ids := w.add([]meter.WaitingMessage{{ID: fresh}}); !slices.Equal(ids, []string{fresh}) || w.outstanding() != 1 {
			t.Errorf("%q are released, and %d are under way", ids, w.outstanding())
		}
		if ids := w.lastOnes(); len(ids) != 0 {
			t.Errorf("%q are tried beside another message", ids)
		}
		w.bring(fresh)
		w.answered(fresh, 1, 1, nil, gone)
	}
}

// As in a run of its queue.
func TestSuspectThatTheMTABringsByItselfIsTriedAlone(t *testing.T) {
	t.Parallel()
	h := newHouse(t, nil)
	var poisonous atomic.Bool
	poisonous.Store(true)
	var log log
	var bad string
	server := peer.RunGateway(t, log.quirk(h, "hooli", &poisonous), func(g *peer.Gateway) {
		logged := g.OnMessage
		g.OnMessage = func(m postfixtest.Message) string {
			reply := logged(m)
			if log.len() == 1 {
				h.bringsNow(bad)
			}
			return reply
		}
	})
	bad = h.hold(true, hello+"POISON\r\n", "a@hooli.example")
	h.suspect("hooli", map[string]int{bad: 2})
	const n = 15
	h.fill(n, "a@hooli.example")
	r := h.dialled(server.Sink)
	lines, alone := log.since(0)
	if len(lines) != n+1 || lines[n] != "POISON" || !alone[n] {
		t.Errorf("the server was given %q, alone %v", lines, alone)
	}
	if got := contents(server.Sink); len(got) != n || r.Messages != n || !slices.Equal(r.Suspects, []string{bad}) {
		t.Errorf("arrived: %v; recorded %+v", got, r)
	}
}

// The server does not come to its content: there is no CHUNKING, by which that is sent at once.
func TestSuspectAtWhoseRecipientTheServerHangsUpHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	h := newHouse(t, nil)
	innocent := h.hold(true, hello+"innocent\r\n", "a@hooli.example")
	killer := h.hold(true, hello+"killer\r\n", "killer@hooli.example")
	h.suspect("hooli", map[string]int{innocent: 1, killer: 1}) // the newest is tried first
	var tries atomic.Int32
	server := customer(t, func(s *postfixtest.Sink) {
		s.Extensions = []string{"PIPELINING", "8BITMIME", "SIZE"}
		s.OnRecipient = func(address string) string {
			if address == "killer@hooli.example" {
				tries.Add(1)
				return postfixtest.HangUp
			}
			return ""
		}
	})
	r := h.dialled(server)
	if contents(server)["innocent"] != 1 || !slices.Equal(r.Suspects, []string{killer}) || tries.Load() > 2 {
		t.Errorf("arrived: %v, after the other was tried %d times; recorded %+v", contents(server), tries.Load(), r)
	}
	if h.held() != 1 || !slices.Equal(h.suspects("hooli"), []string{killer}) {
		t.Errorf("%d are held, the index suspects %v", h.held(), h.suspects("hooli"))
	}
}

// What the MTA was told is true, and it has returned the message.
func TestRefusedMessageAtWhichTheServerClosesIsNoSuspect(t *testing.T) {
	t.Parallel()
	h := newHouse(t, nil)
	h.mta.gate = make(chan struct{}, 1) // the MTA brings one at a time
	var mu sync.Mutex
	refused := map[int]bool{} // connections
	server := customer(t, func(s *postfixtest.Sink) {
		s.OnCommand = func(s *postfixtest.Session, verb, argument string) string {
			mu.Lock()
			defer mu.Unlock()
			switch {
			case verb == "RCPT" && argument == "TO:<unknown@hooli.example>":
				refused[s.Number] = true
				return "550 5.1.1 unknown"
			case verb == "BDAT" && refused[s.Number]:
				return "421 4.7.0 too many errors"
			}
			return ""
		}
	})
	const unknown, n = 2, 5
	for range unknown {
		h.hold(true, hello+"unknown\r\n", "unknown@hooli.example")
	}
	h.fill(n, "a@hooli.example")
	r := h.dialled(server)
	if r.Outcome != "done" || r.Messages != n || len(r.Suspects) != 0 || len(h.suspects("hooli")) != 0 {
		t.Errorf("recorded %+v, the index suspects %v", r, h.suspects("hooli"))
	}
	if len(h.returned) != unknown {
		t.Errorf("returned: %v", h.returned)
	}
	h.once(server, n)
}

func TestNothingIsReleasedWhileASuspectIsTried(t *testing.T) {
	t.Parallel()
	h := newHouse(t, nil)
	w := suspicious(t, h)
	w.add([]meter.WaitingMessage{{ID: "BAD", Suspicion: 2}, {ID: "DOUBTED", Suspicion: 1}})
	if ids := w.lastOnes(); !slices.Equal(ids, []string{"DOUBTED"}) {
		t.Errorf("%q are tried first", ids)
	}
	if n, ids := w.room(), w.lastOnes(); n != 0 || len(ids) != 0 {
		t.Errorf("there is room for %d messages beside it, and for %q", n, ids)
	}
	w.bring("DOUBTED")
	if n, ids := w.room(), w.lastOnes(); n != 0 || len(ids) != 0 {
		t.Errorf("there is room for %d messages beside it, and for %q, while the MTA brings it", n, ids)
	}
	w.answered("DOUBTED", 1, 1, nil, gone)
	if n := w.room(); n == 0 {
		t.Error("there is no room behind it")
	}
}

// The MTA tries what was put off, and what has just come, by itself too.
func TestWhatTheMTABringsWhileASuspectIsTriedWaits(t *testing.T) {
	t.Parallel()
	h := newHouse(t, nil)
	var full atomic.Int32
	var under, beside int32
	var deferred, fresh string
	var server *postfixtest.Sink
	server = customer(t, func(s *postfixtest.Sink) {
		s.OnRecipient = func(address string) string {
			if address == "full@hooli.example" {
				full.Add(1)
				return "452 4.2.2 full"
			}
			return ""
		}
		s.OnMessage = func(m postfixtest.Message) string {
			if bytes.Contains(m.Data, []byte("suspect")) {
				under = full.Load()
				h.bringsNow(deferred, fresh)
				beside = full.Load() - under + int32(len(contents(server)))
			}
			return ""
		}
	})
	deferred = h.hold(true, hello, "full@hooli.example")
	fresh = h.hold(false, hello+"fresh\r\n", "a@hooli.example") // which the turn does not know
	suspect := h.hold(true, hello+"suspect\r\n", "a@hooli.example")
	h.suspect("hooli", map[string]int{suspect: 1})
	r := h.dialled(server)
	if under != 1 || beside != 0 || full.Load() != 2 {
		t.Errorf("the server was asked for the others %d times before, %d times beside the suspect, %d times in all", under, beside, full.Load())
	}
	if r.Outcome != "done" || r.Messages != 2 || contents(server)["fresh"] != 1 || h.waiting("hooli") != 1 {
		t.Errorf("recorded %+v, %d wait by the index", r, h.waiting("hooli"))
	}
}

// As from a content filter, or an MTA that does not tell: a suspect that only its Received field names is tried all the same,
// and by itself.
func TestSuspectIsKnownByItsReceivedField(t *testing.T) {
	t.Parallel()
	h := newHouse(t, nil)
	h.mta.ident = "FOREIGN"
	const n = 5
	var ids []string
	for i := range n {
		id := fmt.Sprintf("Q%07d", i+1)
		ids = append(ids, h.hold(true, fmt.Sprintf("Received: from x (x [192.0.2.1])\r\n\tby mx.provider.example (Postfix) with ESMTP id %s\r\n"+
			"\tfor <a@hooli.example>; Tue, 24 Nov 2026 12:00:00 +0000 (UTC)\r\n\r\n%d\r\n", id, i), "a@hooli.example"))
	}
	h.suspect("hooli", map[string]int{ids[0]: 2, ids[3]: 1})
	server := customer(t, nil)
	r := h.dialled(server)
	if r.Outcome != "done" || r.Messages != n || h.waiting("hooli") != 0 {
		t.Errorf("recorded %+v, %d wait by the index", r, h.waiting("hooli"))
	}
	h.once(server, n)
}
