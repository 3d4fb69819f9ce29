package meter

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"testing"
	"time"
)

// queueOf is a listing of a queue with these messages.
func queueOf(messages ...QueuedMessage) iter.Seq2[QueuedMessage, error] {
	return func(yield func(QueuedMessage, error) bool) {
		for _, m := range messages {
			if !yield(m, nil) {
				return
			}
		}
	}
}

// clock is a time that tests move.
type clock struct{ now time.Time }

func (c *clock) Now() time.Time { return c.now }

func (c *clock) pass() { c.now = c.now.Add(time.Minute) }

func TestReconcileNotesWhatCameByAnotherWay(t *testing.T) {
	t.Parallel()
	l, d := twoAccounts(t, Options{})
	queue := queueOf(
		QueuedMessage{"Q1", 100, noon, []string{"a@globex.example", "b@Globex.Example", "c@acme.example"}},
		QueuedMessage{"Q2", 200, noon.Add(time.Hour), []string{"x@elsewhere.example", "a@globex.example"}},
		QueuedMessage{"Q3", 400, noon, []string{"x@elsewhere.example", "c@acme.example", "broken"}},
	)
	for pass, want := range []Reconciled{{Queued: 3, Added: 2}, {Queued: 3}} {
		if got, err := l.Reconcile(t.Context(), d, queue); err != nil || got != want {
			t.Errorf("pass %d = %+v, %v; want %+v", pass, got, err, want)
		}
	}
	if got := waitingOf(t, l, d.Account("globex")); got != (Waiting{2, 300, noon}) {
		t.Errorf("globex waits with %v", got)
	}
	if got := waitingOf(t, l, d.Account("acme")); got.Messages != 0 {
		t.Errorf("acme, which is relayed, waits with %v", got)
	}
}

// Postfix's queue IDs are hexadecimal, or have the letters and digits of 52; Exim's begin with those of 62 and have hyphens.
func TestReconcileKnowsTheQueueIDsOfEveryMTA(t *testing.T) {
	t.Parallel()
	c := &clock{noon}
	l, d := twoAccounts(t, Options{Now: c.Now})
	globex := d.Account("globex")
	var all []QueuedMessage
	for i, id := range []string{"zzzzzz-zzzzzz-zz", "zzzzzz-zzzzzzzzzzz-zzzz", "1vOABC-0004xZ-2f", "1vOABC-0004xZ-2F", "1vOABC-00000004xZa-2fGh", "000000-000000-00", "4bXyZ0zz", "zyXwVu", "3F2A9B1C0D"} {
		all = append(all, QueuedMessage{id, int64(i + 1), noon, []string{"a@globex.example"}})
	}
	for range 800 { // more than a step takes
		n := len(all)
		all = append(all, QueuedMessage{fmt.Sprintf("1vOB%02d-0004%02d-2f", n%100, n/100), 1, noon, []string{"a@globex.example"}})
	}
	for pass, want := range []Reconciled{{Queued: len(all), Added: len(all)}, {Queued: len(all)}, {Queued: len(all)}} {
		c.pass()
		if got, err := l.Reconcile(t.Context(), d, queueOf(all...)); err != nil || got != want {
			t.Errorf("pass %d = %+v, %v; want %+v", pass, got, err, want)
		}
	}
	var walked []string
	for after := (WaitingMessage{}); ; {
		next, err := l.WaitingAfter(t.Context(), globex.ID, nil, after, 100)
		if err != nil {
			t.Fatal(err)
		}
		if len(next) == 0 {
			break
		}
		for _, m := range next {
			walked = append(walked, m.ID)
		}
		after = next[len(next)-1]
	}
	if len(walked) != len(all) || !slices.IsSorted(walked) {
		t.Errorf("a turn finds %d messages, sorted: %v; want %d", len(walked), slices.IsSorted(walked), len(all))
	}
	if err := l.Delivered(t.Context(), globex.ID, nil, "1vOABC-0004xZ-2f", "zzzzzz-zzzzzzzzzzz-zzzz"); err != nil {
		t.Fatal(err)
	}
	if w := waitingOf(t, l, globex); w.Messages != int64(len(all)-2) {
		t.Errorf("%d wait, want all but two of %d", w.Messages, len(all))
	}
}

