package turn

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mailbag/meter"
	"mailbag/turnd/relay"

	postfixtest "mailbag/testdata/postfix"
)

// A clock goes as it is told to.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// A server may end a reversed connection after so many refusals.
func TestRecipientsThatWereRefusedLatelyGoLast(t *testing.T) {
	t.Parallel()
	h := newHouse(t, nil)
	var mu sync.Mutex
	var asked []string
	server := customer(t, func(s *postfixtest.Sink) {
		s.OnRecipient = func(address string) string {
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, address)
			if address == "unknown@globex.example" {
				return "550 5.1.1 unknown"
			}
			return ""
		}
	})
	h.hold(true, hello, "unknown@globex.example")
	h.hold(true, hello, "a@globex.example")
	if err := h.reverse("globex", server); err != nil {
		t.Fatal(err)
	}
	const unknown, good = 6, 20
	asked = nil
	for range unknown {
		h.hold(true, hello, "unknown@globex.example")
	}
	for i := range good {
		h.hold(true, hello, fmt.Sprintf("%d@globex.example", i)) // a stranger
	}
	h.hold(true, hello, "unknown@globex.example", "a@globex.example") // for one at least it is not in vain
	if err := h.reverse("globex", server); err != nil {
		t.Fatal(err)
	}
	first := slices.Index(asked, "unknown@globex.example")
	for first < len(asked)-1 && asked[first+1] == "a@globex.example" { // the message for both
		first += 1 + slices.Index(asked[first+1:], "unknown@globex.example")
	}
	if len(asked) != unknown+good+2 || first != len(asked)-unknown {
		t.Errorf("recipients were named in this order: %q", asked)
	}
	if h.held() != 0 || h.waiting("globex") != 0 || len(h.returned) != unknown+2 {
		t.Errorf("%d are held, %d wait by the index, %d were returned", h.held(), h.waiting("globex"), len(h.returned))
	}
}

func TestAfterManyRefusalsStrangersGoLastToo(t *testing.T) {
	t.Parallel()
	h := newHouse(t, nil)
	account := h.account("globex")
	known, refused, stranger := "<known@globex.example>", "<refused@globex.example>", "<stranger@globex.example>"
	h.turns.memory.recipient(account.ID, known, true)
	h.turns.memory.recipient(account.ID, refused, false)
	h.turns.memory.recipient(h.account("hooli").ID, stranger, true) // no matter here
	for _, c := range []struct {
		refusals int64
		to       []string
		last     bool // in a reversed turn
	}{
		{0, []string{known}, false},
		{0, []string{stranger}, false},
		{0, []string{refused}, true},
		{0, []string{refused, stranger}, false},
		{0, []string{refused, known}, false},
		{maxPatience - 1, []string{stranger}, false},
		{maxPatience, []string{stranger}, true},
		{maxPatience, []string{refused, stranger}, true},
		{maxPatience, []string{stranger, known}, false},
		{maxPatience, []string{known}, false},
	} {
		for kind, want := range map[meter.TurnKind]bool{meter.TurnATRN: c.last, meter.TurnETRN: false} {
			one := h.turns.new(account, kind, Client{})
			one.refusals.Store(c.refusals)
			if last := one.putsOff(c.to); last != want {
				t.Errorf("after %d refusals in a turn by %s, a message for %q goes last: %v", c.refusals, kind, c.to, last)
			}
			one.cut()
		}
	}
}

func TestWhatIsRememberedOfRecipientsIsBounded(t *testing.T) {
	t.Parallel()
	m := newMemory(newClock().now)
	path := func(i int) string { return fmt.Sprintf("<%d@globex.example>", i) }
	const n = 3*maxRemembered + 10
	for i := range n {
		m.recipient(1, path(i), i%2 == 0)
	}
	if a := m.accounts[1]; len(a.recipients) > maxRemembered || len(a.before) > maxRemembered {
		t.Errorf("%d recipients are remembered, and %d of the generation before", len(a.recipients), len(a.before))
	}
	for i := range n {
		taken, asked := m.taken(1, path(i))
		if i >= n-maxRemembered && (!asked || taken != (i%2 == 0)) || i < n-2*maxRemembered && asked {
			t.Fatalf("of recipient %d of %d it is remembered: %v, and that it was taken: %v", i, n, asked, taken)
		}
	}
}

