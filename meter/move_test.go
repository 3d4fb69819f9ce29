package meter

import (
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	rqlitetest "mailbag/testdata/rqlite"
)

// nodeFor is a node of rqlite that a test has for itself.
func nodeFor(t *testing.T) (address string) {
	t.Helper()
	if err := rqlitetest.Available(); err != nil {
		t.Skip(err)
	}
	nodes, err := idleNodes.Take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { idleNodes.Give(nodes) })
	return nodes.Address(0)
}

// mustDump is all that is in a ledger, but for what belongs to one place.
func mustDump(t *testing.T, l *Ledger) string {
	t.Helper()
	copied := filepath.Join(t.TempDir(), "copy.db")
	if err := l.Backup(t.Context(), copied); err != nil {
		t.Fatal(err)
	}
	db, err := openCopy(copied, "rw")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec("DELETE FROM applied; DROP TRIGGER IF EXISTS moved"); err != nil {
		t.Fatal(err)
	}
	rows, err := dump(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	return rows + mustSchema(t, db)
}

func mustSchema(t *testing.T, db *sql.DB) string {
	t.Helper()
	var all strings.Builder
	err := readRows(t.Context(), db, query{statement{sql: "SELECT type || ' ' || name || ' ' || coalesce(sql, '') FROM sqlite_schema ORDER BY 1"}, func(r scanner) error {
		var line string
		err := r.Scan(&line)
		all.WriteString(line + "\n")
		return err
	}})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

func TestALedgerMovesToNodesAndBackWithAllThatIsInIt(t *testing.T) {
	t.Parallel()
	needsFile(t)
	node := nodeFor(t)
	from := outfit(t)
	mustInsert(t, from, "INSERT INTO adjustment (account, month, messages, bytes, reason, at, who) VALUES (1, '2026-02', -1, 5, ?, 0, 'x''41''')", "x'41'")
	mustInsert(t, from, numbers+"INSERT INTO message (instance, account, at, day, queue_id, size, client, domains) SELECT 'i' || i, 1, ?2, '2026-02-03', 'q', 1, '192.0.2.7', '[\"acme.example\"]' FROM n", 9000, 0)
	before := mustDump(t, from)
	opt := Options{Beside: filepath.Join(t.TempDir(), "mailbag.db")}

	tables, err := from.Move(t.Context(), node, opt)
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]int64{}
	for _, m := range tables {
		if rows[m.Table] = m.Now; m.Before != m.Now {
			t.Errorf("of %s %d rows became %d", m.Table, m.Before, m.Now)
		}
	}
	if rows["message"] != 9000 || rows["account"] == 0 {
		t.Errorf("moved were %v", rows)
	}
	there, err := Open(t.Context(), node, opt)
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	if diff := cmp.Diff(strings.Split(before, "\n"), strings.Split(mustDump(t, there), "\n")); diff != "" {
		t.Errorf("on nodes it is another ledger (-file +nodes):\n%s", diff)
	}
	if faults, err := there.Check(t.Context()); err != nil || len(faults) > 0 {
		t.Errorf("on nodes it has faults: %q, %v", faults, err)
	}

	back := filepath.Join(t.TempDir(), "back.db")
	if _, err := there.Move(t.Context(), back, Options{}); err != nil {
		t.Fatal(err)
	}
	again, err := Open(t.Context(), back, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if diff := cmp.Diff(strings.Split(before, "\n"), strings.Split(mustDump(t, again), "\n")); diff != "" {
		t.Errorf("in a file again it is another ledger (-before +after):\n%s", diff)
	}
	for _, old := range []*Ledger{from, there} {
		if err := old.Writable(t.Context()); !errors.Is(err, ErrUnavailable) || !WasMoved(err) {
			t.Errorf("writing to a ledger that was moved says %v", err)
		}
		if _, err := old.Move(t.Context(), filepath.Join(t.TempDir(), "third.db"), Options{}); !WasMoved(err) {
			t.Errorf("moving it once more says %v", err)
		}
		if err := errors.Join(old.Stay(t.Context()), old.Writable(t.Context())); err != nil {
			t.Errorf("after it was to stay: %v", err)
		}
	}
	if err := again.Writable(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestALedgerThatIsInUseDoesNotMove(t *testing.T) {
	t.Parallel()
	needsFile(t)
	l := newTestLedger(t, Options{})
	daemon := New(l.path, Options{})
	if err := daemon.Writable(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.opt.BusyTimeout = time.Millisecond
	fileOf(t, l).opt.BusyTimeout = time.Millisecond
	to := filepath.Join(t.TempDir(), "to.db")
	if _, err := l.Move(t.Context(), to, Options{}); !errors.Is(err, ErrInUse) {
		t.Errorf("with a daemon it says %v", err)
	}
	daemon.Close()
	busy := newUnderway(l.opt.Beside + "-underway")
	defer busy.close()
	if _, err := busy.leftover(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Move(t.Context(), to, Options{}); !errors.Is(err, ErrInUse) {
		t.Errorf("while messages can be under way it says %v", err)
	}
	busy.close()
	if _, err := l.Move(t.Context(), to, Options{}); err != nil {
		t.Errorf("when nobody uses it any more it says %v", err)
	}
	if _, err := os.Stat(to + "-underway"); err != nil {
		t.Errorf("the messages under way did not come along: %v", err)
	}
}

func TestALedgerMovesOnlyToWhereNoneIs(t *testing.T) {
	t.Parallel()
	needsFile(t)
	node := nodeFor(t)
	l := newTestLedger(t, Options{})
	taken := filepath.Join(t.TempDir(), "taken.db")
	if err := os.WriteFile(taken, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	there, err := Open(t.Context(), node, Options{Create: true, Beside: l.path})
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	for _, to := range []string{taken, node, l.path} {
		if _, err := l.Move(t.Context(), to, Options{Beside: l.path}); err == nil {
			t.Errorf("it moved to %s", to)
		}
	}
	if text, _ := os.ReadFile(taken); string(text) != "mine" {
		t.Errorf("the file has become %q", text)
	}
	if err := l.Writable(t.Context()); err != nil {
		t.Errorf("afterwards it cannot be written: %v", err)
	}
}

// TestAMoveThatWasBrokenOffBeginsAnew has one end in the middle, as a kill does.
func TestAMoveThatWasBrokenOffBeginsAnew(t *testing.T) {
	t.Parallel()
	needsFile(t)
	node := nodeFor(t)
	l := outfit(t)
	before := mustDump(t, l)
	if err := l.fence(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	e := newRqlite(node, Options{})
	defer e.close()
	copied := filepath.Join(t.TempDir(), "copy.db")
	if err := l.Backup(t.Context(), copied); err != nil {
		t.Fatal(err)
	}
	from, err := openCopy(copied, "ro")
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	if err := e.fill(t.Context(), from); err != nil {
		t.Fatal(err)
	}
	if err := e.post(t.Context(), []statement{{sql: "PRAGMA user_version = -1"}, {sql: "DELETE FROM network"}}, writesWithin); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), node, Options{Create: true}); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "not moved there whole") {
		t.Errorf("half a ledger opens with %v", err)
	}
	opt := Options{Beside: l.path}
	if _, err := l.Move(t.Context(), node, opt); err != nil {
		t.Fatal(err)
	}
	there, err := Open(t.Context(), node, opt)
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	if diff := cmp.Diff(strings.Split(before, "\n"), strings.Split(mustDump(t, there), "\n")); diff != "" {
		t.Errorf("(-before +after):\n%s", diff)
	}
}
