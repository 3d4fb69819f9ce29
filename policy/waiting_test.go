package policy

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mailbag/meter"
)

// A watch is a time that tests move.
type watch struct{ since atomic.Int64 }

func (w *watch) Now() time.Time          { return started.Add(time.Duration(w.since.Load())) }
func (w *watch) after(d time.Duration)   { w.since.Add(int64(d)) }
func (w *watch) configure(c *Config)     { c.Now = w.Now }
func (d *desk) idOf(name string) int64   { return d.follower.Directory().Account(name).ID }
func bound(a *meter.Account, n, b int64) { a.WaitingMessages, a.WaitingBytes = n, b }

const tooMuch = "452 4.2.2 Too much mail waits "

// Many senders are past RCPT, all of them below the bound, before the first of them ends its message.
func TestMessagesThatComeTogetherDoNotPassABoundTogether(t *testing.T) {
	t.Parallel()
	const senders = 60
	for _, test := range []struct {
		name            string
		messages, bytes int64
		let             int
	}{
		{"messages", 7, 0, 7},
		{"the message that crosses the size waits", 0, 95, 10},
		{"what is reached first", 50, 95, 10},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			a := account("acme", meter.ATRN, "acme.example")
			bound(&a, test.messages, test.bytes)
			d := openDesk(t, []meter.Account{a}, nil)
			if got := d.mayCome(t, "a@acme.example"); got != "DUNNO" {
				t.Fatalf("RCPT is answered %q", got)
			}
			var group sync.WaitGroup
			answers := make([]string, senders)
			for i := range senders {
				group.Go(func() { answers[i] = d.ended(t, i, 10, "a@acme.example") })
			}
			group.Wait()
			let := 0
			for _, answer := range answers {
				if answer == "c" {
					let++
				} else if !strings.HasPrefix(answer, tooMuch) {
					t.Errorf("a message is answered %q", answer)
				}
			}
			if w, err := d.ledger.Waiting(t.Context(), d.idOf("acme")); err != nil || let != test.let || w.Messages != int64(let) {
				t.Errorf("%d messages were let in and %+v waits, %v; want %d", let, w, err, test.let)
			}
			if used := d.used(t, "acme"); used.Messages != int64(let) {
				t.Errorf("%+v is counted", used)
			}
			if got := d.mayCome(t, "a@acme.example"); !strings.HasPrefix(got, tooMuch) {
				t.Errorf("the next message is answered %q", got)
			}
		})
	}
}

func TestThereIsRoomAgainWhenMailWasFetched(t *testing.T) {
	t.Parallel()
	var w watch
	a := account("acme", meter.ATRN, "acme.example")
	bound(&a, 2, 0)
	d := openDesk(t, []meter.Account{a}, w.configure)
	for i := range 2 {
		if got := d.ended(t, i, 10, "a@acme.example"); got != "c" {
			t.Fatalf("message %d is answered %q", i, got)
		}
	}
	w.after(time.Second)
	if got := d.mayCome(t, "a@acme.example"); !strings.HasPrefix(got, tooMuch) {
		t.Errorf("above the bound it is answered %q", got)
	}
	if err := d.ledger.Delivered(t.Context(), d.idOf("acme"), nil, "Q0"); err != nil {
		t.Fatal(err)
	}
	w.after(time.Second)
	if got := d.mayCome(t, "a@acme.example"); got != "DUNNO" {
		t.Errorf("below the bound it is answered %q", got)
	}
}

func TestWhatWaitsIsNotCountedForEachRecipient(t *testing.T) {
	t.Parallel()
	var w watch
	a := account("acme", meter.ATRN, "acme.example")
	bound(&a, 1000, 0)
	d := openDesk(t, []meter.Account{a, account("free", meter.ATRN, "free.example")}, w.configure)
	for i := range 50 {
		d.mayCome(t, "a@acme.example")
		d.mayCome(t, "a@free.example")
		if got := d.ended(t, i, 10, "a@acme.example", "a@free.example"); got != "c" {
			t.Fatalf("message %d is answered %q", i, got)
		}
	}
	if n := d.faults.waitingRead.Load(); n != 1 {
		t.Errorf("it was counted %d times, want once", n)
	}
	w.after(recountLatest) // what came by other ways is seen now
	d.mayCome(t, "a@acme.example")
	if n := d.faults.waitingRead.Load(); n != 2 {
		t.Errorf("it was counted %d times, want twice", n)
	}
}

// How long a counting takes says how soon the next one may be.
func TestCountingOfManyTakesAHundredthOfTheTime(t *testing.T) {
	t.Parallel()
	var w watch
	a := account("acme", meter.ATRN, "acme.example")
	bound(&a, 1, 0)
	d := openDesk(t, []meter.Account{a}, func(c *Config) {
		w.configure(c)
		c.Waiting = slowly{c.Waiting, &w}
	})
	if got := d.ended(t, 0, 10, "a@acme.example"); got != "c" {
		t.Fatalf("answered %q", got)
	}
	for range 100 {
		w.after(time.Second)
		d.mayCome(t, "a@acme.example")
	}
	if n := d.faults.waitingRead.Load(); n != 3 { // at 0, 50 and 100 s
		t.Errorf("in 100 s it was counted %d times, each of 0.5 s; want 3", n)
	}
}

