package turn

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mailbag/meter"
	"mailbag/turnd/relay"

	postfixtest "mailbag/testdata/postfix"
)

var discard = slog.New(slog.DiscardHandler)

const hello = "Received: by mx.provider.example\r\n\r\nhello\r\n"

// reverse is an ATRN of the account's server, which is the sink. It returns how the turn went, when the MTA has heard of it.
func (h *house) reverse(account string, server *postfixtest.Sink, domains ...string) error {
	h.t.Helper()
	r, err := h.turns.Reverse(h.t.Context(), h.account(account), domains, Client{Addr: "192.0.2.1"})
	if err != nil {
		return err
	}
	conn, err := net.Dial("tcp", server.Addr())
	if err != nil {
		h.t.Fatal(err)
	}
	err = r.Run(conn, bufio.NewReader(conn))
	if heard := postfixtest.Wait("the MTA heard what became of its mail", h.idle); heard != nil {
		h.t.Error(heard)
	}
	return err
}

// customer is a server with everything that servers offer.
func customer(t *testing.T, change func(*postfixtest.Sink)) *postfixtest.Sink {
	t.Helper()
	s, err := postfixtest.NewSink()
	if err != nil {
		t.Fatal(err)
	}
	s.Extensions = postfixtest.Chunking
	if change != nil {
		change(s)
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

// contents are what the server got, by their last line.
func contents(s *postfixtest.Sink) map[string]int {
	got := map[string]int{}
	for _, m := range s.Messages() {
		lines := bytes.Split(bytes.TrimSpace(m.Data), []byte("\r\n"))
		got[string(lines[len(lines)-1])]++
	}
	return got
}

func TestTurnDeliversAllThatWaitsOnceAndEnds(t *testing.T) {
	t.Parallel()
	h := newHouse(t, nil)
	const n = 200
	for i := range n {
		h.hold(true, fmt.Sprintf("%s%d\r\n", hello, i), "a@globex.example", "b@globex.test")
	}
	h.hold(true, hello, "a@hooli.example")
	server := customer(t, nil)
	h.taken = func() int { return len(server.Messages()) }
	if err := h.reverse("globex", server); err != nil {
		t.Fatal(err)
	}
	got := contents(server)
	for i := range n {
		if got[fmt.Sprint(i)] != 1 {
			t.Errorf("message %d arrived %d times", i, got[fmt.Sprint(i)])
		}
	}
	if h.held() != 1 || h.waiting("globex") != 0 || h.waiting("hooli") != 1 {
		t.Errorf("%d messages are held, %d wait for globex and %d for hooli by the index", h.held(), h.waiting("globex"), h.waiting("hooli"))
	}
	if h.atOnce < 10 || h.atOnce > 50 {
		t.Errorf("%d messages were released at once, the window has 50", h.atOnce)
	}
	if r := h.record(); r.Account != "globex" || r.Kind != meter.TurnATRN || r.Messages != n || r.Outcome != "done" || r.Ended.IsZero() {
		t.Errorf("recorded %+v", r)
	}
	if _, err := os.Lstat(h.socket("globex")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
	if h.turns.Open("globex") || len(h.turns.List()) != 0 {
		t.Error("the turn is still open")
	}
	if n := h.turns.released.Load(); n != 0 {
		t.Errorf("%d messages seem to be released still", n)
	}
}

// IDENT is that of another system where the message came in with one, as from a content filter.
func TestMessagesAreKnownByTheirReceivedField(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(c *plan) { c.Window = 20 })
	h.mta.ident = "FOREIGN"
	const n = 60 // more than the window: it is refilled only by messages that are known again
	for i := range n {
		id := fmt.Sprintf("Q%07d", i+1)
		h.hold(true, fmt.Sprintf("Received: from x id Q0000001 (x [192.0.2.1])\r\n\tby mx.provider.example (Postfix) with ESMTP id %s\r\n"+
			"\tfor <a@globex.example>; Tue, 24 Nov 2026 12:00:00 +0000 (UTC)\r\n\r\n%d\r\n", id, i), "a@globex.example")
	}
	server := customer(t, nil)
	if err := h.reverse("globex", server); err != nil {
		t.Fatal(err)
	}
	if got := contents(server); len(got) != n || h.waiting("globex") != 0 || h.record().Outcome != "done" {
		t.Errorf("%d of %d arrived, %d wait by the index, recorded %+v", len(got), n, h.waiting("globex"), h.record())
	}
}

func TestTraceID(t *testing.T) {
	t.Parallel()
	for field, want := range map[string]string{
		"Received: from c (c [192.0.2.1])\r\n\tby mx (Postfix) with ESMTP id 4XyZ12\r\n\tfor <a@b>; date\r\n":        "4XyZ12",
		"Received: from c (c [192.0.2.1])\r\n\t(using TLSv1.3)\r\n\tby mx (Postfix) with ESMTPS id 4XyZ12; date\r\n": "4XyZ12",
		"Received: by mx (Postfix, from userid 0)\r\n\tid 4XyZ12; date\r\n":                                          "4XyZ12",
		"Received: from c ([192.0.2.1])\r\n\tby mx with esmtp (Exim 4.96)\r\n\tid 1tABcd-0001-Xy;\r\n\tdate\r\n":     "1tABcd-0001-Xy",
		"Received: from a by x id FAKE (c [192.0.2.1])\r\n\tby mx (Postfix) with ESMTP id 4XyZ12\r\n":                "4XyZ12",
		"Received: from c (c [192.0.2.1])\r\n\tby mx (Postfix) with ESMTP\r\n\tfor <\"a id FAKE\"@b>; date\r\n":      "",
		"Received: from c (c [192.0.2.1])\r\n\tby mx (Postfix) with ESMTP id .4\r\n":                                 "",
		"Received: from c (c [192.0.2.1])\r\n\tby mx (Postfix) with ESMTP id\r\n":                                    "",
		"": "",
	} {
		if got := traceID(field); got != want {
			t.Errorf("%q is of message %q, want %q", field, got, want)
		}
	}
}

func TestMailThatArrivesInTheTurnIsDelivered(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(c *plan) { c.IdleWait = time.Minute })
	h.hold(true, hello+"first\r\n", "a@globex.example")
	server := customer(t, nil)
	ended := make(chan error, 1)
	go func() { ended <- h.reverse("globex", server) }()
	if _, err := server.WaitMessages(1); err != nil {
		t.Fatal(err)
	}
	h.hold(true, hello+"second\r\n", "a@globex.example")
	if _, err := server.WaitMessages(2); err != nil {
		t.Error(err)
	}
	h.turns.End("globex") // it would wait for a third
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if got := contents(server); got["second"] != 1 {
		t.Errorf("arrived: %v", got)
	}
}

func TestNoTurnWithoutReason(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(c *plan) { c.MaxTurns, c.FirstWait = 1, 2*time.Second })
	server := customer(t, nil)
	if err := h.reverse("globex", server); !errors.Is(err, ErrNothingWaits) {
		t.Errorf("nothing waits: %v", err)
	}
	id := h.hold(true, hello, "a@globex.example")
	if err := h.reverse("globex", server, "globex.test"); !errors.Is(err, ErrNothingWaits) {
		t.Errorf("nothing waits for the domain: %v", err)
	}
	h.stuck[id] = true
	if err := h.reverse("globex", server); !errors.Is(err, ErrNotDelivered) {
		t.Errorf("the MTA brings nothing: %v", err)
	}
	if h.released < 1 || !strings.HasPrefix(h.record().Outcome, "not begun") || h.turns.Open("globex") {
		t.Errorf("%d releases, recorded %+v", h.released, h.record())
	}
	delete(h.stuck, id)
	h.bound(func(b *Bounds) { b.FirstWait = 20 * time.Second }) // the others are to come about, however busy the machine is

	h.hold(true, hello, "a@hooli.example")
	r, err := h.turns.Reverse(t.Context(), h.account("globex"), nil, Client{})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.reverse("globex", server); !errors.Is(err, ErrOpen) {
		t.Errorf("a second turn: %v", err)
	}
	if err := h.reverse("hooli", server); !errors.Is(err, ErrTooMany) {
		t.Errorf("a turn too many: %v", err)
	}
	r.Cancel()
	if err := h.reverse("hooli", server); err != nil {
		t.Errorf("after the other turn: %v", err)
	}
	if h.waiting("globex") != 1 {
		t.Errorf("%d messages wait for globex after a turn that was cancelled", h.waiting("globex"))
	}
	if err := h.turns.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := h.reverse("globex", server); !errors.Is(err, ErrClosing) {
		t.Errorf("after Shutdown: %v", err)
	}
	h.ledger.Close()
}