func TestReconcileStrikesOffWhatTwoPassesMissed(t *testing.T) {
	t.Parallel()
	c := &clock{noon}
	l, d := twoAccounts(t, Options{Now: c.Now})
	globex := d.Account("globex")
	q1 := QueuedMessage{"Q1", 100, noon, []string{"a@globex.example"}}
	q2 := QueuedMessage{"Q2", 200, noon, []string{"a@globex.example"}}
	for i, step := range []struct {
		queue   []QueuedMessage
		waiting int64
		removed int
	}{
		{[]QueuedMessage{q1, q2}, 2, 0},
		{[]QueuedMessage{q2}, 2, 0},     // Q1 may just be on its way between two directories
		{[]QueuedMessage{q1, q2}, 2, 0}, // as it was
		{[]QueuedMessage{q2}, 2, 0},
		{[]QueuedMessage{q2}, 1, 1},
	} {
		c.pass()
		got, err := l.Reconcile(t.Context(), d, queueOf(step.queue...))
		if err != nil || got.Removed != step.removed {
			t.Errorf("pass %d = %+v, %v; want %d removed", i, got, err, step.removed)
		}
		if w := waitingOf(t, l, globex); w.Messages != step.waiting {
			t.Errorf("after pass %d %d wait, want %d", i, w.Messages, step.waiting)
		}
	}
}

func TestReconcileLeavesWhatWasNotedAfterItBegan(t *testing.T) {
	t.Parallel()
	c := &clock{noon}
	l, d := twoAccounts(t, Options{Now: c.Now})
	globex := d.Account("globex")
	r := NewRecorder(l, nil)
	defer r.Close()
	arrive := func(yield func(QueuedMessage, error) bool) {
		m := Message{Instance: c.now.String(), QueueID: "Q" + c.now.Format("150405"), Size: 1, At: c.now, Accounts: []*Account{globex}}
		if err := r.Record(m, nil); err != nil {
			t.Error(err)
		}
	}
	for range 3 {
		c.pass()
		if _, err := l.Reconcile(t.Context(), d, arrive); err != nil {
			t.Fatal(err)
		}
	}
	// The first was missed by two passes that began after it came, the second by one.
	if w := waitingOf(t, l, globex); w.Messages != 2 {
		t.Errorf("%d wait, want 2", w.Messages)
	}
}

func TestReconcileLeavesWhatCameForAnAccountThatItDoesNotKnowYet(t *testing.T) {
	t.Parallel()
	l, d := twoAccounts(t, Options{})
	r := NewRecorder(l, nil)
	defer r.Close()
	var hooli *Account
	meanwhile := func(yield func(QueuedMessage, error) bool) {
		mustAdd(t, l, Account{Name: "hooli", Mode: ATRN, Domains: []string{"hooli.example"}})
		hooli = mustLoad(t, l).Account("hooli")
		if err := r.Record(Message{Instance: "1", QueueID: "Q1", Size: 1, At: noon, Accounts: []*Account{hooli}}, nil); err != nil {
			t.Error(err)
		}
	}
	if got, err := l.Reconcile(t.Context(), d, meanwhile); err != nil || got.Removed != 0 {
		t.Errorf("Reconcile = %+v, %v; want nothing removed", got, err)
	}
	if w := waitingOf(t, l, hooli); w.Messages != 1 {
		t.Errorf("%d wait, want 1", w.Messages)
	}
}

func TestReconcileOfABrokenListingStrikesNothingOff(t *testing.T) {
	t.Parallel()
	c := &clock{noon}
	l, d := twoAccounts(t, Options{Now: c.Now})
	if _, err := l.Reconcile(t.Context(), d, queueOf(QueuedMessage{"Q1", 100, noon, []string{"a@globex.example"}})); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("postqueue failed")
	for range 3 {
		c.pass()
		_, err := l.Reconcile(t.Context(), d, func(yield func(QueuedMessage, error) bool) { yield(QueuedMessage{}, broken) })
		if !errors.Is(err, broken) {
			t.Errorf("Reconcile = %v, want the error of the listing", err)
		}
	}
	if w := waitingOf(t, l, d.Account("globex")); w.Messages != 1 {
		t.Errorf("%d wait, want 1", w.Messages)
	}
}

func TestReconcileOfABrokenListingNotesWhatItHad(t *testing.T) {
	t.Parallel()
	l, d := twoAccounts(t, Options{})
	broken := errors.New("postqueue failed")
	got, err := l.Reconcile(t.Context(), d, func(yield func(QueuedMessage, error) bool) {
		_ = yield(QueuedMessage{"Q1", 100, noon, []string{"a@globex.example"}}, nil) && yield(QueuedMessage{}, broken)
	})
	if !errors.Is(err, broken) || got.Added != 1 {
		t.Errorf("Reconcile = %+v, %v, want one added and the error of the listing", got, err)
	}
	if w := waitingOf(t, l, d.Account("globex")); w.Messages != 1 {
		t.Errorf("%d wait, want 1", w.Messages)
	}
}