func TestRecipientsAreForgottenAfterADay(t *testing.T) {
	t.Parallel()
	clock := newClock()
	m := newMemory(clock.now)
	m.recipient(1, "<a@globex.example>", true)
	for _, c := range []struct {
		pass  time.Duration
		asked bool
	}{{rememberFor / 4, true}, {rememberFor / 2, true}, {rememberFor / 2, false}} {
		clock.pass(c.pass)
		if _, asked := m.taken(1, "<a@globex.example>"); asked != c.asked {
			t.Errorf("after %v more it is remembered: %v", c.pass, asked)
		}
	}
}

func TestLessonsAreForgottenAfterADay(t *testing.T) {
	t.Parallel()
	clock := newClock()
	m := newMemory(clock.now)
	m.learn(1, relay.Lessons{DSN: true}, 10)
	m.learn(1, relay.Lessons{Chunking: true}, 0)
	m.learn(2, relay.Lessons{Size: true}, 0)
	clock.pass(rememberFor - time.Second)
	if lessons, served := m.server(1); lessons != (relay.Lessons{DSN: true, Chunking: true}) || served != 10 {
		t.Errorf("within a day %+v and %d are remembered", lessons, served)
	}
	clock.pass(time.Second)
	if lessons, served := m.server(1); lessons != (relay.Lessons{}) || served != 0 {
		t.Errorf("after a day %+v and %d are remembered", lessons, served)
	}
	clock.pass(2 * rememberFor)
	m.server(3)
	if len(m.accounts) != 1 {
		t.Errorf("of %d accounts something is remembered that had no turn for long", len(m.accounts)-1)
	}
}

// The clock of a house passes on to its turns, whose dials are counted.
func clockedHouse(t *testing.T) (h *house, c *clock, dials *atomic.Int32) {
	c, dials = newClock(), new(atomic.Int32)
	h = newHouse(t, func(cfg *plan) {
		cfg.Now = c.now
		cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			dials.Add(1)
			return new(net.Dialer).DialContext(ctx, network, address)
		}
	})
	return h, c, dials
}

func down(t *testing.T) string {
	t.Helper()
	s, err := postfixtest.NewSink()
	if err != nil {
		t.Fatal(err)
	}
	return s.Addr()
}

// Some ask every few seconds.
func TestHostThatWasNotReachedIsNotDialledAtOnceAgain(t *testing.T) {
	t.Parallel()
	h, clock, dials := clockedHouse(t)
	h.hold(true, hello, "a@hooli.example")
	here, there := down(t), down(t)
	dial := func(host, client string) error {
		a := *h.account("hooli")
		a.Mode, a.Host = meter.ETRN, host
		return h.turns.Dial(t.Context(), &a, Client{Addr: client})
	}
	var dialled, recorded int
	for _, c := range []struct {
		what         string
		pass         time.Duration
		host, client string
		dials        int
	}{
		{"the first time", 0, here, "192.0.2.1", 1},
		{"at once", 0, here, "192.0.2.1", 0},
		{"by another client", 0, here, "192.0.2.2", 0},
		{"within a minute", unreachedFor - time.Second, here, "192.0.2.1", 0},
		{"by an operator", 0, here, "", 1},
		{"after the operator", unreachedFor - time.Second, here, "192.0.2.1", 0},
		{"at another host", 0, there, "192.0.2.1", 1},
		{"there again", 0, there, "192.0.2.1", 0},
		{"at the first host", 0, here, "192.0.2.1", 1},
		{"after a minute", unreachedFor, here, "192.0.2.1", 1},
		{"when the clock went back", -time.Hour, here, "192.0.2.1", 1},
	} {
		clock.pass(c.pass)
		if err := dial(c.host, c.client); !errors.Is(err, ErrUnreachable) {
			t.Errorf("%s: %v", c.what, err)
		}
		turns, err := h.ledger.Turns(t.Context(), "", 100)
		if err != nil {
			t.Fatal(err)
		}
		if n := int(dials.Load()) - dialled; n != c.dials || len(turns)-recorded != c.dials {
			t.Errorf("%s: dialled %d times, recorded %d turns; want %d of each", c.what, n, len(turns)-recorded, c.dials)
		}
		dialled, recorded = int(dials.Load()), len(turns)
	}
	if h.turns.Open("hooli") || h.waiting("hooli") != 1 {
		t.Errorf("a turn is open: %v; %d messages wait", h.turns.Open("hooli"), h.waiting("hooli"))
	}
}

