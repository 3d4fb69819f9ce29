package meter

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// newTestLedger makes an empty ledger in a temporary directory.
func newTestLedger(t testing.TB, opt Options) *Ledger {
	t.Helper()
	opt.Create = true
	path := filepath.Join(t.TempDir(), "mailbag.db")
	t.Cleanup(func() { retire(path) })
	l, err := Open(t.Context(), path, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// mustAdd adds an account with the defaults that the command line gives.
func mustAdd(t testing.TB, l *Ledger, a Account) {
	t.Helper()
	if err := l.AddAccount(t.Context(), withDefaults(a), nil); err != nil {
		t.Fatal(err)
	}
}

func withDefaults(a Account) Account {
	if a.Recipients == "" {
		a.Recipients = AnyRecipient
	}
	if a.Copies == "" {
		a.Copies = PerRecipient
	}
	return a
}

func mustLoad(t testing.TB, l *Ledger) *Directory {
	t.Helper()
	d, err := l.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// mustInsert executes a statement of the test's own.
func mustInsert(t testing.TB, l *Ledger, text string, args ...any) {
	t.Helper()
	if err := l.batch(t.Context(), statement{text, args}); err != nil {
		t.Fatal(err)
	}
}

// numbers begins an INSERT of so many rows, of n.i from 0 on.
const numbers = "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?1) "

// eventually waits until ok returns true.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("gave up waiting until %s", what)
		}
	}
}

func TestOpenOfMissingLedgerSaysSo(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "none.db")
	if _, err := Open(t.Context(), path, Options{}); !errors.Is(err, ErrNoLedger) || !errors.Is(err, ErrUnavailable) {
		t.Fatalf("Open = %v, want ErrNoLedger", err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("a ledger was made without Create")
	}
}

func TestEmptyFileIsNoLedger(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "empty.db")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), path, Options{}); !errors.Is(err, ErrUnavailable) {
		t.Fatalf("Open = %v, want ErrUnavailable: an empty ledger would refuse everybody's mail", err)
	}
}

func TestGarbageIsNoLedger(t *testing.T) {
	t.Parallel()
	needsFile(t)
	path := filepath.Join(t.TempDir(), "garbage.db")
	if err := os.WriteFile(path, []byte("this is not a database, whatever its name says"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), path, Options{}); !errors.Is(err, ErrUnavailable) {
		t.Fatalf("Open = %v, want ErrUnavailable", err)
	}
}

func TestLedgerOfNewerVersionIsRefused(t *testing.T) {
	t.Parallel()
	l := newTestLedger(t, Options{})
	if err := l.batch(t.Context(), statement{sql: "PRAGMA user_version = 999"}); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), l.path, Options{}); !errors.Is(err, ErrUnavailable) {
		t.Fatalf("Open = %v, want ErrUnavailable", err)
	}
	// A daemon that had it open before looks whether it can write.
	var version int
	if err := errors.Join(l.probe(t.Context()), l.row(t.Context(), "SELECT user_version FROM pragma_user_version").Scan(&version)); err != nil || version != 999 {
		t.Errorf("the newer ledger is of version %d now, %v", version, err)
	}
}

func TestOpenTwiceAtOnceMigratesOnce(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "mailbag.db")
	t.Cleanup(func() { retire(path) })
	result := make(chan error)
	for range 8 {
		go func() {
			l, err := Open(context.Background(), path, Options{Create: true, BusyTimeout: time.Minute})
			if err == nil {
				err = l.Close()
			}
			result <- err
		}()
	}
	for range 8 {
		if err := <-result; err != nil {
			t.Error(err)
		}
	}
}

func TestLedgerIsWrittenAheadAndInFull(t *testing.T) {
	t.Parallel()
	l := newTestLedger(t, Options{})
	file, err := fileOf(t, l).current(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1"} {
		var got string
		if err := file.write.QueryRow("PRAGMA " + pragma).Scan(&got); err != nil || got != want {
			t.Errorf("PRAGMA %s = %q, %v; want %q", pragma, got, err, want)
		}
	}
	if _, err := file.read.Exec("DELETE FROM account"); err == nil {
		t.Error("the reading connections can write")
	}
}

// lock takes the write lock of the ledger as another process would, until release is called.
func lock(t *testing.T, path string) (release func()) {
	t.Helper()
	needsFile(t)
	db, err := sql.Open("sqlite3", "file:"+path+"?_txlock=exclusive")
	if err != nil {
		t.Fatal(err)
	}
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		tx.Rollback()
		db.Close()
	}
}