type counting = Waiting

// slowly takes half a second to count.
type slowly struct {
	counting
	watch *watch
}

func (s slowly) Waiting(ctx context.Context, account int64, domains ...string) (meter.Waiting, error) {
	s.watch.after(time.Second / 2)
	return s.counting.Waiting(ctx, account, domains...)
}

// unreadable cannot be read.
type unreadable struct{ counting }

func (unreadable) Waiting(context.Context, int64, ...string) (meter.Waiting, error) {
	return meter.Waiting{}, meter.ErrUnavailable
}

func TestBoundOfARelayedAccountIsOfWhatTheQueueHas(t *testing.T) {
	t.Parallel()
	var w watch
	a := account("acme", meter.Backup, "acme.example")
	bound(&a, 3, 0)
	d := openDesk(t, []meter.Account{a}, w.configure)
	for i := range 10 { // which its server takes at once
		if got := d.ended(t, i, 10, "a@acme.example"); got != "c" {
			t.Fatalf("message %d is answered %q", i, got)
		}
	}
	pass := func(messages int) {
		t.Helper()
		_, err := d.ledger.Reconcile(t.Context(), d.follower.Directory(), func(yield func(meter.QueuedMessage, error) bool) {
			for i := range messages {
				yield(meter.QueuedMessage{ID: fmt.Sprint("Q", i), Size: 10, Arrived: started, Recipients: []string{"a@acme.example"}}, nil)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		w.after(time.Second)
	}
	for _, test := range []struct {
		queued int
		want   string
	}{{2, "DUNNO"}, {3, tooMuch}, {0, "DUNNO"}} {
		pass(test.queued)
		if got := d.mayCome(t, "a@acme.example"); !strings.HasPrefix(got, test.want) {
			t.Errorf("with %d in the queue it is answered %q, want %q", test.queued, got, test.want)
		}
	}
}

func TestNoBoundIsThereForMailThatDoesNotWait(t *testing.T) {
	t.Parallel()
	a := account("box", meter.POP3, "box.example")
	bound(&a, 1, 1) // as of a plan
	d := openDesk(t, []meter.Account{a}, nil)
	for i := range 3 {
		if got := d.ended(t, i, 10, "a@box.example"); got != "c" {
			t.Errorf("message %d is answered %q", i, got)
		}
	}
	if n := d.faults.waitingRead.Load(); n != 0 {
		t.Errorf("what waits was counted %d times", n)
	}
}

// A message that is refused for one account waits for no other.
func TestMessageForAFullAccountWaitsForNone(t *testing.T) {
	t.Parallel()
	full, other := account("full", meter.ATRN, "full.example"), account("other", meter.ATRN, "other.example")
	bound(&full, 1, 0)
	bound(&other, 5, 0)
	d := openDesk(t, []meter.Account{full, other}, nil)
	if got := d.ended(t, 0, 10, "a@full.example"); got != "c" {
		t.Fatalf("the first message is answered %q", got)
	}
	for _, recipients := range [][]string{{"a@full.example"}, {"a@other.example", "a@full.example"}, {"a@full.example", "x@elsewhere.example"}} {
		if got := d.ended(t, 1, 10, recipients...); !strings.HasPrefix(got, tooMuch) {
			t.Errorf("for %v it is answered %q", recipients, got)
		}
	}
	if used := d.used(t, "other"); used.Messages != 0 {
		t.Errorf("other is billed for what was not accepted: %+v", used)
	}
	if got := metric(t, d, "mailbag_policy_milter_messages_total"); got != 4 {
		t.Errorf("%v messages are counted", got)
	}
}

func TestWhatCannotBeCountedIsDeferred(t *testing.T) {
	t.Parallel()
	a := account("acme", meter.ATRN, "acme.example")
	bound(&a, 1, 0)
	d := openDesk(t, []meter.Account{a}, func(c *Config) { c.Waiting = unreadable{c.Waiting} })
	if got := d.mayCome(t, "a@acme.example"); !strings.HasPrefix(got, "451 4.3.0 ") {
		t.Errorf("answered %q", got)
	}
	if !strings.Contains(d.log.String(), "what waits for an account cannot be counted") {
		t.Errorf("the log has %q", d.log)
	}
}

// The ledger has it in a moment, or never.
func TestMessageUnderWayTakesItsPlaceWhateverIsCounted(t *testing.T) {
	t.Parallel()
	var w watch
	a := account("acme", meter.ATRN, "acme.example")
	bound(&a, 1, 0)
	d := openDesk(t, []meter.Account{a}, w.configure)
	decided, settle := d.mayWait(t.Context(), []*meter.Account{d.follower.Directory().Account("acme")}, 10)
	if decided != dunno {
		t.Fatalf("it is answered %v", decided)
	}
	w.after(recountLatest)
	if got := d.mayCome(t, "a@acme.example"); !strings.HasPrefix(got, tooMuch) {
		t.Errorf("while it is under way the next is answered %q", got)
	}
	settle()
	w.after(recountSoonest)
	if got := d.mayCome(t, "a@acme.example"); got != "DUNNO" {
		t.Errorf("when it was given up the next is answered %q", got)
	}
}