func TestHostThatAnOperatorReachedIsDialledForItsCustomer(t *testing.T) {
	t.Parallel()
	h, _, _ := clockedHouse(t)
	server, err := postfixtest.NewSink()
	if err != nil {
		t.Fatal(err)
	}
	h.hold(true, hello, "a@hooli.example")
	if err := h.etrn(server.Addr()); !errors.Is(err, ErrUnreachable) {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	a := *h.account("hooli")
	a.Mode, a.Host = meter.ETRN, server.Addr()
	if err := h.turns.Dial(t.Context(), &a, Client{}); err != nil {
		t.Fatal(err)
	}
	h.until("the operator's turn is over", func() bool { return !h.turns.Open("hooli") })
	h.hold(true, hello, "a@hooli.example")
	if h.dialled(server); len(server.Messages()) != 2 {
		t.Errorf("%d messages arrived", len(server.Messages()))
	}
}

// The customer loses patience while his server is dialled: of that server this says nothing.
func TestClientThatHangsUpMakesNoHostUnreachable(t *testing.T) {
	t.Parallel()
	server := customer(t, nil)
	dialling := make(chan struct{})
	var first atomic.Bool
	h := newHouse(t, func(c *plan) {
		c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			if first.CompareAndSwap(false, true) {
				close(dialling)
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return new(net.Dialer).DialContext(ctx, network, address)
		}
	})
	h.hold(true, hello, "a@hooli.example")
	a := *h.account("hooli")
	a.Mode, a.Host = meter.ETRN, server.Addr()
	ctx, hangUp := context.WithCancel(t.Context())
	asked := make(chan error, 1)
	go func() { asked <- h.turns.Dial(ctx, &a, Client{Addr: "192.0.2.1"}) }()
	<-dialling
	hangUp()
	if err := <-asked; !errors.Is(err, context.Canceled) {
		t.Errorf("he would be told %v", err)
	}
	if h.dialled(server); len(server.Messages()) != 1 {
		t.Errorf("%d messages arrived", len(server.Messages()))
	}
}

// However many customers have however many users, what is remembered of them is bounded.
func TestRecipientsOfAllAccountsAreBounded(t *testing.T) {
	t.Parallel()
	m := newMemory(time.Now)
	const each = maxRemembered - 1
	for account := range int64(maxInAll/each + 2) {
		for i := range each {
			m.recipient(account, fmt.Sprintf("<%d@x>", i), true)
		}
	}
	held := 0
	for _, known := range m.accounts {
		held += len(known.recipients) + len(known.before)
	}
	if held > maxInAll || held != m.inAll {
		t.Errorf("%d recipients are remembered, counted as %d", held, m.inAll)
	}
	if taken, asked := m.taken(int64(maxInAll/each+1), "<1@x>"); !taken || !asked {
		t.Error("the latest are forgotten")
	}
}