// A message that the MTA has in work when it is released comes when it is out of work.
func TestMessageThatWasInWorkIsReleasedAgain(t *testing.T) {
	t.Parallel()
	h := newHouse(t, nil)
	id := h.hold(true, hello+"stuck\r\n", "a@globex.example")
	h.stuck[id] = true
	go func() {
		for {
			h.mta.mu.Lock()
			n := h.released
			if n > 0 {
				delete(h.stuck, id)
				h.mta.mu.Unlock()
				return
			}
			h.mta.mu.Unlock()
			<-time.After(time.Millisecond)
		}
	}()
	server := customer(t, nil)
	if err := h.reverse("globex", server); err != nil {
		t.Fatal(err)
	}
	if got := contents(server); got["stuck"] != 1 {
		t.Errorf("arrived: %v", got)
	}
}

// What the MTA does not bring, such as mail on hold, keeps nothing that came after it.
func TestMailThatTheMTADoesNotBringLeavesRoomForOthers(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(c *plan) { c.Window, c.FirstWait, c.Missing = minWindow, 3*againAfter, nil })
	for range minWindow - 1 {
		h.stuck[h.hold(true, hello, "a@globex.example")] = true
	}
	const n = 3 * minWindow
	for i := range n {
		h.hold(true, fmt.Sprintf("%s%d\r\n", hello, i), "a@globex.example")
	}
	server := customer(t, nil)
	if err := h.reverse("globex", server); err != nil {
		t.Fatal(err)
	}
	if got := contents(server); len(got) != n || h.held() != minWindow-1 {
		t.Errorf("%d messages arrived, %d are held; want %d and %d", len(got), h.held(), n, minWindow-1)
	}
	if r := h.record(); r.Outcome != fmt.Sprintf("done, but the MTA did not bring %d of what was released", minWindow-1) {
		t.Errorf("recorded %+v", r)
	}
}

