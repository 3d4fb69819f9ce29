package turn

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"mailbag/meter"

	postfixtest "mailbag/testdata/postfix"
)

// cutServer is one that ends its first connection after one message. Behind that, dials are answered by next.
func cutServer(t *testing.T, next func(ctx context.Context, network, address string) (net.Conn, error), change func(*plan)) (h *house, server *postfixtest.Sink, dials *atomic.Int32) {
	server = customer(t, func(s *postfixtest.Sink) {
		s.OnCommand = func(s *postfixtest.Session, verb, _ string) string {
			if verb == "MAIL" && s.Number == 1 && s.Taken >= 1 {
				return "421 4.7.0 enough"
			}
			return ""
		}
	})
	dials = new(atomic.Int32)
	h = newHouse(t, func(c *plan) {
		c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			if dials.Add(1) == 1 {
				return new(net.Dialer).DialContext(ctx, network, address)
			}
			return next(ctx, network, address)
		}
		if change != nil {
			change(c)
		}
	})
	return h, server, dials
}

func TestTurnIsEndedWhileItWaitsToReachTheServerAgain(t *testing.T) {
	t.Parallel()
	suspend := func(h *house) error {
		_, _, err := h.ledger.EditAccount(h.t.Context(), "hooli", "suspend", func(a *meter.Account) error { a.Suspended = true; return nil })
		return err
	}
	cutOff := func(h *house) error {
		ctx, cancel := context.WithCancel(h.t.Context())
		cancel()
		if err := h.turns.Shutdown(ctx); !errors.Is(err, context.Canceled) {
			return err
		}
		return nil
	}
	for name, c := range map[string]struct {
		hangs   bool // the second dial does; else it fails, and a pause follows
		end     func(h *house) error
		outcome string
	}{
		"in a pause, by an operator":   {false, func(h *house) error { h.turns.End("hooli"); return nil }, ErrEnded.Error()},
		"in a pause, by a shutdown":    {false, func(h *house) error { return h.turns.Shutdown(h.t.Context()) }, ErrClosing.Error()},
		"in a pause, by a suspension":  {false, suspend, ErrSuspended.Error()},
		"in a pause, cut off":          {false, cutOff, "cut off"},
		"in dialling, by an operator":  {true, func(h *house) error { h.turns.End("hooli"); return nil }, ErrEnded.Error()},
		"in dialling, by a shutdown":   {true, func(h *house) error { return h.turns.Shutdown(h.t.Context()) }, ErrClosing.Error()},
		"in dialling, by a suspension": {true, suspend, ErrSuspended.Error()},
		"in dialling, cut off":         {true, cutOff, "cut off"},
		"in dialling, by a deletion":   {true, func(h *house) error { return h.ledger.DeleteAccount(h.t.Context(), "hooli") }, ErrDeleted.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			away := make(chan struct{}, 10)
			h, server, dials := cutServer(t, func(ctx context.Context, _, _ string) (net.Conn, error) {
				away <- struct{}{}
				if c.hangs {
					<-ctx.Done()
					return nil, ctx.Err()
				}
				return nil, errors.New("nobody there")
			}, nil)
			const n = 20
			h.fill(n, "a@hooli.example")
			if err := h.etrn(server.Addr()); err != nil {
				t.Fatal(err)
			}
			<-away
			h.until("the MTA heard of the first", func() bool { return h.held() == n-1 })
			before := dials.Load() // the longer this has taken, the more there were
			if err := c.end(h); err != nil {
				t.Fatal(err)
			}
			h.until("the turn is over", func() bool { return !h.turns.Open("hooli") })
			h.until("the MTA has back what it brought", func() bool {
				h.mta.mu.Lock()
				defer h.mta.mu.Unlock()
				return len(h.busy) == 0
			})
			if n := dials.Load() - before; n > 1 {
				t.Errorf("it was dialled %d times more", n)
			}
			if n := dials.Load() - before; strings.HasSuffix(c.outcome, ErrEnded.Error()) && n > 0 {
				t.Errorf("it was dialled %d times more", n)
			}
			if h.held() != n-1 || len(server.Messages()) != 1 || len(h.returned) != 0 {
				t.Errorf("%d arrived, %d are held, %v were returned", len(server.Messages()), h.held(), h.returned)
			}
			turns, err := h.ledger.Turns(t.Context(), "", 1)
			ends := func(outcome string) bool {
				// One that is cut off is told to end first, and may do so before it is.
				return strings.HasPrefix(outcome, c.outcome) || c.outcome == "cut off" && outcome == ErrClosing.Error()
			}
			if err != nil || len(turns) != 1 || !ends(turns[0].Outcome) {
				t.Errorf("recorded %+v, %v", turns, err)
			}
		})
	}
}

// Postfix is restarted while a message waits for the next connection.
func TestMessageThatWaitsForTheNextConnectionIsLeftByItsMTA(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dialling, reach := make(chan struct{}), make(chan struct{})
	h, server, _ := cutServer(t, func(ctx context.Context, network, address string) (net.Conn, error) {
		close(dialling)
		<-reach
		return new(net.Dialer).DialContext(ctx, network, address)
	}, func(c *plan) {
		c.Listen = func(context.Context, string) (net.Listener, error) { return l, nil }
		c.FirstWait, c.IdleWait = time.Minute, time.Minute
	})
	h.stuck[h.hold(true, hello, "a@hooli.example")] = true
	if err := h.etrn(server.Addr()); err != nil {
		t.Fatal(err)
	}
	bring := func(id string) *postfixtest.Client {
		c := begin(t, l.Addr().String(), id, "a@hooli.example")
		c.Write([]byte(hello + id + "\r\n.\r\n"))
		return c
	}
	replies(t, bring("ONE"), "250")
	replies(t, bring("TWO"), "451") // which ends the connection
	<-dialling
	two, err := postfixtest.Dial(l.Addr().String(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"LHLO x", "XFORWARD IDENT=TWO", "MAIL FROM:<a@sender.example>", "RCPT TO:<a@hooli.example>"} {
		if reply, err := two.Say(command); err != nil || reply[0] != '2' {
			t.Fatal(command, reply, err)
		}
	}
	two.Write([]byte("DATA\r\n"))
	h.turns.mu.Lock()
	one := h.turns.open["hooli"]
	h.turns.mu.Unlock()
	active := func(n int) func() bool {
		return func() bool {
			one.window.mu.Lock()
			defer one.window.mu.Unlock()
			return one.window.active == n
		}
	}
	h.until("the message waits", active(1))
	two.Close()
	close(reach)
	h.until("it waits no more", active(0))
	replies(t, bring("TWO"), "250")
	if got := contents(server); len(got) != 2 || got["TWO"] != 1 || got["ONE"] != 1 {
		t.Errorf("arrived: %v", got)
	}
	h.turns.End("hooli")
	h.until("the turn is over", func() bool { return !h.turns.Open("hooli") })
	if r := h.record(); r.Connections != 2 || r.Messages != 2 || len(r.Suspects) != 0 {
		t.Errorf("recorded %+v", r)
	}
}
