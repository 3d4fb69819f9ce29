package policy

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"mailbag/meter"
)

// ended is END-OF-MESSAGE of a message that began after the start.
func (d *desk) ended(t testing.TB, sequence int, recipient string, count int, size int64) string {
	t.Helper()
	return d.answer(t, "protocol_state=END-OF-MESSAGE", "instance="+instance(started.Add(30*time.Second), sequence),
		"recipient="+recipient, fmt.Sprint("recipient_count=", count), fmt.Sprint("size=", size), "queue_id=Q")
}

func (d *desk) mayCome(t testing.TB, sequence int, recipient string) string {
	t.Helper()
	return d.answer(t, "protocol_state=RCPT", "instance="+instance(started.Add(30*time.Second), sequence), "recipient="+recipient)
}

// TestMessagesThatComeTogetherDoNotPassALimitTogether has many senders past RCPT, all of them below the limit,
// before the first of them ends its message.
func TestMessagesThatComeTogetherDoNotPassALimitTogether(t *testing.T) {
	t.Parallel()
	const senders = 60
	for _, test := range []struct {
		name    string
		set     func(*meter.Account)
		size    int64
		let     int64
		refused string
	}{
		{"defer", func(a *meter.Account) { a.OnLimit, a.Messages = meter.Defer, 3 }, 10, 3, "452 4.2.2 "},
		{"reject", func(a *meter.Account) { a.OnLimit, a.Messages = meter.Reject, 7 }, 10, 7, "552 5.2.2 "},
		{"the message that crosses the size passes", func(a *meter.Account) { a.OnLimit, a.Bytes = meter.Defer, 95 }, 10, 10, "452 4.2.2 "},
		{"tiers", func(a *meter.Account) { a.OnLimit, a.Messages, a.MaxTiers = meter.Bill, 5, 4 }, 10, 20, "452 4.2.2 "},
		{"billed", func(a *meter.Account) { a.OnLimit, a.Messages = meter.Bill, 3 }, 10, senders, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			a := account("acme", meter.ATRN, "acme.example")
			test.set(&a)
			d := openDesk(t, []meter.Account{a}, nil)
			for i := range senders {
				if got := d.mayCome(t, i, "a@acme.example"); got != "DUNNO" {
					t.Fatalf("RCPT is answered %q", got)
				}
			}
			var group sync.WaitGroup
			answers := make([]string, senders)
			for i := range senders {
				group.Go(func() { answers[i] = d.ended(t, i, "a@acme.example", 1, test.size) })
			}
			group.Wait()
			let := int64(0)
			for _, answer := range answers {
				if answer == "DUNNO" {
					let++
				} else if test.refused == "" || !strings.HasPrefix(answer, test.refused) {
					t.Errorf("a message is answered %q, want %q", answer, test.refused)
				}
			}
			if used := d.used(t, "acme"); let != test.let || used.Messages != let || used.Bytes != let*test.size {
				t.Errorf("%d messages were let in and %+v counted, want %d", let, used, test.let)
			}
			want := test.refused
			if want == "" {
				want = "DUNNO"
			}
			if got := d.mayCome(t, senders, "a@acme.example"); !strings.HasPrefix(got, want) {
				t.Errorf("the next message is answered %q, want %q", got, want)
			}
			if len(d.gate.underway) > 0 {
				t.Errorf("something is under way still: %v", d.gate.underway)
			}
		})
	}
}

// The bill takes the last message in the ledger for the one that crossed the limit.
func TestTheMessageThatCrossesALimitComesAlone(t *testing.T) {
	t.Parallel()
	a := account("acme", meter.ATRN, "acme.example")
	a.OnLimit, a.Bytes = meter.Defer, 100
	d := openDesk(t, []meter.Account{a}, nil)
	acme := d.follower.Directory().Account("acme")
	limited := map[*meter.Account]*limit{acme: d.limitOf(acme)}
	waits := func(size int64) bool {
		d.gate.mu.Lock()
		defer d.gate.mu.Unlock()
		decided, uncertain := d.passes(t.Context(), limited, meter.Usage{Messages: 1, Bytes: size})
		if decided != dunno {
			t.Errorf("a message of %d octets is answered %v", size, decided)
		}
		return uncertain
	}
	if waits(200) {
		t.Error("a message waits for none")
	}
	decided, settle := d.admit(t.Context(), []*meter.Account{acme}, 10)
	if decided != dunno {
		t.Fatalf("the first message is answered %v", decided)
	}
	if waits(89) || !waits(90) {
		t.Error("a message below the limit waits, or the one that reaches it does not")
	}
	settle()
	if waits(200) {
		t.Error("a message waits for one that is settled")
	}
}

func TestTheMessageThatCrossedTheLimitPassesWhenPostfixAsksAgain(t *testing.T) {
	t.Parallel()
	a := account("acme", meter.ATRN, "acme.example")
	a.OnLimit, a.Messages = meter.Reject, 1
	d := openDesk(t, []meter.Account{a}, nil)
	for i := range 2 {
		d.mayCome(t, i, "a@acme.example")
	}
	for _, want := range []string{"DUNNO", "DUNNO"} {
		if got := d.ended(t, 0, "a@acme.example", 1, 10); got != want {
			t.Errorf("the message is answered %q", got)
		}
	}
	if got := d.ended(t, 1, "a@acme.example", 1, 10); !strings.HasPrefix(got, "552 ") {
		t.Errorf("the second message is answered %q", got)
	}
}

// What is for others too must not be lost to them: its sender comes again, and hears about each recipient.
func TestMessageForOthersTooIsDeferredWhereOneOfThemRejects(t *testing.T) {
	t.Parallel()
	full := account("full", meter.ATRN, "full.example")
	full.OnLimit, full.Messages = meter.Reject, 1
	d := openDesk(t, []meter.Account{full, account("acme", meter.ATRN, "acme.example")}, nil)
	for i, other := range []string{"a@acme.example", "x@elsewhere.example"} {
		d.mayCome(t, i, "a@full.example")
		d.mayCome(t, i, other)
	}
	d.mayCome(t, 2, "a@full.example")
	if got := d.ended(t, 2, "a@full.example", 1, 10); got != "DUNNO" {
		t.Fatalf("the first message is answered %q", got)
	}
	for i := range 2 {
		if got := d.ended(t, i, "", 2, 10); !strings.HasPrefix(got, "452 4.2.2 ") {
			t.Errorf("message %d is answered %q", i, got)
		}
	}
	if used := d.used(t, "acme"); used.Messages != 0 {
		t.Errorf("acme is billed for a message that was not accepted: %+v", used)
	}
}

func TestWhatCannotBeRecordedTakesNoPlaceBelowTheLimit(t *testing.T) {
	t.Parallel()
	a := account("acme", meter.ATRN, "acme.example")
	a.OnLimit, a.Messages = meter.Defer, 1
	d := openDesk(t, []meter.Account{a}, nil)
	for i := range 2 {
		d.mayCome(t, i, "a@acme.example")
	}
	d.faults.unavailable.Store(true)
	if got := d.ended(t, 0, "a@acme.example", 1, 10); !strings.HasPrefix(got, "DEFER 4.3.0 ") {
		t.Errorf("without a ledger it is answered %q", got)
	}
	d.faults.unavailable.Store(false)
	if got := d.ended(t, 1, "a@acme.example", 1, 10); got != "DUNNO" {
		t.Errorf("the message below the limit is answered %q", got)
	}
}
