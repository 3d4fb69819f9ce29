package meter

import (
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
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
