package meter

import (
	"log/slog"
	"testing"
	"time"

	"github.com/mattn/go-sqlite3"
)

func TestFollowerReadsABackupThatIsRestoredIntoTheFile(t *testing.T) {
	t.Parallel()
	needsFile(t)
	at := noon
	l := newTestLedger(t, Options{Now: func() time.Time { return at }})
	backup := l.path + ".backup"
	mustAdd(t, l, Account{Name: "acme", Mode: Backup, Domains: []string{"acme.example"}})
	if err := l.Backup(t.Context(), backup); err != nil {
		t.Fatal(err)
	}
	late := func(ledger *Ledger, domain string) {
		t.Helper()
		at = at.Add(time.Hour)
		if err := ledger.AddDomain(t.Context(), "acme", domain); err != nil {
			t.Fatal(err)
		}
	}
	late(l, "former.example")
	f := Follow(t.Context(), l, slog.New(slog.DiscardHandler), nil)
	defer f.Close()
	other, err := Open(t.Context(), backup, l.opt)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	late(other, "restored.example") // the line of history has the number that the lost one had
	restoreInto(t, l.path, backup)
	eventually(t, "what was restored is read", func() bool { return f.Directory().Domain("restored.example") != nil })
	if f.Directory().Domain("former.example") != nil {
		t.Error("what was lost is there still")
	}
}

// restoreInto does what .restore does in SQLite's shell.
func restoreInto(t *testing.T, path, backup string) {
	t.Helper()
	to, from := raw(t, path), raw(t, backup)
	copying, err := to.Backup("main", from, "main")
	if err != nil {
		t.Fatal(err)
	}
	for done := false; !done; {
		if done, err = copying.Step(-1); err != nil {
			t.Fatal(err)
		}
	}
	if err := copying.Finish(); err != nil {
		t.Fatal(err)
	}
}

// raw is a connection to a database, until the test ends.
func raw(t *testing.T, path string) *sqlite3.SQLiteConn {
	t.Helper()
	conn, err := new(sqlite3.SQLiteDriver).Open(path + "?_busy_timeout=5000")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn.(*sqlite3.SQLiteConn)
}

// TestAFollowerThatWaitsForSilentNodesIsAlive has a round as long as two of its reads may take.
func TestAFollowerThatWaitsForSilentNodesIsAlive(t *testing.T) {
	t.Parallel()
	f := Follower{ledger: newTestLedger(t, Options{})}
	f.looked.Store(time.Now().Add(-2 * slowReads).UnixMilli())
	if !f.Alive() {
		t.Error("the watchdog ends it")
	}
	f.looked.Store(time.Now().Add(-time.Hour).UnixMilli())
	if f.Alive() {
		t.Error("it is taken to go round for ever")
	}
}