// Where nobody knew the domains of a message, one pass that finds it tells them, and its suspicion stays.
func TestReconcileLearnsTheDomainsOfAMessage(t *testing.T) {
	t.Parallel()
	c := &clock{noon}
	l, d := severalDomains(t, Options{Now: c.Now})
	hooli := d.Account("hooli")
	if err := l.StillWaits(t.Context(), hooli, nil, WaitingMessage{1, "Q1", 10, noon, 2}); err != nil {
		t.Fatal(err)
	}
	c.pass()
	queue := queueOf(QueuedMessage{"Q1", 10, noon, []string{"x@b.example"}}, QueuedMessage{"Q1", 10, noon, []string{"x@b.example"}})
	if got, err := l.Reconcile(t.Context(), d, queue); err != nil || got != (Reconciled{Queued: 2}) {
		t.Errorf("Reconcile = %+v, %v; want nothing added or removed", got, err)
	}
	for domain, want := range map[string]string{"a.example": "", "b.example": "Q1 ", "c.example": ""} {
		if got := waitsIn(t, l, hooli, domain); got != want {
			t.Errorf("in %s there waits %q, want %q", domain, got, want)
		}
	}
	// What is left of it is in another domain, and it is the same message.
	c.pass()
	queue = queueOf(QueuedMessage{"Q1", 10, noon.Add(time.Second), []string{"y@c.example"}})
	if got, err := l.Reconcile(t.Context(), d, queue); err != nil || got != (Reconciled{Queued: 1}) {
		t.Errorf("Reconcile = %+v, %v; want nothing added or removed", got, err)
	}
	if got, err := l.Suspects(t.Context(), hooli.ID, 10); err != nil || len(got) != 1 || got[0] != (WaitingMessage{1, "Q1", 10, noon, 2}) {
		t.Errorf("the suspects are %v, %v", got, err)
	}
	if b, c := waitsIn(t, l, hooli, "b.example"), waitsIn(t, l, hooli, "c.example"); b != "" || c != "Q1 " {
		t.Errorf("in b.example there waits %q, in c.example %q; want Q1 in the latter", b, c)
	}
	for _, want := range []Reconciled{{}, {Removed: 1}} {
		c.pass()
		if got, err := l.Reconcile(t.Context(), d, queueOf()); err != nil || got != want {
			t.Errorf("Reconcile = %+v, %v; want %+v", got, err, want)
		}
	}
}

