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

// TestEachHostSaysWhatItsQueueHas has two of them look at their queues in turns.
func TestEachHostSaysWhatItsQueueHas(t *testing.T) {
	t.Parallel()
	l, d := twoAccounts(t, Options{})
	acme := d.Account("acme").ID
	mustInsert(t, l, "INSERT INTO host (id, name) VALUES (2, 'mx-b')")
	other := Ledger{path: l.path, opt: l.opt, engine: l.engine}
	other.opt.Host = 2
	q1 := QueuedMessage{"Q1", 100, noon.Add(time.Hour), []string{"a@acme.example"}}
	q2 := QueuedMessage{"Q1", 200, noon, []string{"a@acme.example"}}
	for _, pass := range []struct {
		host  *Ledger
		queue iter.Seq2[QueuedMessage, error]
		want  Waiting
	}{
		{l, queueOf(q1), Waiting{1, 100, noon.Add(time.Hour)}},
		{&other, queueOf(q2), Waiting{2, 300, noon}},
		{l, queueOf(), Waiting{1, 200, noon}},
		{&other, queueOf(), Waiting{}},
	} {
		if _, err := pass.host.Reconcile(t.Context(), d, pass.queue); err != nil {
			t.Fatal(err)
		}
		if got, err := l.Queued(t.Context(), acme); err != nil || got != pass.want {
			t.Errorf("for acme there is %v, %v; want %v", got, err, pass.want)
		}
		listed, err := l.Listed(t.Context(), Month{2026, 2}, acme)
		if err != nil || listed[0].Waiting != pass.want {
			t.Errorf("for acme there is listed %v, %v; want %v", listed, err, pass.want)
		}
	}
}

// The next pass may be minutes away, and until then it would count beside what waits for turns, or for an account that is gone.
func TestNothingIsQueuedForAnAccountWhoseMailIsHeldFromNowOn(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Ledger) error{
		"another mode": func(l *Ledger) error {
			_, _, err := l.EditAccount(t.Context(), "acme", "account set", func(a *Account) error { a.Mode = ATRN; return nil })
			return err
		},
		"suspended": func(l *Ledger) error {
			_, _, err := l.EditAccount(t.Context(), "acme", "account suspend", func(a *Account) error { a.Suspended = true; return nil })
			return err
		},
		"deleted": func(l *Ledger) error { return l.DeleteAccount(t.Context(), "acme") },
	} {
		t.Run(name, func(t *testing.T) {
			l, d := twoAccounts(t, Options{})
			_, err := l.Reconcile(t.Context(), d, queueOf(QueuedMessage{"Q1", 100, noon, []string{"a@acme.example"}}))
			if err := errors.Join(err, change(l)); err != nil {
				t.Fatal(err)
			}
			if got, err := l.Queued(t.Context(), d.Account("acme").ID); err != nil || got != (Waiting{}) {
				t.Errorf("there is %v, %v", got, err)
			}
		})
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
