package meter

import (
	"errors"
	"fmt"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"mailbag/testdata/powercut"
)

// idsIn lists queue IDs.
func idsIn(ids ...string) func() iter.Seq2[string, error] {
	return func() iter.Seq2[string, error] {
		return func(yield func(string, error) bool) {
			for _, id := range ids {
				if !yield(id, nil) {
					return
				}
			}
		}
	}
}

// february is a time in February 2026, in UTC.
func february(day, hour int) time.Time { return time.Date(2026, 2, day, hour, 0, 0, 0, time.UTC) }

// someEvidence has messages of two accounts on the first days of February counted, three an hour, some for both.
func someEvidence(t *testing.T, opt Options, days int) (*Ledger, *Directory) {
	t.Helper()
	l, d := twoAccounts(t, opt)
	r := NewRecorder(l, nil)
	defer r.Close()
	acme, globex := d.Account("acme"), d.Account("globex")
	for hour := range 24 * days {
		at := february(1, hour)
		for i, accounts := range [][]*Account{{acme}, {globex}, {acme, globex}} {
			at = at.Add(time.Duration(i) * 1234 * time.Millisecond)
			id := fmt.Sprintf("Q%d.%d", hour, i)
			m := Message{Instance: fmt.Sprintf("%s@%x", id, at.Add(-time.Millisecond).UnixMilli()), QueueID: id, Size: int64(1000 + hour), Client: "192.0.2.1", At: at, Accounts: accounts,
				Domains: []string{"acme.example", "globex.example"}}
			if err := r.Record(m, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	return l, d
}

// listed is the evidence of February as the command lists it.
func listedEvidence(t *testing.T, l *Ledger, d *Directory) (list []string) {
	t.Helper()
	for _, name := range []string{"acme", "globex"} {
		for _, m := range collect(t, l.Evidence(t.Context(), d.Account(name).ID, Month{2026, 2})) {
			list = append(list, fmt.Sprintf("%s %s %s %d %s %s", name, m.At.Format(time.RFC3339Nano), m.QueueID, m.Size, m.Client, m.Instance))
		}
	}
	return list
}

func mustArchive(t *testing.T, l *Ledger, queued ...string) Archived {
	t.Helper()
	done, err := l.Archive(t.Context(), idsIn(queued...))
	if err != nil {
		t.Fatal(err)
	}
	return done
}

// left are the days of which evidence is in the ledger, and how much.
func left(t *testing.T, l *Ledger) map[string]int {
	t.Helper()
	days := map[string]int{}
	for rows, err := range l.rows(t.Context(), "/* all */ SELECT day, count(*) FROM message GROUP BY day") {
		var day string
		var n int
		if err == nil {
			err = rows.Scan(&day, &n)
		}
		if err != nil {
			t.Fatal(err)
		}
		days[day] = n
	}
	return days
}

func mustBeSound(t *testing.T, l *Ledger) {
	t.Helper()
	if faults, err := l.Check(t.Context()); err != nil || len(faults) > 0 {
		t.Errorf("Check = %q, %v", faults, err)
	}
}

func filesOf(t *testing.T, l *Ledger) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(l.evidenceDir())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestEvidenceOfDaysThatAreOverIsInFilesAndListedAsBefore(t *testing.T) {
	t.Parallel()
	c := clockAt("2026-02-04 12:00:00")
	l, d := someEvidence(t, Options{Now: c.Now}, 4)
	before := listedEvidence(t, l, d)
	bill := invoices(t, l, "2026-02", standard)
	if got, want := mustArchive(t, l), (Archived{Days: 1, Messages: 96}); got != want {
		t.Errorf("archived %+v, want %+v", got, want)
	}
	c.now = february(5, 0)
	if got, want := mustArchive(t, l), (Archived{Days: 1, Messages: 96}); got != want {
		t.Errorf("archived %+v a day later, want %+v", got, want)
	}
	if got := mustArchive(t, l); got != (Archived{}) {
		t.Errorf("archived %+v once more", got)
	}
	if diff := cmp.Diff(map[string]int{"2026-02-03": 96, "2026-02-04": 96}, left(t, l)); diff != "" {
		t.Errorf("the ledger has -want +got:\n%s", diff)
	}
	if diff := cmp.Diff([]string{"2026-02-01.csv.gz", "2026-02-02.csv.gz"}, filesOf(t, l)); diff != "" {
		t.Errorf("the files are -want +got:\n%s", diff)
	}
	if diff := cmp.Diff(before, listedEvidence(t, l, d)); diff != "" {
		t.Errorf("the list changed:\n%s", diff)
	}
	if after := invoices(t, l, "2026-02", standard); after != bill {
		t.Errorf("the bills were\n%s\nand are\n%s", bill, after)
	}
	mustBeSound(t, l)
	counted, err := l.Counted(t.Context(), []Sought{{"Q3.2", february(1, 3), february(1, 4)}, {"Q80.0", february(4, 8), february(4, 9)}})
	want := []CountedMessage{{"acme", "Q80.0", february(4, 8), 1080}, {"acme", "Q3.2", february(1, 3).Add(3702 * time.Millisecond), 1003}, {"globex", "Q3.2", february(1, 3).Add(3702 * time.Millisecond), 1003}}
	if diff := cmp.Diff(want, counted); err != nil || diff != "" {
		t.Errorf("%v, -want +got:\n%s", err, diff)
	}
}

// An account of which more than a page was counted is read in pages, and those that have less together.
func TestADayOfManyMessagesIsArchivedWhole(t *testing.T) {
	t.Parallel()
	c := clockAt("2026-02-04 12:00:00")
	l, d := someEvidence(t, Options{Now: c.Now}, 1)
	mustAdd(t, l, Account{Name: "large", Mode: Backup, Domains: []string{"large.example"}})
	mustAdd(t, l, Account{Name: "last", Mode: Backup, Domains: []string{"last.example"}})
	const rows = 2*evidencePage + 1
	mustInsert(t, l, numbers+`INSERT INTO message (instance, account, at, day, queue_id, size, client, domains)
		SELECT i || '@1', (SELECT id FROM account WHERE name = 'large'), ?2 + i / 3000, '2026-02-01', i, 1, '', '["large.example"]' FROM n`, rows, february(1, 2).UnixMilli())
	count(t, l, "last", february(1, 5), 1, 10)
	before := listedEvidence(t, l, d)
	if got, want := mustArchive(t, l), (Archived{Days: 1, Messages: 96 + rows + 1}); got != want {
		t.Errorf("archived %+v, want %+v", got, want)
	}
	if diff := cmp.Diff(before, listedEvidence(t, l, d)); diff != "" {
		t.Errorf("the list changed:\n%s", diff)
	}
	if rows := left(t, l); len(rows) > 0 {
		t.Errorf("the ledger has still %v", rows)
	}
	mustBeSound(t, l)
}

func TestTheSameEvidenceMakesTheSameFile(t *testing.T) {
	t.Parallel()
	var first []byte
	for range 2 {
		c := clockAt("2026-02-04 12:00:00")
		l, _ := someEvidence(t, Options{Now: c.Now}, 1)
		mustArchive(t, l)
		text, err := os.ReadFile(filepath.Join(l.evidenceDir(), "2026-02-01.csv.gz"))
		if err != nil {
			t.Fatal(err)
		}
		if first != nil && !slices.Equal(first, text) {
			t.Error("the files differ")
		}
		first = text
	}
}

func TestAHostHasFilesOfItsOwn(t *testing.T) {
	t.Parallel()
	c := clockAt("2026-02-04 12:00:00")
	l, d := someEvidence(t, Options{Now: c.Now}, 1)
	mustInsert(t, l, "INSERT INTO host (id, name) VALUES (?, ?)", 2, "b")
	mustInsert(t, l, "UPDATE message SET host = ? WHERE queue_id LIKE ?", 2, "%.1")
	before := listedEvidence(t, l, d)
	second := newLedger(l.path, Options{Now: c.Now, Host: 2, Beside: l.opt.Beside})
	defer second.Close()
	for _, on := range []*Ledger{l, second} {
		mustArchive(t, on)
	}
	if diff := cmp.Diff([]string{"2026-02-01.2.csv.gz", "2026-02-01.csv.gz"}, filesOf(t, l)); diff != "" {
		t.Errorf("the files are -want +got:\n%s", diff)
	}
	if diff := cmp.Diff(before, listedEvidence(t, l, d)); diff != "" {
		t.Errorf("the list changed:\n%s", diff)
	}
	mustBeSound(t, l)
	if err := os.Remove(filepath.Join(l.evidenceDir(), "2026-02-01.2.csv.gz")); err != nil {
		t.Fatal(err)
	}
	mustBeSound(t, l)
	if faults, err := l.CheckEvidence(t.Context(), 3); err != nil || len(faults) > 0 {
		t.Errorf("without the other host's file CheckEvidence = %q, %v", faults, err)
	}
	rows, told := 0, ""
	for _, err := range l.Evidence(t.Context(), d.Account("acme").ID, Month{2026, 2}) {
		if rows++; err != nil {
			rows--
			told += err.Error()
		}
	}
	if rows != 48 || !strings.Contains(told, "of 2026-02-01 for 24 messages: it is on host 2") || strings.Contains(told, "restore") {
		t.Errorf("without the other host's file %d messages are listed, and %q is told", rows, told)
	}
	if counted, err := l.Counted(t.Context(), []Sought{{"Q3.0", february(1, 3), february(1, 4)}}); err != nil || len(counted) != 1 {
		t.Errorf("without the other host's file a message is found counted %v, %v", counted, err)
	}
}

func TestWhatMayBeAskedAboutAgainStaysInTheLedger(t *testing.T) {
	t.Parallel()
	c := clockAt("2026-02-05 12:00:00")
	l, d := someEvidence(t, Options{Now: c.Now}, 2)
	before := listedEvidence(t, l, d)
	doubted := newUnderway(l.opt.Beside + "-underway")
	if _, _, err := doubted.enter(&Message{Instance: fmt.Sprintf("Q30.0@%x", february(2, 6).UnixMilli()-1), At: time.Now()}); err != nil {
		t.Fatal(err)
	}
	if got, want := mustArchive(t, l, "Q3.2"), (Archived{Days: 1, Messages: 94}); got != want {
		t.Errorf("archived %+v, want %+v", got, want)
	}
	if diff := cmp.Diff(map[string]int{"2026-02-01": 2, "2026-02-02": 96}, left(t, l)); diff != "" {
		t.Errorf("the ledger has -want +got:\n%s", diff)
	}
	r := NewRecorder(l, nil)
	if accounts, err := r.CountedUnder(t.Context(), []string{"Q3.2"}, time.Time{}); err != nil || len(accounts) != 2 {
		t.Errorf("what waits is counted for %v, %v", accounts, err)
	}
	doubted.leave(1)
	doubted.close()
	r.Close()
	// A message that is late for its day, because the clock was wrong.
	r = NewRecorder(l, nil)
	late := Message{Instance: "LATE@1", QueueID: "LATE", Size: 5, At: february(1, 4), Accounts: []*Account{d.Account("acme")}, Domains: []string{"acme.example"}}
	if err := r.Record(late, nil); err != nil {
		t.Fatal(err)
	}
	r.Close()
	if got := mustArchive(t, l); got.Days != 1 {
		t.Errorf("archived %+v once nothing is doubtful", got)
	}
	if diff := cmp.Diff(map[string]int{"2026-02-01": 3}, left(t, l)); diff != "" {
		t.Errorf("the ledger has -want +got:\n%s", diff)
	}
	before = slices.Insert(before, slices.IndexFunc(before, func(line string) bool { return line > "acme 2026-02-01T04" }), "acme 2026-02-01T04:00:00Z LATE 5  LATE@1")
	after := listedEvidence(t, l, d)
	slices.Sort(before)
	slices.Sort(after)
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("the list changed:\n%s", diff)
	}
	mustBeSound(t, l)
}

func TestADayThatIsHalfArchivedIsThereOnce(t *testing.T) {
	t.Parallel()
	for _, stopped := range []struct {
		when string
		do   func(t *testing.T, l *Ledger, a archive)
	}{
		{"as the file has its name", func(t *testing.T, l *Ledger, a archive) {
			mustInsert(t, l, "DELETE FROM archive WHERE day = ?", a.day)
		}},
		{"as the ledger knows of it", func(*testing.T, *Ledger, archive) {}},
		{"when some rows are gone", func(t *testing.T, l *Ledger, _ archive) {
			mustInsert(t, l, "DELETE FROM message WHERE queue_id LIKE ?", "Q1%")
		}},
		{"when all rows are gone", func(t *testing.T, l *Ledger, _ archive) {
			mustInsert(t, l, "DELETE FROM message WHERE day LIKE ?", "%")
		}},
	} {
		t.Run(stopped.when, func(t *testing.T) {
			t.Parallel()
			c := clockAt("2026-02-04 12:00:00")
			l, d := someEvidence(t, Options{Now: c.Now}, 1)
			before := listedEvidence(t, l, d)
			unlock, err := l.lockEvidence()
			if err != nil {
				t.Fatal(err)
			}
			if got := mustArchive(t, l); got != (Archived{}) {
				t.Errorf("archived %+v while another process is at it", got)
			}
			a, err := l.archiveDay(t.Context(), "2026-02-01", nil)
			if err != nil {
				t.Fatal(err)
			}
			stopped.do(t, l, a)
			unlock()
			for range 2 {
				if diff := cmp.Diff(before, listedEvidence(t, l, d)); diff != "" {
					t.Errorf("the list changed:\n%s", diff)
				}
				mustBeSound(t, l)
				mustArchive(t, l)
			}
			if rows := left(t, l); len(rows) > 0 {
				t.Errorf("the ledger has still %v", rows)
			}
			if diff := cmp.Diff([]string{"2026-02-01.csv.gz"}, filesOf(t, l)); diff != "" {
				t.Errorf("the files are -want +got:\n%s", diff)
			}
		})
	}
}

func TestAFileThatIsNotAsItWasWrittenIsTold(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		what  string
		spoil func(path string) error
	}{
		{"missing", os.Remove},
		{"empty", func(path string) error { return os.Truncate(path, 0) }},
		{"short", func(path string) error { return os.Truncate(path, 200) }},
		{"changed", func(path string) error {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt([]byte{0}, 300)
			return errors.Join(err, f.Close())
		}},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			clock := clockAt("2026-02-05 12:00:00")
			l, d := someEvidence(t, Options{Now: clock.Now}, 3)
			mustArchive(t, l)
			if err := c.spoil(filepath.Join(l.evidenceDir(), "2026-02-01.csv.gz")); err != nil {
				t.Fatal(err)
			}
			if faults, err := l.Check(t.Context()); err != nil || len(faults) != 1 {
				t.Errorf("Check = %q, %v", faults, err)
			}
			if faults, err := l.CheckEvidence(t.Context(), 1); err != nil || len(faults) != 0 {
				t.Errorf("of the newest file is said %q, %v", faults, err)
			}
			if faults, err := l.CheckEvidence(t.Context(), 2); err != nil || len(faults) != 1 {
				t.Errorf("of the newest two files is said %q, %v", faults, err)
			}
			told := 0
			days := map[int]int{}
			for m, err := range l.Evidence(t.Context(), d.Account("globex").ID, Month{2026, 2}) {
				switch {
				case errors.Is(err, ErrEvidence):
					told++
				case err != nil:
					t.Fatal(err)
				default:
					days[m.At.Day()]++
				}
			}
			if told != 1 || days[2] != 48 || days[3] != 48 {
				t.Errorf("what lacks was told %d times, and of the days were listed %v", told, days)
			}
			if _, err := l.Counted(t.Context(), []Sought{{"Q3.2", february(1, 3), february(1, 4)}}); !errors.Is(err, ErrEvidence) {
				t.Errorf("who looks for a message of that day hears %v", err)
			}
		})
	}
}

