package meter

import (
	"testing"
	"time"
)

func TestOldRecordsGoAndUsageStays(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	c := clockAt("2026-02-01 12:00:00")
	l := newTestLedger(t, Options{Now: c.Now})
	mustAdd(t, l, Account{Name: "acme", Mode: ATRN, Domains: []string{"acme.example"}})
	mustAdd(t, l, Account{Name: "gone", Mode: Backup, Domains: []string{"gone.example"}})
	acme := mustLoad(t, l).Account("acme")
	count(t, l, "acme", c.now, pruneChunk+1, 10)
	count(t, l, "gone", c.now, 1, 10)
	count(t, l, "acme", c.now.Add(2*day), 3, 10)
	if err := l.DeleteAccount(t.Context(), "gone"); err != nil {
		t.Fatal(err)
	}
	for _, token := range []string{"old", "new", "running"} {
		began := c.now
		if token == "new" {
			began = began.Add(2 * day)
		}
		turn := Turn{Kind: TurnATRN, Began: began, Ended: began.Add(time.Minute), Outcome: "done"}
		if err := l.BeginTurn(t.Context(), token, acme.ID, turn); err != nil {
			t.Fatal(err)
		}
		if token == "running" {
			continue
		}
		if err := l.EndTurn(t.Context(), token, turn); err != nil {
			t.Fatal(err)
		}
	}
	before := invoices(t, l, "2026-02", standard)
	c.now = c.now.Add(31*day + time.Second)
	for _, want := range []Pruned{{Messages: pruneChunk + 2, Turns: 1}, {}} {
		if got, err := l.Prune(t.Context(), Keep{Messages: 31 * day, Turns: 31 * day}); err != nil || got != want {
			t.Errorf("Prune = %+v, %v; want %+v", got, err, want)
		}
	}
	if after := invoices(t, l, "2026-02", standard); after != before {
		t.Errorf("the invoices were\n%s\nand are\n%s", before, after)
	}
	n := 0
	for _, err := range l.Evidence(t.Context(), acme.ID, Month{2026, 2}) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != 3 {
		t.Errorf("%d pieces of evidence are left, want 3", n)
	}
	if turns, err := l.Turns(t.Context(), "", 10); err != nil || len(turns) != 2 {
		t.Errorf("the turns are %+v, %v", turns, err)
	}
	if faults, err := l.Check(t.Context()); err != nil || len(faults) > 0 {
		t.Errorf("Check = %q, %v", faults, err)
	}
}

// What fell out of memory while nothing was written goes with the next batches, and costs none of them much.
func TestTokensAreForgottenALittleAtATime(t *testing.T) {
	t.Parallel()
	l := newTestLedger(t, Options{})
	mustInsert(t, l, numbers+"INSERT INTO applied (token) SELECT printf('%09d', n.i) FROM n", 2*forgets+1)
	old := func() (n int) {
		t.Helper()
		if err := l.row(t.Context(), "SELECT count(*) FROM applied WHERE token < ?", tokenAt(time.UnixMilli(1e12))).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for before := old(); before > 0; {
		if err := l.Writable(t.Context()); err != nil {
			t.Fatal(err)
		}
		now := old()
		if now >= before || before-now > 2*forgets { // each batch is tried twice in some runs
			t.Fatalf("of %d tokens %d are left", before, now)
		}
		before = now
	}
}