// Each message that is released can have a process of the MTA's: turns that begin one after the other do not take all that a
// machine has.
func TestTurnsTogetherReleaseABoundedNumber(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(c *plan) { c.Window = 500 })
	const n = 200
	released, least, most := 0, n, 0
	for i := range n {
		one := h.turns.new(h.account("globex"), meter.TurnATRN, Client{})
		defer one.cut()
		h.turns.mu.Lock()
		h.turns.open[fmt.Sprint(i)] = one
		h.turns.mu.Unlock()
		one.pace.size = maxWindow // the line is long
		w := newWindow(one)
		for room := w.room(); room > 0; room = w.room() {
			page := make([]meter.WaitingMessage, min(room, releaseStep))
			for j := range page {
				page[j].ID = fmt.Sprint(len(w.messages) + j)
			}
			w.add(page)
		}
		released += w.left()
		least, most = min(least, w.left()), max(most, w.left())
	}
	h.turns.mu.Lock()
	clear(h.turns.open)
	h.turns.mu.Unlock()
	if released > allWindows+n*minWindow || least < minWindow*7/8 || most < maxWindow*7/8 || most > maxWindow {
		t.Errorf("%d messages are released, %d by the turn with the fewest, %d by that with the most", released, least, most)
	}
}

func TestOnlyTheNamedDomainsAreDelivered(t *testing.T) {
	t.Parallel()
	h := newHouse(t, nil)
	h.hold(true, hello+"one\r\n", "a@globex.example")
	h.hold(true, hello+"other\r\n", "a@globex.test")
	h.hold(true, hello+"both\r\n", "a@globex.example", "b@globex.test")
	server := customer(t, nil)
	if err := h.reverse("globex", server, "globex.example"); err != nil {
		t.Fatal(err)
	}
	got := contents(server)
	if len(got) != 2 || got["one"] != 1 || got["both"] != 1 {
		t.Errorf("arrived: %v", got)
	}
	for _, m := range server.Messages() {
		if len(m.Recipients) != 1 || m.Recipients[0] != "a@globex.example" {
			t.Errorf("arrived for %v", m.Recipients)
		}
	}
	if err := h.reverse("globex", server, "globex.example"); !errors.Is(err, ErrNothingWaits) {
		t.Errorf("nothing waits for the domain any more: %v", err)
	}
	if err := h.reverse("globex", server, "globex.test"); err != nil {
		t.Fatal(err)
	}
	if got := contents(server); got["other"] != 1 || got["both"] != 2 || h.held() != 0 {
		t.Errorf("arrived after the second turn: %v; %d are held", got, h.held())
	}
}

