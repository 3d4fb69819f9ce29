package meter

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// olderLedger opens a ledger that is of an earlier version, made by the statements.
func olderLedger(t *testing.T, version int, statements string) *Ledger {
	t.Helper()
	path := olderFile(t, version, statements)
	l, err := Open(t.Context(), path, Options{Now: clockAt("2026-02-10 12:00:00").Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// olderFile makes the file of such a ledger.
func olderFile(t *testing.T, version int, statements string) string {
	t.Helper()
	needsFile(t)
	path := filepath.Join(t.TempDir(), "mailbag.db")
	db, err := sql.Open(driverName, path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.Exec(strings.Join(migrations[:version], "") + statements + fmt.Sprintf(";PRAGMA user_version = %d", version))
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestALedgerThatIsBroughtUpToDateIsWaitedFor opens one while another process is at it, for longer than a write is waited for.
func TestALedgerThatIsBroughtUpToDateIsWaitedFor(t *testing.T) {
	t.Parallel()
	path := olderFile(t, len(migrations)-1, "")
	impatient := Options{BusyTimeout: time.Millisecond}
	other := newLedger(path, impatient)
	db, err := sql.Open(driverName, fileOf(t, other).dsn("rw"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	if _, err := tx.Exec(migrations[len(migrations)-1] + fmt.Sprintf("PRAGMA user_version = %d", len(migrations))); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := Open(ctx, path, impatient); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Open during the migration: %v, which is not that the time was over", err)
	}
	opened := make(chan error)
	go func() {
		l, err := Open(t.Context(), path, impatient)
		if err == nil {
			err = l.Close()
		}
		opened <- err
	}()
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := <-opened; err != nil {
		t.Errorf("Open after the migration: %v", err)
	}
}

// TestALedgerOfTheFirstVersionIsTakenOver opens what the first schema left, with everything in it.
func TestALedgerOfTheFirstVersionIsTakenOver(t *testing.T) {
	t.Parallel()
	l := olderLedger(t, 1, `
		INSERT INTO account (name, mode, created) VALUES ('acme', 'backup', 1767225600000);
		INSERT INTO domain (name, account) VALUES ('acme.example', 1);
		INSERT INTO change (at, who, account, action) VALUES (1767225600000, 'operator', 1, 'account add');
		INSERT INTO message VALUES ('1.2.3.4', 1, 1770724800000, '2026-02-10', 'Q', 77, '192.0.2.1')`)
	wantInvoices(t, l, "2026-02", standard, "acme [acme.example] 1 messages 77 bytes 1 tiers [] 10.00+0.00=10.00 USD")
	if all, err := l.Invoices(t.Context(), Month{2026, 2}, Tariff{Bytes: 77}); err != nil || all.Accounts[0].Last != 77 {
		t.Errorf("the last message is not known: %+v, %v", all, err)
	}
	if used, err := l.Usage(t.Context(), 1, Month{2026, 2}); err != nil || used != (Usage{1, 77}) {
		t.Errorf("the month has %v, %v", used, err)
	}
	if a := mustLoad(t, l).Account("acme"); a.BasePrice.Set || a.TierPrice.Set || a.TLS != TLSOpportunistic {
		t.Errorf("the account got what it did not have: %+v", a)
	}
	if faults, err := l.Check(t.Context()); err != nil || len(faults) > 0 {
		t.Errorf("Check = %q, %v", faults, err)
	}
}

// TestALedgerOfTheSeventhVersionIsTakenOver opens one in which a row of the index was a message, with its domains in
// one column.
func TestALedgerOfTheSeventhVersionIsTakenOver(t *testing.T) {
	t.Parallel()
	l := olderLedger(t, 7, `
		INSERT INTO account (name, mode, created) VALUES ('hooli', 'atrn', 1767225600000), ('globex', 'atrn', 1767225600000);
		INSERT INTO domain (name, account) VALUES ('a.example', 1), ('b.example', 1), ('c.example', 1), ('globex.example', 2);
		INSERT INTO change (at, who, account, action) VALUES (1767225600000, 'operator', 1, 'account add');
		INSERT INTO waiting (queue_id, account, size, since, noted, missed, domains, delivered) VALUES
			('Q1', 1, 10, 1770724800000, 1770721200000, 0, ' a.example ', NULL),
			('Q2', 1, 10, 1770724800001, 1770721200000, 1, ' a.example c.example ', NULL),
			('Q3', 1, 10, 1770724800002, 1770721200000, 0, '', NULL),
			('Q4', 1, 10, 1770724800003, 1770721200000, 0, ' a.example ', 1770721200000),
			('Q1', 2, 10, 1770724800004, 1770721200000, 0, '', NULL);
		INSERT INTO turn (token, account, kind, client, peer, tls, began, ended, messages, bytes, outcome) VALUES
			('one', 1, 'atrn', '', '', '', 1770721200000, 1770721200000, 0, 0, 'not begun'),
			('two', 1, 'atrn', '', '', '', 1770721200001, 1770721200002, 3, 30, 'done')`)
	all := mustLoad(t, l)
	hooli, globex := all.Account("hooli"), all.Account("globex")
	for domain, want := range map[string]string{"a.example": "Q1 Q2 Q3 ", "b.example": "Q3 ", "c.example": "Q2 Q3 "} {
		if got := waitsIn(t, l, hooli, domain); got != want {
			t.Errorf("in %s there waits %q, want %q", domain, got, want)
		}
	}
	if got := waitsIn(t, l, globex, "globex.example"); got != "Q1 " {
		t.Errorf("for globex there waits %q", got)
	}
	if got, want := waitingOf(t, l, hooli), (Waiting{3, 30, noon}); got != want {
		t.Errorf("for hooli there waits %v, want %v", got, want)
	}
	if turns, err := l.Turns(t.Context(), "hooli", 10); err != nil || len(turns) != 2 || turns[0].Connections != 1 || turns[1].Connections != 0 {
		t.Errorf("hooli's turns are %+v, %v", turns, err)
	}
	// What a pass over the queue missed once before, another one strikes off.
	queue := queueOf(QueuedMessage{"Q1", 10, noon, []string{"x@a.example", "x@globex.example"}})
	if got, err := l.Reconcile(t.Context(), all, queue); err != nil || got != (Reconciled{Queued: 1, Removed: 1}) {
		t.Errorf("Reconcile = %+v, %v", got, err)
	}
	if faults, err := l.Check(t.Context()); err != nil || len(faults) > 0 {
		t.Errorf("Check = %q, %v", faults, err)
	}
}

// TestALedgerOfTheEleventhVersionKnowsWhoWasThere opens one that has turns and sessions, and nothing of who asked in vain.
func TestALedgerOfTheEleventhVersionKnowsWhoWasThere(t *testing.T) {
	t.Parallel()
	l := olderLedger(t, 11, `
		INSERT INTO account (name, mode, created, deleted) VALUES
			('hooli', 'atrn', 1000, NULL), ('globex', 'etrn', 1000, NULL), ('dent', 'pop3', 1000, NULL),
			('acme', 'backup', 1000, NULL), ('gone', 'atrn', 1000, 5000);
		INSERT INTO waiting (queue_id, account, domain, size, since, noted, delivered) VALUES
			('Q1', 1, 'hooli.example', 10, 9000, 9000, NULL), ('Q2', 1, 'hooli.example', 10, 8000, 9000, NULL), ('Q3', 1, 'hooli.example', 10, 7000, 7000, 7500);
		INSERT INTO turn (token, account, kind, client, peer, tls, began, ended, messages, bytes, outcome) VALUES
			('one', 1, 'atrn', '', '', '', 2000, 2001, 3, 30, 'done'), ('two', 1, 'atrn', '', '', '', 2002, 2003, 2, 20, 'lost'),
			('three', 1, 'atrn', '', '', '', 2004, 2005, 0, 0, 'lost'), ('four', 2, 'etrn', '', '', '', 2000, NULL, 0, 0, NULL),
			('five', 5, 'atrn', '', '', '', 2000, 2001, 1, 10, 'done');
		INSERT INTO pop_session (account, mailbox, client, tls, began, ended, fetched, bytes, deleted, outcome) VALUES
			(3, '', '', '', 2000, 2001, 1, 10, 1, 'lost'), (3, 'a@dent.example', '', '', 3000, 3001, 0, 0, 0, 'done'), (3, '', '', '', 4000, 4001, 0, 0, 0, 'lost');
		INSERT INTO notice (account, subject, level, recipient, message, made, sent, over) VALUES (1, 'waiting mail', 50, '["a@b.example"]', 'x', 1, NULL, NULL)`)
	for name, want := range map[string]string{
		"hooli": "fetched 2003, called 8000", "globex": "fetched 0, called now", "dent": "fetched 2001, called 3001", "gone": "fetched 2001, called 2001", "acme": "",
	} {
		if got := presenceOf(t, l, name); got != want {
			t.Errorf("presence of %s is %q, want %q", name, got, want)
		}
	}
	if unsent, err := l.UnsentNotices(t.Context()); err != nil || len(unsent) != 1 || unsent[0].Account != 1 || unsent[0].ID != 1 {
		t.Errorf("unsent notices are %+v, %v", unsent, err)
	}
	if faults, err := l.Check(t.Context()); err != nil || len(faults) > 0 {
		t.Errorf("Check = %q, %v", faults, err)
	}
}