func TestReconcileFollowsAChangeOfMode(t *testing.T) {
	t.Parallel()
	c := &clock{noon}
	l, d := twoAccounts(t, Options{Now: c.Now})
	queue := queueOf(
		QueuedMessage{"Q1", 100, noon, []string{"a@globex.example"}},
		QueuedMessage{"Q2", 200, noon, []string{"a@acme.example"}},
	)
	if _, err := l.Reconcile(t.Context(), d, queue); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]Mode{"globex": Backup, "acme": ATRN} {
		if _, _, err := l.EditAccount(t.Context(), name, "account set", func(a *Account) error { a.Mode = mode; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	d = mustLoad(t, l)
	c.pass()
	if _, err := l.Reconcile(t.Context(), d, queue); err != nil {
		t.Fatal(err)
	}
	if g, a := waitingOf(t, l, d.Account("globex")), waitingOf(t, l, d.Account("acme")); g.Messages != 0 || a.Messages != 1 {
		t.Errorf("globex waits with %d, acme with %d; want 0 and 1", g.Messages, a.Messages)
	}
}

func TestReconcileOfManyPages(t *testing.T) {
	t.Parallel()
	c := &clock{noon}
	l, d := twoAccounts(t, Options{Now: c.Now})
	const n = 3*page + 7
	listing := func(every int) iter.Seq2[QueuedMessage, error] {
		return func(yield func(QueuedMessage, error) bool) {
			for i := 0; i < n; i += every {
				if !yield(QueuedMessage{fmt.Sprintf("%08X", i*7919%n), 1, noon, []string{"a@globex.example"}}, nil) {
					return
				}
			}
		}
	}
	for i, step := range []struct{ every, waiting, removed int }{{1, n, 0}, {1, n, 0}, {3, n, 0}, {3, (n + 2) / 3, n - (n+2)/3}} {
		c.pass()
		got, err := l.Reconcile(t.Context(), d, listing(step.every))
		if err != nil || got.Removed != step.removed {
			t.Errorf("pass %d = %+v, %v; want %d removed", i, got, err, step.removed)
		}
		if w := waitingOf(t, l, d.Account("globex")); int(w.Messages) != step.waiting {
			t.Errorf("after pass %d %d wait, want %d", i, w.Messages, step.waiting)
		}
	}
}

// What is delivered of a message between two passes, the second sees; one that began before does not bring it back.
func TestReconcileNotesTheDomainsThatAreLeft(t *testing.T) {
	t.Parallel()
	c := &clock{noon}
	l, d := severalDomains(t, Options{Now: c.Now})
	hooli := d.Account("hooli")
	in := func(recipients ...string) QueuedMessage { return QueuedMessage{"Q1", 10, noon, recipients} }
	some := in("y@b.example", "z@c.example")
	for i, step := range []struct {
		queue   iter.Seq2[QueuedMessage, error]
		want    Reconciled
		a, b, c string
	}{
		{queueOf(in("x@a.example", "y@b.example", "z@c.example")), Reconciled{Queued: 1, Added: 1}, "Q1 ", "Q1 ", "Q1 "},
		{queueOf(some), Reconciled{Queued: 1}, "", "Q1 ", "Q1 "},
		{func(yield func(QueuedMessage, error) bool) {
			c.pass()
			if err := l.Delivered(t.Context(), hooli.ID, []string{"b.example"}, "Q1"); err != nil {
				t.Error(err)
			}
			yield(some, nil)
		}, Reconciled{Queued: 1}, "", "", "Q1 "},
	} {
		c.pass()
		if got, err := l.Reconcile(t.Context(), d, step.queue); err != nil || got != step.want {
			t.Errorf("pass %d = %+v, %v; want %+v", i, got, err, step.want)
		}
		for domain, want := range map[string]string{"a.example": step.a, "b.example": step.b, "c.example": step.c} {
			if got := waitsIn(t, l, hooli, domain); got != want {
				t.Errorf("after pass %d %q waits in %s, want %q", i, got, domain, want)
			}
		}
	}
}

// A pass that listed the queue before a message was delivered, and ends after it, does not bring it back; a later one
// does, if the MTA still has it.
func TestPassAroundADeliveryDoesNotNoteItAnew(t *testing.T) {
	t.Parallel()
	c := &clock{noon}
	l, d := twoAccounts(t, Options{Now: c.Now})
	globex := d.Account("globex")
	message := QueuedMessage{"Q1", 100, noon, []string{"a@globex.example"}}
	pass := func(queue iter.Seq2[QueuedMessage, error]) Reconciled {
		t.Helper()
		c.pass()
		r, err := l.Reconcile(t.Context(), d, queue)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	deliver := func() {
		t.Helper()
		c.pass()
		if err := l.Delivered(t.Context(), globex.ID, nil, "Q1"); err != nil {
			t.Fatal(err)
		}
		if got := waitingOf(t, l, globex).Messages; got != 0 {
			t.Errorf("%d messages wait after the delivery", got)
		}
	}
	pass(queueOf(message))
	pass(func(yield func(QueuedMessage, error) bool) {
		if yield(message, nil) {
			deliver()
		}
	})
	if got := waitingOf(t, l, globex).Messages; got != 0 {
		t.Errorf("%d messages wait after the pass around the delivery", got)
	}
	// The MTA did not hear of it and has it still.
	pass(queueOf(message))
	if got := waitingOf(t, l, globex).Messages; got != 1 {
		t.Errorf("%d messages wait, the MTA has one", got)
	}
	deliver()
	if r := pass(queueOf()); r.Removed != 0 || r.Added != 0 {
		t.Errorf("the pass after the delivery put right %+v", r)
	}
	// The queue ID is used again.
	r := NewRecorder(l, nil)
	defer r.Close()
	for i := range 2 {
		if err := r.Record(Message{Instance: fmt.Sprint(i), QueueID: "Q1", Size: 5, At: c.now, Accounts: []*Account{globex}}, nil); err != nil {
			t.Fatal(err)
		}
		if got := waitingOf(t, l, globex); got != (Waiting{1, 5, c.now}) {
			t.Errorf("the next message of the ID waits as %v", got)
		}
		deliver()
	}
}