func TestAnotherAccountsMailIsNotTaken(t *testing.T) {
	t.Parallel()
	h := newHouse(t, nil)
	h.hold(true, hello, "a@globex.example")
	h.hold(true, hello+"mixed\r\n", "a@globex.example", "b@hooli.example", "c@elsewhere.example")
	server := customer(t, nil)
	if err := h.reverse("globex", server); err != nil {
		t.Fatal(err)
	}
	for _, m := range server.Messages() {
		if len(m.Recipients) != 1 || m.Recipients[0] != "a@globex.example" {
			t.Errorf("arrived for %v", m.Recipients)
		}
	}
	if h.held() != 1 || h.waiting("hooli") != 1 {
		t.Errorf("%d are held, %d wait for hooli", h.held(), h.waiting("hooli"))
	}
}

func TestRefusedMailLeavesTheIndexAndDeferredMailStays(t *testing.T) {
	t.Parallel()
	h := newHouse(t, nil)
	h.hold(true, hello, "unknown@globex.example")
	h.hold(true, hello, "full@globex.example")
	h.hold(true, hello, "full@globex.example", "a@globex.example")
	h.hold(false, hello, "full@globex.example") // not by SMTP: the index does not know it
	server := customer(t, func(s *postfixtest.Sink) {
		s.OnRecipient = func(address string) string {
			return map[string]string{"unknown@globex.example": "550 5.1.1 unknown", "full@globex.example": "452 4.2.2 full"}[address]
		}
	})
	h.mta.Release(t.Context(), "Q0000004")
	h.mta.working.Wait() // it finds no socket
	if err := h.reverse("globex", server); err != nil {
		t.Fatal(err)
	}
	if h.held() != 3 || len(h.returned) != 1 || h.waiting("globex") != 2 {
		t.Errorf("%d are held, %v were returned, %d wait by the index", h.held(), h.returned, h.waiting("globex"))
	}
	if n := len(server.Messages()); n != 1 {
		t.Errorf("%d messages arrived, want the one for a@", n)
	}
	if r := h.record(); r.Messages != 1 {
		t.Errorf("recorded %+v", r)
	}
}

// The customer's connection breaks after any number of messages; what was confirmed is not delivered
// again, nothing is lost, and the next turn delivers the rest.
func TestBrokenConnectionLosesNothing(t *testing.T) {
	t.Parallel()
	h := newHouse(t, nil)
	const n = 60
	for i := range n {
		h.hold(true, fmt.Sprintf("%s%d\r\n", hello, i), "a@globex.example")
	}
	taken := 0
	server := customer(t, func(s *postfixtest.Sink) {
		s.OnMessage = func(postfixtest.Message) string {
			if taken++; taken%17 == 0 {
				return "421 4.3.2 going down"
			}
			return ""
		}
	})
	broken := 0
	for h.waiting("globex") > 0 {
		err := h.reverse("globex", server)
		switch {
		case errors.Is(err, relay.ErrLost):
			broken++
			if r := h.record(); !strings.HasPrefix(r.Outcome, "failed: ") || !strings.Contains(r.Outcome, "going down") {
				t.Errorf("recorded %+v", r)
			}
		case err != nil:
			t.Fatal(err)
		}
	}
	got := contents(server)
	for i := range n {
		if got[fmt.Sprint(i)] != 1 {
			t.Errorf("message %d arrived %d times", i, got[fmt.Sprint(i)])
		}
	}
	if n := h.turns.released.Load(); n != 0 {
		t.Errorf("%d messages seem to be released still", n)
	}
	if broken < 3 || h.held() != 0 {
		t.Errorf("%d turns broke, %d messages are held", broken, h.held())
	}
}

