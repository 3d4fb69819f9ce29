package main

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"mailbag/cmd/internal/mta"
)

// aQueue is a Postfix whose queue is another at each pass over it.
type aQueue struct {
	storyMail
	passes  []iter.Seq[mta.Entry]
	seen    int
	expired []string
}

func (q *aQueue) Queue(context.Context) iter.Seq2[mta.Entry, error] {
	pass := q.passes[min(q.seen, len(q.passes)-1)]
	q.seen++
	return func(yield func(mta.Entry, error) bool) {
		for e := range pass {
			e.Expiring = slices.Contains(q.expired, e.ID)
			if !yield(e, nil) {
				return
			}
		}
	}
}

func (q *aQueue) Return(_ context.Context, ids ...string) error {
	q.expired = append(q.expired, ids...)
	return nil
}

// FormerLifetimes are those of a Postfix that setup did not change.
func (q *aQueue) FormerLifetimes(context.Context) (mta.Lifetimes, error) {
	return mta.Lifetimes{}, nil
}

func waitingEntry(id string, age time.Duration, to string) mta.Entry {
	return mta.Entry{Queue: "deferred", ID: id, Arrival: time.Now().Add(-age), Size: 1, Sender: "x@elsewhere.example", Recipients: []mta.Recipient{{Address: to}}}
}

const month = 31 * 24 * time.Hour

func TestWhatChangesBetweenTwoLooksIsNotReturned(t *testing.T) {
	t.Parallel()
	stays := waitingEntry("STAYS", month, "a@acme.example")
	gainsARecipient := waitingEntry("GAINS", month, "a@acme.example")
	now := gainsARecipient
	now.Recipients = append(slices.Clone(now.Recipients), mta.Recipient{Address: "x@other.example"})
	first := slices.Values([]mta.Entry{stays, waitingEntry("DELIVERED", month, "a@acme.example"),
		waitingEntry("REUSED", month, "a@acme.example"), gainsARecipient})
	second := slices.Values([]mta.Entry{waitingEntry("REUSED", 2*month, "a@acme.example"), now, stays, waitingEntry("LATER", month, "a@acme.example")})
	q := &aQueue{passes: []iter.Seq[mta.Entry]{first, second}}
	w := newWorkplace(t, q)
	w.must("account", "add", "acme", "--mode", "atrn", "--domain", "acme.example", "--generate-password")
	w.must("expire")
	if diff := strings.Join(q.expired, " "); diff != "STAYS" {
		t.Errorf("returned %q, want STAYS alone", diff)
	}
}

func TestAMessageIsReturnedWhenTheHoldTimesOfAllItsAccountsAreOver(t *testing.T) {
	t.Parallel()
	long, short := mta.Recipient{Address: "a@long.example"}, mta.Recipient{Address: "a@short.example"}
	to := func(id string, age time.Duration, recipients ...mta.Recipient) mta.Entry {
		e := waitingEntry(id, age, "")
		e.Recipients = recipients
		return e
	}
	const day = 24 * time.Hour
	q := &aQueue{passes: []iter.Seq[mta.Entry]{slices.Values([]mta.Entry{
		to("SHORT", 3*day, short), to("LONG", 3*day, long), to("LONGFIRST", 3*day, long, short), to("LONGLAST", 3*day, short, long),
		to("OVER", 11*day, long, short)})}}
	w := newWorkplace(t, q)
	w.must("account", "add", "long", "--mode", "atrn", "--domain", "long.example", "--hold", "10d", "--generate-password")
	w.must("account", "add", "short", "--mode", "atrn", "--domain", "short.example", "--hold", "2d", "--generate-password")
	w.must("expire")
	if got := strings.Join(q.expired, " "); got != "SHORT OVER" {
		t.Errorf("returned %q, want SHORT and OVER", got)
	}
}

func TestALongQueueIsReadOnceWhereNothingIsDue(t *testing.T) {
	t.Parallel()
	const length = 100_000
	long := func(age time.Duration) iter.Seq[mta.Entry] {
		e := waitingEntry("", age, "a@acme.example")
		return func(yield func(mta.Entry) bool) {
			for i := range length {
				e.ID = fmt.Sprintf("Q%06d", i)
				if !yield(e) {
					return
				}
			}
		}
	}
	q := &aQueue{passes: []iter.Seq[mta.Entry]{long(time.Hour)}}
	w := newWorkplace(t, q)
	w.must("account", "add", "acme", "--mode", "atrn", "--domain", "acme.example", "--generate-password")
	w.must("expire")
	if q.seen != 1 || len(q.expired) != 0 {
		t.Errorf("the queue was read %d times, %d messages were returned", q.seen, len(q.expired))
	}
	if out := w.must("expire", "--dry-run"); q.seen != 2 || !strings.Contains(out, "0 messages") {
		t.Errorf("the queue was read %d times: %s", q.seen, out)
	}
}

func TestWhatIsDueDoesNotWaitForTheRestOfALongQueue(t *testing.T) {
	t.Parallel()
	q := &aQueue{}
	old, young := waitingEntry("OLD", month, "a@acme.example"), waitingEntry("YOUNG", time.Hour, "a@acme.example")
	first := slices.Values([]mta.Entry{old, young})
	endless := func(yield func(mta.Entry) bool) {
		if !yield(old) {
			return
		}
		for until := time.Now().Add(time.Minute); len(q.expired) == 0; {
			if time.Now().After(until) {
				t.Error("the message waits for the end of the queue")
				return
			}
			if !yield(young) {
				return
			}
		}
	}
	q.passes = []iter.Seq[mta.Entry]{first, endless}
	w := newWorkplace(t, q)
	w.must("account", "add", "acme", "--mode", "atrn", "--domain", "acme.example", "--generate-password")
	if out := w.must("expire"); !strings.Contains(out, "1 message returned") {
		t.Errorf("expire says %s", out)
	}
}

// A round finds a bounded number, so that its memory is; the next goes on with the rest.
func TestMoreThanARoundFindsIsReturnedInSeveral(t *testing.T) {
	t.Parallel()
	const due = maxDue + 500
	e := waitingEntry("", month, "a@acme.example")
	old := func(yield func(mta.Entry) bool) {
		for i := range due {
			e.ID = fmt.Sprintf("Q%06d", i)
			if !yield(e) {
				return
			}
		}
	}
	q := &countingQueue{aQueue: aQueue{passes: []iter.Seq[mta.Entry]{old}}, gone: map[string]bool{}}
	w := newWorkplace(t, q)
	w.must("account", "add", "acme", "--mode", "atrn", "--domain", "acme.example", "--generate-password")
	out := w.must("expire")
	if len(q.gone) != due || !strings.Contains(out, "20,500 messages returned") {
		t.Errorf("%d messages were returned, want %d: %s", len(q.gone), due, out[max(0, len(out)-100):])
	}
	if q.seen != 4 {
		t.Errorf("the queue was read %d times, want 4", q.seen)
	}
}

// countingQueue loses what is expired.
type countingQueue struct {
	aQueue
	gone map[string]bool
}

func (q *countingQueue) Queue(ctx context.Context) iter.Seq2[mta.Entry, error] {
	return func(yield func(mta.Entry, error) bool) {
		for e, err := range q.aQueue.Queue(ctx) {
			if !q.gone[e.ID] && !yield(e, err) {
				return
			}
		}
	}
}

func (q *countingQueue) Return(_ context.Context, ids ...string) error {
	for _, id := range ids {
		q.gone[id] = true
	}
	return nil
}