func TestFollowerRecoversFromALockedLedger(t *testing.T) {
	t.Parallel()
	l := newTestLedger(t, Options{BusyTimeout: 10 * time.Millisecond})
	mustAdd(t, l, Account{Name: "acme", Mode: Backup, Domains: []string{"acme.example"}})
	f := Follow(t.Context(), l, slog.New(slog.DiscardHandler), nil)
	defer f.Close()
	r := NewRecorder(l, nil)
	defer r.Close()
	m := Message{Instance: "1", Size: 1, At: time.Now(), Accounts: []*Account{f.Directory().Account("acme")}}

	release := lock(t, l.path)
	if err := r.Record(m, nil); !errors.Is(err, ErrUnavailable) {
		t.Fatalf("Record = %v, want ErrUnavailable", err)
	}
	if !errors.Is(f.Available(), ErrUnavailable) {
		t.Error("the follower says that a locked ledger is available")
	}
	release()
	eventually(t, "the ledger is available again", func() bool { return f.Available() == nil })
	if err := r.Record(m, nil); err != nil {
		t.Error(err)
	}
}

func TestFollowerKeepsItsSnapshotWhileTheLedgerIsAway(t *testing.T) {
	t.Parallel()
	needsFile(t)
	l := newTestLedger(t, Options{})
	mustAdd(t, l, Account{Name: "acme", Mode: Backup, Domains: []string{"acme.example"}})
	daemon := New(l.path, Options{})
	defer daemon.Close()
	f := Follow(t.Context(), daemon, slog.New(slog.DiscardHandler), nil)
	defer f.Close()
	r := NewRecorder(daemon, nil)
	defer r.Close()

	if err := os.Rename(l.path, l.path+".away"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the follower notices", func() bool { return errors.Is(f.Available(), ErrNoLedger) })
	if f.Directory().Domain("acme.example") == nil {
		t.Error("the snapshot went with the file")
	}
	m := Message{Instance: "1", Size: 1, At: time.Now(), Accounts: []*Account{f.Directory().Account("acme")}}
	if err := r.Record(m, nil); !errors.Is(err, ErrNoLedger) {
		t.Errorf("Record = %v, want ErrNoLedger: the row would go into a file that nobody sees", err)
	}
	if err := os.Rename(l.path+".away", l.path); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the follower recovers", func() bool { return f.Available() == nil })
}

func TestFollowerOpensTheFileThatComesInPlaceOfTheOld(t *testing.T) {
	t.Parallel()
	needsFile(t)
	old, other := newTestLedger(t, Options{}), newTestLedger(t, Options{})
	mustAdd(t, old, Account{Name: "acme", Mode: Backup, Domains: []string{"acme.example"}})
	mustAdd(t, other, Account{Name: "globex", Mode: Backup, Domains: []string{"globex.example"}})
	f := Follow(t.Context(), old, slog.New(slog.DiscardHandler), nil)
	defer f.Close()
	backup := old.path + ".new"
	if err := other.Backup(t.Context(), backup); err != nil {
		t.Fatal(err)
	}
	// What the old file's write-ahead log holds must not get into the new one.
	if err := old.AddDomain(t.Context(), "acme", "late.example"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(backup, old.path); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the other ledger is read", func() bool { return f.Directory().Account("globex") != nil })
	if d := mustLoad(t, old); d.Account("acme") != nil || d.Domain("late.example") != nil {
		t.Error("the new ledger shows what the old one had")
	}
	if faults, err := old.Check(t.Context()); err != nil || len(faults) > 0 {
		t.Errorf("Check = %v, %v", faults, err)
	}
}

func TestFollowerStartsWithoutALedger(t *testing.T) {
	t.Parallel()
	l := New(filepath.Join(t.TempDir(), "mailbag.db"), Options{})
	defer l.Close()
	f := Follow(t.Context(), l, slog.New(slog.DiscardHandler), nil)
	defer f.Close()
	if f.Directory() != nil || !errors.Is(f.Available(), ErrNoLedger) {
		t.Fatalf("Directory = %v, Available = %v without a ledger", f.Directory(), f.Available())
	}
	made, err := Open(t.Context(), l.path, Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	defer made.Close()
	mustAdd(t, made, Account{Name: "acme", Mode: Backup, Domains: []string{"acme.example"}})
	eventually(t, "the new ledger is followed", func() bool {
		return f.Directory() != nil && f.Directory().Domain("acme.example") != nil && f.Available() == nil
	})
}

func TestFollowerSeesChangesOfOthers(t *testing.T) {
	t.Parallel()
	l := newTestLedger(t, Options{})
	changes := make(chan *Directory, 10)
	f := Follow(t.Context(), l, slog.New(slog.DiscardHandler), func(_, fresh *Directory) { changes <- fresh })
	defer f.Close()
	<-changes
	other, err := Open(t.Context(), l.path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	mustAdd(t, other, Account{Name: "acme", Mode: Backup, Domains: []string{"acme.example"}})
	if d := <-changes; d.Domain("acme.example") == nil || f.Directory() != d {
		t.Error("the follower did not show the new account")
	}
}

func TestFreshIsAsNewAsTheLedgerAndReadsNothingTwice(t *testing.T) {
	t.Parallel()
	l := newTestLedger(t, Options{})
	var read atomic.Int64
	f := Follow(t.Context(), l, slog.New(slog.DiscardHandler), func(_, _ *Directory) { read.Add(1) })
	defer f.Close()
	other, err := Open(t.Context(), l.path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	mustAdd(t, other, Account{Name: "acme", Mode: Backup})
	const changes = 10
	for i := range changes {
		domain := fmt.Sprintf("d%d.example", i)
		if err := other.AddDomain(t.Context(), "acme", domain); err != nil {
			t.Fatal(err)
		}
		var asking sync.WaitGroup
		for range 20 {
			asking.Go(func() {
				if d, err := f.Fresh(t.Context()); err != nil || d.Domain(domain) == nil {
					t.Errorf("%s is not there: %v", domain, err)
				}
			})
		}
		asking.Wait()
	}
	if n := read.Load(); n > 2+changes { // at first, and with the account
		t.Errorf("the directory was read %d times for %d changes", n, changes)
	}
	needsFile(t)
	if err := os.Rename(l.path, l.path+".away"); err != nil {
		t.Fatal(err)
	}
	if d, err := f.Fresh(t.Context()); !errors.Is(err, ErrNoLedger) {
		t.Errorf("Fresh = %v, %v without a ledger", d, err)
	}
}

func TestBackupIsWholeAndPrivate(t *testing.T) {
	t.Parallel()
	l := newTestLedger(t, Options{})
	mustAdd(t, l, Account{Name: "acme", Mode: Backup, Domains: []string{"acme.example"}})
	path := filepath.Join(t.TempDir(), "copy.db")
	if err := l.Backup(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the backup has mode %v, %v; want 0600", info.Mode(), err)
	}
	copied, err := Open(t.Context(), path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer copied.Close()
	if mustLoad(t, copied).Account("acme") == nil {
		t.Error("the backup lacks an account")
	}
	if faults, err := copied.Check(t.Context()); err != nil || len(faults) > 0 {
		t.Errorf("Check = %v, %v", faults, err)
	}
	if err := l.Backup(t.Context(), path); err == nil {
		t.Error("a backup overwrote a file")
	}
	for _, thorough := range []bool{true, false} {
		if accounts, err := CheckBackup(t.Context(), path, thorough); err != nil || accounts != 1 {
			t.Errorf("CheckBackup(%t) = %d, %v", thorough, accounts, err)
		}
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, octets := range []int64{info.Size() - 4096, 8192, 100, 0} {
		if err := os.Truncate(path, octets); err != nil {
			t.Fatal(err)
		}
		for _, thorough := range []bool{true, false} {
			if _, err := CheckBackup(t.Context(), path, thorough); err == nil {
				t.Errorf("CheckBackup(%t) finds nothing in the first %d octets of a backup", thorough, octets)
			}
		}
	}
}

func TestNewestRecordIsThatOfAnything(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	l := newTestLedger(t, Options{Now: func() time.Time { return now }})
	if at, err := l.Newest(t.Context()); err != nil || !at.IsZero() {
		t.Errorf("Newest = %v, %v in an empty ledger", at, err)
	}
	mustAdd(t, l, Account{Name: "acme", Mode: Backup, Domains: []string{"acme.example"}})
	if at, err := l.Newest(t.Context()); err != nil || !at.Equal(now) {
		t.Errorf("Newest = %v, %v after a change at %v", at, err, now)
	}
}

func TestCheckFindsLostUsage(t *testing.T) {
	t.Parallel()
	l := newTestLedger(t, Options{})
	mustAdd(t, l, Account{Name: "acme", Mode: Backup, Domains: []string{"acme.example"}})
	r := NewRecorder(l, nil)
	defer r.Close()
	m := Message{Instance: "1", Size: 7, At: time.Now(), Accounts: []*Account{mustLoad(t, l).Account("acme")}, Domains: []string{"acme.example"}}
	if err := r.Record(m, nil); err != nil {
		t.Fatal(err)
	}
	for _, lose := range []string{"UPDATE usage SET bytes = 6", "UPDATE usage SET bytes = 7; DELETE FROM domain_usage"} {
		if err := l.batch(t.Context(), statement{sql: lose}); err != nil {
			t.Fatal(err)
		}
		if faults, err := l.Check(t.Context()); err != nil || len(faults) != 1 {
			t.Errorf("after %q Check = %v, %v; want one fault", lose, faults, err)
		}
	}
}

func TestCheckOfALedgerWithManyFaultsTellsOfSome(t *testing.T) {
	t.Parallel()
	l := newTestLedger(t, Options{})
	mustAdd(t, l, Account{Name: "acme", Mode: Backup, Domains: []string{"acme.example"}})
	mustInsert(t, l, numbers+"INSERT INTO message (instance, account, at, day, queue_id, size, client, domains) SELECT 'i' || i, 1, 0, date('2026-01-01', i || ' days'), 'q', 1, '', '[]' FROM n", manyFaults+7)
	mustInsert(t, l, "UPDATE usage SET bytes = 0")
	faults, err := l.Check(t.Context())
	if err != nil || len(faults) != manyFaults+1 || !strings.HasSuffix(faults[manyFaults], ": 7 more") {
		t.Errorf("it tells of %d, %q, %v", len(faults), faults[max(0, len(faults)-1):], err)
	}
}

func TestMonthIsTheSumOfItsDays(t *testing.T) {
	t.Parallel()
	l := newTestLedger(t, Options{})
	mustAdd(t, l, Account{Name: "acme", Mode: Backup, Domains: []string{"acme.example"}})
	a := mustLoad(t, l).Account("acme")
	for _, change := range []struct {
		sql  string
		want Usage
	}{
		{"INSERT INTO usage (account, day, messages, bytes) VALUES (?, '2026-02-01', 1, 10), (?1, '2026-02-28', 2, 20), (?1, '2026-03-01', 8, 80)", Usage{3, 30}},
		{"INSERT INTO adjustment (account, month, messages, bytes, reason, at, who) VALUES (?, '2026-02', -1, -5, '', 0, '')", Usage{2, 25}},
		{"UPDATE usage SET messages = 5, bytes = 50 WHERE account = ? AND day = '2026-02-28'", Usage{5, 55}},
		{"DELETE FROM usage WHERE account = ? AND day = '2026-02-28'", Usage{0, 5}},
		{"DELETE FROM usage WHERE account = ? AND day = '2026-02-01'", Usage{0, 0}}, // never less than nothing
	} {
		if err := l.batch(t.Context(), statement{change.sql, []any{a.ID}}); err != nil {
			t.Fatal(err)
		}
		if used, err := l.Usage(t.Context(), a.ID, Month{2026, 2}); err != nil || used != change.want {
			t.Errorf("after %q February has %v, %v; want %v", change.sql, used, err, change.want)
		}
		if faults, err := l.Check(t.Context()); err != nil || len(faults) != 0 {
			t.Errorf("after %q Check = %v, %v", change.sql, faults, err)
		}
	}
	if err := l.batch(t.Context(), statement{sql: "UPDATE month_usage SET bytes = 81 WHERE month = '2026-03'"}); err != nil {
		t.Fatal(err)
	}
	if faults, err := l.Check(t.Context()); err != nil || len(faults) != 1 || !strings.Contains(faults[0], "acme in 2026-03") {
		t.Errorf("Check = %v, %v; want one fault", faults, err)
	}
}

func TestTheLogIsShortAgainAfterItWasLong(t *testing.T) {
	t.Parallel()
	needsFile(t)
	l, _ := twoAccounts(t, Options{})
	size := func() int64 {
		info, err := os.Stat(l.path + "-wal")
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	mustInsert(t, l, numbers+"INSERT INTO applied (token) SELECT printf('%.2000c%d', 'x', i) FROM n", 2*maxLog/2000)
	if long := size(); long < 2*maxLog {
		t.Fatalf("the log is of %d octets, which is not long", long)
	}
	mustAdd(t, l, Account{Name: "hooli", Mode: Backup})
	if short := size(); short > maxLog {
		t.Errorf("the log stays at %d octets", short)
	}
}