func TestTurnWithoutASessionIsToldToTheMTA(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(c *plan) { c.Limits.Greeting = 50 * time.Millisecond })
	h.hold(true, hello, "a@globex.example")
	r, err := h.turns.Reverse(t.Context(), h.account("globex"), nil, Client{Addr: "192.0.2.1"})
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := net.Pipe()
	defer theirs.Close()
	if err := r.Run(ours, bufio.NewReader(ours)); !errors.Is(err, relay.ErrStalled) {
		t.Errorf("a customer that never greets: %v", err)
	}
	if h.waiting("globex") != 1 || h.held() != 1 || !strings.HasPrefix(h.record().Outcome, "no session") {
		t.Errorf("%d wait, %d are held, recorded %+v", h.waiting("globex"), h.held(), h.record())
	}
}

func TestSuspendedAccountGetsNoMore(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(c *plan) { c.Window = 20 })
	for range 100 {
		h.hold(true, hello, "a@globex.example")
	}
	suspended := make(chan struct{})
	server := customer(t, func(s *postfixtest.Sink) {
		s.OnMessage = func(postfixtest.Message) string { <-suspended; return "" }
	})
	ended := make(chan error, 1)
	go func() { ended <- h.reverse("globex", server) }()
	var turn *turn
	h.until("the turn is open", func() bool {
		h.turns.mu.Lock()
		defer h.turns.mu.Unlock()
		turn = h.turns.open["globex"]
		return turn != nil
	})
	_, _, err := h.ledger.EditAccount(t.Context(), "globex", "suspend", func(a *meter.Account) error { a.Suspended = true; return nil })
	if err != nil {
		t.Fatal(err)
	}
	h.until("the suspension is known", func() bool { return h.account("globex").Suspended })
	h.until("the turn refuses more", func() bool { return turn.why() != nil })
	close(suspended)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if r := h.record(); r.Outcome != "the account was suspended" || r.Messages == 100 {
		t.Errorf("recorded %+v", r)
	}
}

// Who waits for the MTA to come is told why it does not.
func TestTurnThatIsEndedBeforeItBeginsSaysWhy(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		end  func(h *house) error
		want error
	}{
		{func(h *house) error {
			_, _, err := h.ledger.EditAccount(t.Context(), "globex", "suspend", func(a *meter.Account) error { a.Suspended = true; return nil })
			return err
		}, ErrSuspended},
		{func(h *house) error { return h.ledger.DeleteAccount(t.Context(), "globex") }, ErrDeleted},
		{func(h *house) error { h.turns.End("globex"); return nil }, ErrEnded},
		{func(h *house) error { return h.turns.Shutdown(t.Context()) }, ErrClosing},
	} {
		t.Run(test.want.Error(), func(t *testing.T) {
			t.Parallel()
			listening := make(chan struct{})
			h := newHouse(t, func(c *plan) {
				listen := c.Listen
				c.FirstWait = time.Minute
				c.Listen = func(ctx context.Context, account string) (net.Listener, error) {
					close(listening)
					return listen(ctx, account)
				}
			})
			h.stuck[h.hold(true, hello, "a@globex.example")] = true
			server := customer(t, nil)
			asked := make(chan error, 1)
			go func() { asked <- h.reverse("globex", server) }()
			<-listening
			if err := test.end(h); err != nil {
				t.Fatal(err)
			}
			if err := <-asked; !errors.Is(err, test.want) {
				t.Errorf("the one who asked is told %v", err)
			}
		})
	}
}

func (h *house) until(what string, holds func() bool) {
	h.t.Helper()
	if err := postfixtest.Wait(what, holds); err != nil {
		h.t.Fatal(err)
	}
}

func TestShutdownFinishesWhatIsInFlight(t *testing.T) {
	t.Parallel()
	h := newHouse(t, nil)
	h.hold(true, hello+"in flight\r\n", "a@globex.example")
	begun, finish := make(chan struct{}), make(chan struct{})
	server := customer(t, func(s *postfixtest.Sink) {
		s.OnMessage = func(postfixtest.Message) string { close(begun); <-finish; return "" }
	})
	ended := make(chan error, 1)
	go func() { ended <- h.reverse("globex", server) }()
	<-begun
	if list := h.turns.List(); len(list) != 1 || list[0].Account != "globex" || list[0].Client != "192.0.2.1" {
		t.Errorf("the list of turns is %+v", list)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- h.turns.Shutdown(context.WithoutCancel(t.Context())) }()
	h.until("the shutdown is known", func() bool {
		h.turns.mu.Lock()
		defer h.turns.mu.Unlock()
		return h.turns.closing
	})
	close(finish)
	if err := errors.Join(<-stopped, <-ended); err != nil {
		t.Error(err)
	}
	if h.held() != 0 || h.waiting("globex") != 0 || h.record().Outcome != "mailbag-turnd was stopped" {
		t.Errorf("%d are held, recorded %+v", h.held(), h.record())
	}
}

