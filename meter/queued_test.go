package meter

import (
	"errors"
	"iter"
	"testing"
	"time"
)

func TestPassKeepsWhatTheQueueHasForAccountsThatAreRelayed(t *testing.T) {
	t.Parallel()
	l, d := twoAccounts(t, Options{})
	acme, globex := d.Account("acme"), d.Account("globex")
	q1 := QueuedMessage{"Q1", 100, noon.Add(time.Hour), []string{"a@acme.example", "b@acme.example", "a@globex.example"}}
	q2 := QueuedMessage{"Q2", 200, noon.Add(time.Microsecond), []string{"a@acme.example"}}
	held := QueuedMessage{"Q3", 400, noon, []string{"a@globex.example", "x@elsewhere.example"}}
	broken := errors.New("the listing broke off")
	half := func(yield func(QueuedMessage, error) bool) { yield(QueuedMessage{}, broken) }
	for _, pass := range []struct {
		queue iter.Seq2[QueuedMessage, error]
		fails error
		want  Waiting
	}{
		{queueOf(q1, q2, held), nil, Waiting{2, 300, noon}},
		{half, broken, Waiting{2, 300, noon}},
		{queueOf(held, q1), nil, Waiting{1, 100, noon.Add(time.Hour)}},
		{queueOf(held), nil, Waiting{}},
	} {
		if _, err := l.Reconcile(t.Context(), d, pass.queue); err != pass.fails {
			t.Fatalf("Reconcile = %v", err)
		}
		if got, err := l.Queued(t.Context(), acme.ID); err != nil || got != pass.want {
			t.Errorf("for acme there is %v, %v; want %v", got, err, pass.want)
		}
		if got, err := l.Queued(t.Context(), globex.ID); err != nil || got != (Waiting{}) {
			t.Errorf("for globex, whose mail is held, there is %v, %v", got, err)
		}
	}
}

// What is written holds up others: nothing is where nothing changed.
func TestPassThatFindsTheSameWritesNothing(t *testing.T) {
	t.Parallel()
	l, d := twoAccounts(t, Options{})
	queue := queueOf(QueuedMessage{"Q1", 100, noon, []string{"a@acme.example"}})
	if _, err := l.Reconcile(t.Context(), d, queue); err != nil {
		t.Fatal(err)
	}
	mustInsert(t, l, "CREATE TRIGGER stays BEFORE DELETE ON queued BEGIN SELECT RAISE(ABORT, 'it was written'); END")
	if _, err := l.Reconcile(t.Context(), d, queue); err != nil {
		t.Error(err)
	}
}
