package main

import (
	"context"
	"iter"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"mailbag/cmd/internal/mta"
	"mailbag/meter"
)

func TestPassesOverTheQueueFollowTheirCost(t *testing.T) {
	t.Parallel()
	for took, want := range map[time.Duration]time.Duration{
		0:                      15 * time.Second,
		40 * time.Millisecond:  15 * time.Second, // a queue as most are
		500 * time.Millisecond: 15 * time.Second,
		time.Second:            30 * time.Second,
		4 * time.Second:        2 * time.Minute,
		10 * time.Second:       5 * time.Minute,
		time.Hour:              5 * time.Minute,
	} {
		if got := untilNextPass(took); got != want {
			t.Errorf("after a pass of %s the next is in %s, want %s", took, got, want)
		}
	}
}

// aSpool is an MTA with what is said of it.
type aSpool struct {
	mta.System
	queue      []mta.Entry
	held       []string
	unheld     []string
	released   []string
	unfinished []string
}

func (s *aSpool) Words() mta.Words { return mta.Words{Name: "Exim"} }

func (s *aSpool) Queue(context.Context) iter.Seq2[mta.Entry, error] {
	return func(yield func(mta.Entry, error) bool) {
		for _, e := range s.queue {
			if !yield(e, nil) {
				return
			}
		}
	}
}

func (s *aSpool) Hold(_ context.Context, ids ...string) error {
	s.held = append(s.held, ids...)
	return nil
}

func (s *aSpool) Unhold(_ context.Context, ids ...string) error {
	s.unheld = append(s.unheld, ids...)
	return nil
}

func (s *aSpool) Release(_ context.Context, ids ...string) error {
	s.released = append(s.released, ids...)
	return nil
}

func (s *aSpool) Unfinished(context.Context) ([]string, error) { return s.unfinished, nil }

// reconciler is a daemon beside that MTA, with an account corp whose mail is held and an account acme whose mail is not.
func reconciler(t *testing.T, spool *aSpool) (*service, *meter.Ledger, *meter.Directory) {
	t.Helper()
	ledger, err := meter.Open(t.Context(), filepath.Join(t.TempDir(), "ledger.db"), meter.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ledger.Close() })
	for name, mode := range map[string]meter.Mode{"corp": meter.ATRN, "acme": meter.Backup} {
		if err := ledger.AddAccount(t.Context(), meter.Account{Name: name, Mode: mode, Domains: []string{name + ".example"}, Recipients: meter.AnyRecipient, Copies: meter.PerRecipient}, nil); err != nil {
			t.Fatal(err)
		}
	}
	accounts, err := ledger.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return &service{mta: spool, log: slog.New(slog.NewTextHandler(t.Output(), nil))}, ledger, accounts
}

func TestWhatWaitsForTurnsAloneIsHeldAndNothingElseIs(t *testing.T) {
	t.Parallel()
	entry := func(id string, held bool, to ...string) mta.Entry {
		e := mta.Entry{ID: id, Arrival: time.Now(), Held: held}
		for _, address := range to {
			e.Recipients = append(e.Recipients, mta.Recipient{Address: address})
		}
		return e
	}
	byOperator, strayByOperator := entry("OPERATOR", false, "a@corp.example"), entry("FROZEN", true, "a@acme.example")
	byOperator.OnHold, strayByOperator.OnHold = true, true
	spool := &aSpool{queue: []mta.Entry{entry("LOOSE", false, "a@corp.example", "b@CORP.example"), entry("THERE", true, "a@corp.example"), byOperator,
		entry("RELAYED", false, "a@acme.example"), entry("MIXED", false, "a@corp.example", "a@acme.example"),
		entry("OTHERS", false, "a@corp.example", "a@elsewhere.example"), entry("DONE", false),
		// Its account had its mail held, and was in delivery when that changed.
		entry("STRAY", true, "a@acme.example"), entry("HALF", true, "a@corp.example", "a@ACME.example"), strayByOperator,
		entry("NOBODYS", true, "a@elsewhere.example"), entry("EMPTY", true)}}
	d, ledger, accounts := reconciler(t, spool)
	if _, err := d.reconcile(t.Context(), ledger, nil, accounts); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(spool.held, []string{"LOOSE"}) {
		t.Errorf("held are %q, want LOOSE alone", spool.held)
	}
	if !slices.Equal(spool.unheld, []string{"STRAY", "HALF"}) {
		t.Errorf("held no more are %q, want STRAY and HALF", spool.unheld)
	}
}

func TestWhatCouldNotBeCountedWhenItCameIsTriedUntilItIs(t *testing.T) {
	t.Parallel()
	late := mta.Entry{ID: "LATE", Arrival: time.Now(), Uncounted: true, Recipients: []mta.Recipient{{Address: "a@corp.example"}}}
	relayed, byOperator := late, late
	relayed.ID, relayed.Recipients = "RELAYED", []mta.Recipient{{Address: "a@acme.example"}}
	byOperator.ID, byOperator.OnHold = "OPERATOR", true
	spool := &aSpool{queue: []mta.Entry{late, relayed, byOperator}}
	d, ledger, accounts := reconciler(t, spool)
	recorder := meter.NewRecorder(ledger, nil)
	defer recorder.Close()
	pass := func(released, held []string) {
		t.Helper()
		spool.released, spool.held = nil, nil
		if _, err := d.reconcile(t.Context(), ledger, recorder, accounts); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(spool.released, released) || !slices.Equal(spool.held, held) {
			t.Errorf("tried are %q and held %q, want %q and %q", spool.released, spool.held, released, held)
		}
	}
	pass([]string{"LATE", "RELAYED"}, nil)
	m := meter.Message{Instance: meter.SpoolInstance("LATE"), QueueID: "LATE", Size: 1000, At: time.Now(), Accounts: []*meter.Account{accounts.Account("corp")}}
	if err := recorder.Record(m, nil); err != nil {
		t.Fatal(err)
	}
	pass([]string{"RELAYED"}, []string{"LATE"})
}

func TestWhatTheMTADidNotComeToAcceptIsTakenBackOnce(t *testing.T) {
	t.Parallel()
	spool := &aSpool{unfinished: []string{"ORPHAN"}}
	d, ledger, accounts := reconciler(t, spool)
	recorder := meter.NewRecorder(ledger, nil)
	corp := accounts.Account("corp")
	for _, id := range []string{"ORPHAN", "ACCEPTED"} {
		m := meter.Message{Instance: meter.SpoolInstance(id), QueueID: id, Size: 1000, At: time.Now(), Accounts: []*meter.Account{corp}}
		if err := recorder.Record(m, nil); err != nil {
			t.Fatal(err)
		}
	}
	var before []string
	for range 2 {
		var err error
		if before, err = d.takeBack(t.Context(), recorder, before); err != nil {
			t.Fatal(err)
		}
	}
	recorder.Close() // which waits for what is taken back
	used, err := ledger.Usage(t.Context(), corp.ID, meter.MonthOf(time.Now(), time.UTC))
	if err != nil || used.Messages != 1 || used.Bytes != 1000 {
		t.Errorf("the usage is %+v, %v; want one message", used, err)
	}
}