func TestShutdownCutsOffAtItsEnd(t *testing.T) {
	t.Parallel()
	h := newHouse(t, nil)
	h.hold(true, hello, "a@globex.example")
	begun, never := make(chan struct{}), make(chan struct{})
	defer close(never)
	server := customer(t, func(s *postfixtest.Sink) {
		s.OnMessage = func(postfixtest.Message) string { close(begun); <-never; return "" }
	})
	ended := make(chan error, 1)
	go func() { ended <- h.reverse("globex", server) }()
	<-begun
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h.turns.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	<-ended
	if h.held() != 1 || h.waiting("globex") != 1 || !strings.HasPrefix(h.record().Outcome, "cut off") {
		t.Errorf("%d are held, recorded %+v", h.held(), h.record())
	}
}

// wasThere reports whether the ledger has that the account's customer was there since it was added.
func (h *house) wasThere(account string) bool {
	h.t.Helper()
	known, err := h.ledger.Listed(h.t.Context(), meter.Month{}, h.account(account).ID)
	if err != nil || len(known) != 1 {
		h.t.Fatalf("whether %s was there cannot be seen: %v", account, err)
	}
	return !known[0].Called.IsZero()
}

func TestWhoAsksInVainWasThere(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, account string
		ask           func(h *house, a *meter.Account, c Client) error
		client        string
		want          bool
	}{
		{"by ATRN", "globex", func(h *house, a *meter.Account, c Client) error {
			_, err := h.turns.Reverse(h.t.Context(), a, nil, c)
			return err
		}, "192.0.2.1", true},
		{"through the MTA", "hooli", func(h *house, a *meter.Account, c Client) error { return h.turns.Dial(h.t.Context(), a, c) }, "192.0.2.1", true},
		{"by ETRN", "hooli", func(h *house, a *meter.Account, _ Client) error {
			if waits, err := h.turns.Asked(h.t.Context(), a, []string{"hooli.example"}); waits || err != nil {
				return err
			}
			return ErrNothingWaits
		}, "192.0.2.1", true},
		{"an operator", "hooli", func(h *house, a *meter.Account, c Client) error { return h.turns.Dial(h.t.Context(), a, c) }, "", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, nil)
			if h.wasThere(test.account) {
				t.Fatal("somebody was there before")
			}
			if err := test.ask(h, h.account(test.account), Client{Addr: test.client}); !errors.Is(err, ErrNothingWaits) {
				t.Errorf("asked for mail: %v", err)
			}
			if got := h.wasThere(test.account); got != test.want {
				t.Errorf("the customer was there: %t", got)
			}
		})
	}
}

func TestETRNTurnIsDialled(t *testing.T) {
	t.Parallel()
	h := newHouse(t, nil)
	server := customer(t, nil)
	if err := h.etrn(server.Addr()); !errors.Is(err, ErrNothingWaits) {
		t.Errorf("nothing waits: %v", err)
	}
	h.hold(true, hello, "a@hooli.example")
	if err := h.etrn(server.Addr()); err != nil {
		t.Fatal(err)
	}
	h.until("the turn is over", func() bool { return !h.turns.Open("hooli") && h.idle() })
	if len(server.Messages()) != 1 || h.held() != 0 {
		t.Errorf("%d arrived, %d are held", len(server.Messages()), h.held())
	}
	if r := h.record(); r.Kind != meter.TurnETRN || r.Peer != server.Addr() || r.Client != "192.0.2.1" || r.Outcome != "done" {
		t.Errorf("recorded %+v", r)
	}
}

// etrn is ETRN for hooli, whose server is at host.
func (h *house) etrn(host string) error {
	a := *h.account("hooli")
	a.Mode, a.Host = meter.ETRN, host
	return h.turns.Dial(h.t.Context(), &a, Client{Addr: "192.0.2.1"})
}