func TestADiskThatIsFullLeavesEvidenceInTheLedger(t *testing.T) {
	t.Parallel()
	c := clockAt("2026-02-04 12:00:00")
	l, d := someEvidence(t, Options{Now: c.Now}, 1)
	before := listedEvidence(t, l, d)
	if os.Geteuid() != 0 {
		t.Skip("only root mounts a disk")
	}
	if err := os.Mkdir(l.evidenceDir(), 0o755); err != nil {
		t.Fatal(err)
	}
	mount := exec.Command("mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", l.evidenceDir())
	if out, err := mount.CombinedOutput(); err != nil {
		t.Skipf("no disk can be mounted: %v: %s", err, out)
	}
	unmount := sync.OnceFunc(func() {
		if out, err := exec.Command("umount", l.evidenceDir()).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	t.Cleanup(unmount)
	if err := os.WriteFile(filepath.Join(l.evidenceDir(), "full"), make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	if done, err := l.Archive(t.Context(), idsIn()); err == nil || done != (Archived{}) {
		t.Errorf("archived %+v, %v", done, err)
	}
	if names := filesOf(t, l); !slices.Equal(names, []string{"full"}) {
		t.Errorf("%v are there", names)
	}
	if diff := cmp.Diff(before, listedEvidence(t, l, d)); diff != "" {
		t.Errorf("the list changed:\n%s", diff)
	}
	unmount()
	mustArchive(t, l)
	if diff := cmp.Diff(before, listedEvidence(t, l, d)); diff != "" {
		t.Errorf("the list changed:\n%s", diff)
	}
}

func TestAQueueThatCannotBeReadLeavesEvidenceInTheLedger(t *testing.T) {
	t.Parallel()
	c := clockAt("2026-02-04 12:00:00")
	l, _ := someEvidence(t, Options{Now: c.Now}, 1)
	down := errors.New("down")
	_, err := l.Archive(t.Context(), func() iter.Seq2[string, error] {
		return func(yield func(string, error) bool) { yield("", down) }
	})
	if !errors.Is(err, down) || len(filesOf(t, l)) > 0 {
		t.Errorf("the error is %v, and the files are %v", err, filesOf(t, l))
	}
}

func TestOldFilesGo(t *testing.T) {
	t.Parallel()
	c := clockAt("2026-02-06 12:00:00")
	l, d := someEvidence(t, Options{Now: c.Now}, 3)
	mustArchive(t, l)
	c.now = february(10, 12)
	p, err := l.Prune(t.Context(), Keep{Messages: 8 * 24 * time.Hour, Turns: month31, Sessions: month31})
	if err != nil || p.Messages != 96 {
		t.Errorf("Prune = %+v, %v", p, err)
	}
	if diff := cmp.Diff([]string{"2026-02-02.csv.gz", "2026-02-03.csv.gz"}, filesOf(t, l)); diff != "" {
		t.Errorf("the files are -want +got:\n%s", diff)
	}
	if n := len(listedEvidence(t, l, d)); n != 192 {
		t.Errorf("%d messages are listed", n)
	}
	mustBeSound(t, l)
}

const month31 = 31 * 24 * time.Hour

// After an older copy of the ledger was restored a day can have fewer rows than its file, which stays.
func TestAFileThatTheLedgerDoesNotKnowIsKept(t *testing.T) {
	t.Parallel()
	c := clockAt("2026-02-04 12:00:00")
	l, _ := someEvidence(t, Options{Now: c.Now}, 1)
	mustArchive(t, l)
	mustInsert(t, l, "DELETE FROM archive WHERE day LIKE ?", "%")
	count(t, l, "acme", february(1, 5), 1, 10)
	mustArchive(t, l)
	if names := filesOf(t, l); len(names) != 2 {
		t.Errorf("the files are %v", names)
	}
}

func TestCheckComparesFilesWithTheUsage(t *testing.T) {
	t.Parallel()
	c := clockAt("2026-02-04 12:00:00")
	l, _ := someEvidence(t, Options{Now: c.Now}, 1)
	mustArchive(t, l, "Q3.2")
	for _, c := range []struct {
		lose string
		args []any
	}{
		{"UPDATE usage SET messages = messages - 1 WHERE account = ?", []any{1}}, // with the row that stayed it is less
		{"UPDATE domain_usage SET bytes = bytes - 1 WHERE account = ?", []any{2}},
	} {
		faults, err := l.Check(t.Context())
		mustInsert(t, l, c.lose, c.args...)
		more, err2 := l.Check(t.Context())
		if err = errors.Join(err, err2); err != nil || len(more) != len(faults)+1 {
			t.Errorf("after %s Check = %q, %v", c.lose, more, err)
		}
	}
}

func TestAFileOfEvidenceIsOnTheDiskBeforeARowGoes(t *testing.T) {
	t.Parallel()
	trace := powercut.Watch(t, func(dir string) {
		c := clockAt("2026-02-04 12:00:00")
		l, err := Open(t.Context(), filepath.Join(dir, "mailbag.db"), Options{Create: true, Now: c.Now})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		mustAdd(t, l, Account{Name: "acme", Mode: Backup, Domains: []string{"acme.example"}})
		count(t, l, "acme", february(1, 1), 10, 10)
		unlock, err := l.lockEvidence()
		if err != nil {
			t.Fatal(err)
		}
		defer unlock()
		a, err := l.archiveDay(t.Context(), "2026-02-01", nil)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("archived.")
		if err := l.clear(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		fmt.Println("cleared.")
	})
	for _, said := range []string{"archived.", "cleared."} {
		disk := trace.At(said)
		if lost := disk.Lost("evidence"); len(lost) > 0 || len(disk.Torn(".")) > 0 || !slices.Equal(disk.Kept("evidence"), []string{"evidence/2026-02-01.csv.gz"}) {
			t.Errorf("when it is %s a power cut would undo %q and leave %q", said, lost, disk.Kept("evidence"))
		}
		if lost := disk.Lost("mailbag.db-wal"); len(lost) > 0 {
			t.Errorf("when it is %s a power cut would undo %q", said, lost)
		}
	}
}

func TestABackupHasEachFileOnceAndForgetsThemTwoWeeksLater(t *testing.T) {
	t.Parallel()
	c := clockAt("2026-02-05 12:00:00")
	l, _ := someEvidence(t, Options{Now: c.Now}, 2)
	mustArchive(t, l)
	dir := filepath.Join(t.TempDir(), "evidence")
	backUp := func(want ...string) {
		t.Helper()
		if err := l.BackupEvidence(t.Context(), dir); err != nil {
			t.Fatal(err)
		}
		names, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil || len(names) != len(want) {
			t.Errorf("the copies are %v, %v; want %v", names, err, want)
		}
	}
	backUp("2026-02-01", "2026-02-02")
	if err := os.WriteFile(filepath.Join(dir, "2026-02-01.csv.gz"), []byte("of another ledger"), 0o600); err != nil {
		t.Fatal(err)
	}
	backUp("2026-02-01", "2026-02-02", "the other ledger's")
	if digest, err := digestOf(filepath.Join(dir, "2026-02-01.csv.gz")); err != nil || l.verify(archive{day: "2026-02-01", host: 1, sha256: digest}) != nil {
		t.Errorf("the copy is another than the file: %v", err)
	}
	mustInsert(t, l, "UPDATE archive SET day = ? WHERE day = ?", "2026-02-16", "2026-02-01")
	if err := os.Rename(filepath.Join(l.evidenceDir(), "2026-02-01.csv.gz"), filepath.Join(l.evidenceDir(), "2026-02-16.csv.gz")); err != nil {
		t.Fatal(err)
	}
	mustInsert(t, l, "DELETE FROM archive WHERE day = ?", "2026-02-02")
	if err := l.BackupEvidence(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if names, _ := filepath.Glob(filepath.Join(dir, "2026-02-01.csv.gz")); len(names) != 0 {
		t.Errorf("%v is still there", names)
	}
	if names, _ := filepath.Glob(filepath.Join(dir, "2026-02-*[26].csv.gz")); len(names) != 2 {
		t.Errorf("left are %v", names)
	}
}

// The old ledger's files stay with it, but for one that lacks there: it lacks in both.
func TestFilesOfEvidenceAreWhereAMovedLedgerLooksForThem(t *testing.T) {
	t.Parallel()
	needsFile(t)
	c := clockAt("2026-02-06 12:00:00")
	l, d := someEvidence(t, Options{Now: c.Now}, 3)
	before := listedEvidence(t, l, d)
	mustArchive(t, l)
	beside := filepath.Join(filepath.Dir(l.path), "to.db")
	if _, err := l.Move(t.Context(), beside, Options{}); err != nil {
		t.Fatal(err)
	}
	there := filepath.Join(t.TempDir(), "to.db")
	if err := l.Stay(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Move(t.Context(), there, Options{}); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{l.path, beside, there} {
		moved := New(path, Options{Now: c.Now})
		if diff := cmp.Diff(before, listedEvidence(t, moved, d)); diff != "" {
			t.Errorf("at %s the list changed:\n%s", path, diff)
		}
		mustBeSound(t, moved)
		for _, name := range filesOf(t, moved) {
			if info, err := os.Stat(filepath.Join(moved.evidenceDir(), name)); err != nil || info.Mode().Perm() != 0o640 {
				t.Errorf("%s has mode %v, %v", name, info.Mode(), err)
			}
		}
		moved.Close()
	}
	if err := errors.Join(os.Remove(filepath.Join(l.evidenceDir(), "2026-02-02.csv.gz")), l.Stay(t.Context())); err != nil {
		t.Fatal(err)
	}
	without := filepath.Join(t.TempDir(), "to.db")
	if _, err := l.Move(t.Context(), without, Options{}); err != nil {
		t.Fatal(err)
	}
	moved := New(without, Options{Now: c.Now})
	defer moved.Close()
	if faults, err := moved.Check(t.Context()); err != nil || len(faults) != 1 || len(filesOf(t, moved)) != 2 {
		t.Errorf("without a file Check = %q, %v, and the files are %v", faults, err, filesOf(t, moved))
	}
}
