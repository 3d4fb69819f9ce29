package routes

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A record is one entry of a constant database.
type record struct{ key, value string }

// ofRecords is the database of them.
func ofRecords(all []record) constantDatabase {
	return func(yield func(string, string) bool) {
		for _, r := range all {
			if !yield(r.key, r.value) {
				return
			}
		}
	}
}

// randomRecords have keys and values of any octets, and of none.
func randomRecords(n int) []record {
	random := rand.New(rand.NewPCG(1, uint64(n)))
	text := func(most int) string {
		b := make([]byte, random.IntN(most+1))
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		return string(b)
	}
	all := make([]record, n)
	for i := range all {
		all[i] = record{fmt.Sprintf("%s#%d", text(40), i), text(300)}
	}
	if n > 1 {
		all[0].key = ""
	}
	return all
}

func TestConstantDatabaseIsReadByTinyCDB(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("cdb"); err != nil {
		t.Skip("there is no program cdb on this machine; install tinycdb (apt-get install tinycdb)")
	}
	for _, n := range []int{0, 1, 2, 255, 5000} {
		records := randomRecords(n)
		file := write(t, t.TempDir(), "any.cdb", records)
		var want bytes.Buffer
		for _, r := range records {
			fmt.Fprintf(&want, "+%d,%d:%s->%s\n", len(r.key), len(r.value), r.key, r.value)
		}
		want.WriteByte('\n')
		dump, err := exec.Command("cdb", "-d", file).Output()
		if err != nil || !bytes.Equal(dump, want.Bytes()) {
			t.Fatalf("%d records: cdb -d prints %d octets, %v; want %d", n, len(dump), err, want.Len())
		}
		for _, r := range records[max(0, n-20):] {
			if strings.Contains(r.key, "\x00") {
				continue // no argument of a program can have it
			}
			if got, err := exec.Command("cdb", "-q", file, r.key).Output(); err != nil || string(got) != r.value {
				t.Fatalf("cdb -q %q prints %q, %v; want %q", r.key, got, err, r.value)
			}
		}
	}
}

func TestLookupFindsWhatIsThereAndNothingElse(t *testing.T) {
	t.Parallel()
	records := randomRecords(5000)
	ours := write(t, t.TempDir(), "ours.cdb", records)
	for _, r := range records {
		if got, found, err := Lookup(ours, r.key); err != nil || !found || got != r.value {
			t.Fatalf("%q has %q, %v, %v; want %q", r.key, got, found, err, r.value)
		}
		if got, found, err := Lookup(ours, r.key+"?"); err != nil || found {
			t.Fatalf("%q, which is not there, has %q, %v", r.key+"?", got, err)
		}
	}
}

func TestLookupInADamagedDatabaseIsAnError(t *testing.T) {
	t.Parallel()
	records := randomRecords(10)
	whole, err := Table{"", ofRecords(records)}.Content()
	if err != nil {
		t.Fatal(err)
	}
	key := records[5].key
	file := filepath.Join(t.TempDir(), "cut.cdb")
	failed := 0
	for size := range whole {
		if err := os.WriteFile(file, whole[:size], 0o644); err != nil {
			t.Fatal(err)
		}
		_, found, err := Lookup(file, key)
		if err != nil {
			failed++
		} else if !found {
			t.Errorf("in %d of %d octets the key is said not to be there", size, len(whole))
		}
	}
	if failed == 0 {
		t.Error("no cut made an error")
	}
	if _, _, err := Lookup(filepath.Join(t.TempDir(), "none.cdb"), key); !os.IsNotExist(err) {
		t.Errorf("of a file that is not there the error is %v", err)
	}
}

func TestConstantDatabaseBeyond4GiBIsRefused(t *testing.T) {
	t.Parallel()
	value := strings.Repeat("x", 64<<20)
	var records []record
	for i := range 64 {
		records = append(records, record{fmt.Sprint(i), value})
	}
	if _, err := ofRecords(records).WriteTo(io.Discard); err == nil || !strings.Contains(err.Error(), "4 GiB") {
		t.Errorf("the error is %v", err)
	}
}

// write makes a constant database of the records in a file.
func write(t testing.TB, dir, name string, records []record) string {
	t.Helper()
	return put(t, dir, Table{name, ofRecords(records)})
}

// put writes a table into a directory, and returns its file.
func put(t testing.TB, dir string, table Table) string {
	t.Helper()
	content, err := table.Content()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, table.Name)
	if err := os.WriteFile(file, content, 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}