func TestDialledTurnIsRecordedAsItWent(t *testing.T) {
	t.Parallel()
	h := newHouse(t, nil)
	h.hold(true, hello, "a@hooli.example")
	server := customer(t, nil)
	_, port, _ := net.SplitHostPort(withSTARTTLS(t, server.Addr()))
	if err := h.etrn("localhost:" + port); err != nil {
		t.Fatal(err)
	}
	h.until("the turn is over", func() bool { return !h.turns.Open("hooli") })
	if r := h.record(); r.Peer != "127.0.0.1:"+port || r.TLS != "TLS 1.3" || r.Messages != 1 {
		t.Errorf("recorded %+v", r)
	}
}

// withSTARTTLS puts TLS before a server, for one connection. It returns where.
func withSTARTTLS(t *testing.T, server string) string {
	certified := httptest.NewTLSServer(nil)
	certified.Close()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	t.Cleanup(func() { l.Close(); serving.Wait() })
	serving.Go(func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		in := bufio.NewReader(conn)
		for _, reply := range []string{"220 mx.hooli.example ESMTP", "250-mx.hooli.example\r\n250 STARTTLS", "220 go ahead"} {
			fmt.Fprintf(conn, "%s\r\n", reply)
			if strings.HasSuffix(reply, "ahead") {
				break
			}
			if _, err := in.ReadString('\n'); err != nil {
				t.Error(err)
				return
			}
		}
		secured := tls.Server(conn, &tls.Config{Certificates: certified.TLS.Certificates})
		inner, err := net.Dial("tcp", server)
		if err != nil {
			t.Error(err)
			return
		}
		defer inner.Close()
		replies := bufio.NewReader(inner)
		if _, err := replies.ReadString('\n'); err != nil { // the greeting was said in the clear
			t.Error(err)
			return
		}
		serving.Go(func() {
			io.Copy(inner, secured)
			inner.Close()
		})
		io.Copy(secured, replies)
	})
	return l.Addr().String()
}

func TestETRNToAnUnreachableHostIsRefused(t *testing.T) {
	t.Parallel()
	down, err := postfixtest.NewSink()
	if err != nil {
		t.Fatal(err)
	}
	busy := customer(t, nil)
	own := customer(t, nil)
	var resolved []string
	h := newHouse(t, func(c *plan) {
		c.Self = func(a netip.AddrPort) bool { return a.String() == own.Addr() }
		c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			resolved = append(resolved, address)
			return new(net.Dialer).DialContext(ctx, network, address)
		}
	})
	h.hold(true, hello, "a@hooli.example")
	for _, c := range []struct {
		host string
		want error
	}{
		{down.Addr(), ErrUnreachable},
		{"nowhere.invalid", ErrUnreachable},
		{own.Addr(), ErrSelf},
	} {
		if err := h.etrn(c.host); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.host, err, c.want)
		}
		if r := h.record(); !strings.HasPrefix(r.Outcome, "unreachable") || h.turns.Open("hooli") {
			t.Errorf("recorded %+v", r)
		}
	}
	// localhost has two addresses where there is IPv6; the server is at one of them.
	_, port, _ := net.SplitHostPort(busy.Addr())
	if err := h.etrn("localhost:" + port); err != nil {
		t.Errorf("%v; tried %v", err, resolved)
	}
}

// A daemon that died had delivered messages that it could not strike off any more, and an operator removed
// another.
func TestWhatTheMTADoesNotHaveIsStruckOff(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(c *plan) { c.FirstWait = 2 * time.Second })
	gone := func() string {
		id := h.hold(true, hello, "a@globex.example")
		h.mta.mu.Lock()
		defer h.mta.mu.Unlock()
		delete(h.queue, id)
		return id
	}
	gone()
	gone()
	server := customer(t, nil)
	if err := h.reverse("globex", server); !errors.Is(err, ErrNothingWaits) || h.waiting("globex") != 0 || !h.wasThere("globex") {
		t.Errorf("%v; %d messages wait by the index; the customer was there: %t", err, h.waiting("globex"), h.wasThere("globex"))
	}
	h.bound(func(b *Bounds) { b.FirstWait = 5 * time.Second }) // this turn is to come about, however busy the machine is
	gone()
	h.hold(true, hello, "a@globex.example")
	if err := h.reverse("globex", server); err != nil || h.waiting("globex") != 0 || h.record().Outcome != "done" {
		t.Errorf("%v; %d messages wait by the index, recorded %+v", err, h.waiting("globex"), h.record())
	}
}

