package meter

import (
	"database/sql"
	"path/filepath"
	"testing"
)

// TestALedgerOfTheFirstVersionIsTakenOver opens what the first schema left, with everything in it.
func TestALedgerOfTheFirstVersionIsTakenOver(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "mailbag.db")
	db, err := sql.Open("sqlite3", path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.Exec(schema1 + `
		INSERT INTO account (name, mode, created) VALUES ('acme', 'backup', 1767225600000);
		INSERT INTO domain (name, account) VALUES ('acme.example', 1);
		INSERT INTO change (at, who, account, action) VALUES (1767225600000, 'operator', 1, 'account add');
		INSERT INTO message VALUES ('1.2.3.4', 1, 1770724800000, '2026-02-10', 'Q', 77, '192.0.2.1');
		PRAGMA user_version = 1`)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := Open(t.Context(), path, Options{Now: clockAt("2026-02-10 12:00:00").Now})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	wantInvoices(t, l, "2026-02", standard, "acme [acme.example] 1 messages 77 bytes 1 tiers [] 10.00+0.00=10.00 USD")
	if all, err := l.Invoices(t.Context(), Month{2026, 2}, standard); err != nil || all.Accounts[0].Last != 77 {
		t.Errorf("the last message is not known: %+v, %v", all, err)
	}
	if a := mustLoad(t, l).Account("acme"); a.BasePrice.Set || a.TierPrice.Set {
		t.Errorf("the account got prices of its own: %+v", a)
	}
	if faults, err := l.Check(t.Context()); err != nil || len(faults) > 0 {
		t.Errorf("Check = %q, %v", faults, err)
	}
}
