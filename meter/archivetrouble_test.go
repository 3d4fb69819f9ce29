package meter

import (
	"errors"
	"fmt"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"mailbag/testdata/powercut"
)

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
	for _, kept := range []string{"2026-02-01.csv.gz.1770379200", "2026-02-03.csv.gz.1770379200"} { // of the ledger that was there before
		if err := os.WriteFile(filepath.Join(l.evidenceDir(), kept), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c.now = february(10, 12)
	p, err := l.Prune(t.Context(), Keep{Messages: 8 * 24 * time.Hour, Turns: month31, Sessions: month31})
	if err != nil || p.Messages != 96 {
		t.Errorf("Prune = %+v, %v", p, err)
	}
	if diff := cmp.Diff([]string{"2026-02-02.csv.gz", "2026-02-03.csv.gz", "2026-02-03.csv.gz.1770379200"}, filesOf(t, l)); diff != "" {
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