// Behind as much as a window has of what is gone there is mail all the same.
func TestMailBehindWhatTheMTADoesNotHaveIsDelivered(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(c *plan) { c.Window, c.FirstWait = minWindow, 3*time.Second })
	for range minWindow {
		id := h.hold(true, hello, "a@globex.example")
		h.mta.mu.Lock()
		delete(h.queue, id)
		h.mta.mu.Unlock()
	}
	h.hold(true, hello, "a@globex.example")
	server := customer(t, nil)
	if err := h.reverse("globex", server); err != nil || len(server.Messages()) != 1 || h.waiting("globex") != 0 {
		t.Errorf("%v; %d messages arrived, %d wait by the index", err, len(server.Messages()), h.waiting("globex"))
	}
}

// A message that moves while the queue is listed may be missing from the listing.
func TestOneLookAtTheQueueStrikesNothingOff(t *testing.T) {
	t.Parallel()
	var looks atomic.Int32
	h := newHouse(t, func(c *plan) {
		c.FirstWait = 100 * time.Millisecond
		truth := c.Missing
		c.Missing = func(ctx context.Context, ids []string) ([]string, error) {
			if looks.Add(1) == 1 {
				return ids, nil
			}
			return truth(ctx, ids)
		}
	})
	h.stuck[h.hold(true, hello, "a@globex.example")] = true
	if err := h.reverse("globex", customer(t, nil)); !errors.Is(err, ErrNotDelivered) || h.waiting("globex") != 1 {
		t.Errorf("%v; %d messages wait by the index", err, h.waiting("globex"))
	}
}

// A listing takes seconds where the queue is long.
func TestMTAThatComesWhileItsQueueIsListedIsInTime(t *testing.T) {
	t.Parallel()
	var h *house
	var id string
	var listed sync.Once
	h = newHouse(t, func(c *plan) {
		c.FirstWait = 2 * time.Second // which it also has from then on, to bring the message
		truth := c.Missing
		c.Missing = func(ctx context.Context, ids []string) ([]string, error) {
			listed.Do(func() {
				h.mta.mu.Lock()
				delete(h.stuck, id)
				h.mta.mu.Unlock()
				if err := h.mta.Release(ctx, id); err != nil {
					t.Error(err)
				}
				h.turns.mu.Lock()
				gate := h.turns.open["globex"].gate
				h.turns.mu.Unlock()
				<-gate.connected
			})
			return truth(ctx, ids)
		}
	})
	id = h.hold(true, hello, "a@globex.example")
	h.stuck[id] = true
	server := customer(t, nil)
	if err := h.reverse("globex", server); err != nil || len(server.Messages()) != 1 {
		t.Errorf("%v; %d messages arrived", err, len(server.Messages()))
	}
}

func TestWithoutTheIndexNobodyHearsThatNothingWaits(t *testing.T) {
	t.Parallel()
	var h *house
	h = newHouse(t, func(c *plan) {
		c.FirstWait = 100 * time.Millisecond
		listen := c.Listen
		c.Listen = func(ctx context.Context, account string) (net.Listener, error) {
			// The turn has its place by now.
			if err := os.Rename(h.database, h.database+".away"); err != nil {
				return nil, err
			}
			return listen(ctx, account)
		}
	})
	h.hold(true, hello, "a@globex.example")
	if err := h.reverse("globex", customer(t, nil)); !errors.Is(err, ErrNotDelivered) {
		t.Errorf("the one who asked is told %v", err)
	}
}

func TestShutdownWaitsForNoHostThatHangs(t *testing.T) {
	t.Parallel()
	dialling := make(chan struct{})
	h := newHouse(t, func(c *plan) {
		c.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
			close(dialling)
			<-ctx.Done()
			return nil, ctx.Err()
		}
	})
	h.hold(true, hello, "a@hooli.example")
	dialled := make(chan error, 1)
	go func() { dialled <- h.etrn("192.0.2.7") }()
	<-dialling
	if err := h.turns.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-dialled; !errors.Is(err, ErrClosing) {
		t.Errorf("the one who asked is told %v", err)
	}
}
