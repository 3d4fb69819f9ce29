package meter

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// written is the file of rows.
func written(t testing.TB, rows []evidenceRow) []byte {
	t.Helper()
	var file bytes.Buffer
	w, err := newEvidenceWriter(&file)
	for _, r := range rows {
		if err == nil {
			err = w.write(r)
		}
	}
	if err == nil {
		err = w.close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

func rowsIn(file io.Reader) (rows []evidenceRow, err error) {
	r, err := newEvidenceReader(file)
	for err == nil {
		var row evidenceRow
		if row, err = r.read(); err == nil {
			rows = append(rows, row)
		}
	}
	if err == io.EOF {
		err = nil
	}
	return rows, err
}

func TestRowsAreReadAsTheyWereWritten(t *testing.T) {
	t.Parallel()
	const at = 1770000000123
	var rows []evidenceRow
	for account := range int64(3) {
		for i, m := range []struct{ id, instance, client, domains string }{
			{"4Xy1Zz0c1Tz9vNl", "4Xy1Zz0c1Tz9vNl@18a1b2c3d4e", "192.0.2.1", `["acme.example"]`}, // Postfix, long
			{inDigits(at/1000-2, idSeconds[0].digits) + "1Tz9vNl", "4Xy@188bd2ee7bd21a00", "2001:db8::1", `["acme.example"]`},
			{"8D3F41A2", "8D3F41A2@188bd2ee7bd21a00", "192.0.2.1", `["acme.example","b.example"]`}, // short, with nanoseconds
			{inDigits(at/1000-9, idSeconds[1].digits) + "-00000004xZa-2fGh", "", "", "[]"},         // Exim
			{inDigits(at/1000, idSeconds[1].digits) + ".:", "", "", "[]"},
			{"=Q:1", "1", "unknown, or \"not\"", `["acme.example"]`},
			{"Q.1", "Q.1@0x5", " ", `not JSON`[:0] + `[ "spaced" ]`},
			{"", "@-5", "=", `["<&>"]`},
		} {
			if m.instance == "" {
				m.instance = SpoolInstance(m.id)
			}
			rows = append(rows, evidenceRow{account + 1, at + int64(i)*7, m.instance, m.id, int64(i) * 1000, m.client, m.domains})
		}
	}
	slices.SortFunc(rows, func(a, b evidenceRow) int {
		if a.less(b) {
			return -1
		}
		return 1
	})
	got, err := rowsIn(bytes.NewReader(written(t, rows)))
	if diff := cmp.Diff(rows, got, cmp.AllowUnexported(evidenceRow{})); err != nil || diff != "" {
		t.Errorf("%v, -want +got:\n%s", err, diff)
	}
}

// A file that is cut off anywhere is none.
func TestEveryPartOfAFileIsMissed(t *testing.T) {
	t.Parallel()
	whole := written(t, []evidenceRow{{1, 1, "a@1", "a", 1, "", "[]"}, {1, 2, "b@1", "b", 1, "", "[]"}})
	for n := range whole {
		if rows, err := rowsIn(bytes.NewReader(whole[:n])); err == nil {
			t.Errorf("the first %d of %d octets are read as %v", n, len(whole), rows)
		}
	}
}

// FuzzEvidence reads whatever there is, and what can be read is read again as the same.
func FuzzEvidence(f *testing.F) {
	f.Add(int64(1770000000123), "4Xy1Zz0c1Tz9vNl", "4Xy1Zz0c1Tz9vNl@18a1b2c3d4e", int64(10), "192.0.2.1", "acme.example b.example")
	f.Add(int64(0), "1vOABC-00000004xZa-2fGh", "1vOABC-00000004xZa-2fGh@exim", int64(0), "", "-")
	f.Add(int64(5), "0:=.", "=", int64(7), "\"", "")
	f.Fuzz(func(t *testing.T, at int64, id, instance string, size int64, client, domains string) {
		short, stored := shorten(id, at), ""
		if again, err := lengthen(short, at); err != nil || again != id {
			t.Errorf("the ID %q at %d is %q in a file, and read as %q, %v", id, at, short, again, err)
		}
		r := evidenceRow{at: at % 1e13, queueID: id, instance: instance}
		if again, err := full(brief(r), r); err != nil || again != instance {
			t.Errorf("the instance %q of %q is %q in a file, and read as %q, %v", instance, id, brief(r), again, err)
		}
		stored = asJSON([]string{domains})
		if again := domainsIn(namesOf(stored)); again != stored {
			t.Errorf("the domains %s are %q in a file, and read as %s", stored, namesOf(stored), again)
		}
		if r, err := newEvidenceReader(bytes.NewReader([]byte(client))); err == nil {
			t.Errorf("%q is read as a file: %v", client, r)
		}
	})
}

// FuzzEvidenceFile reads what is no file of ours, in gzip that is whole.
func FuzzEvidenceFile(f *testing.F) {
	const head = "account,ms,queue_id,bytes,client,instance,domains\n"
	f.Add(head + "1,1770000000123,0:1Tz9vNl,10,192.0.2.1,5,acme.example\n,17,Q,1,,@exim,-\n")
	f.Add(head + "1,2,3.x,4,5,6ns,7\n")
	f.Add(head + "x\n")
	f.Fuzz(func(t *testing.T, text string) {
		var file bytes.Buffer
		w, err := newEvidenceWriter(&file)
		if err != nil {
			t.Fatal(err)
		}
		w.csv.Flush()
		file.Reset()
		w.zip.Reset(&file)
		if _, err := io.WriteString(w.zip, text); err != nil {
			t.Fatal(err)
		}
		if err := w.zip.Close(); err != nil {
			t.Fatal(err)
		}
		rows, err := rowsIn(&file)
		if err != nil {
			return
		}
		again, err := rowsIn(bytes.NewReader(written(t, rows)))
		if diff := cmp.Diff(rows, again, cmp.AllowUnexported(evidenceRow{})); err != nil || diff != "" {
			t.Errorf("%v, -first +again:\n%s", err, diff)
		}
	})
}

// lifelike are rows as 1,000 accounts have them: a few have most of the mail, half of which comes from those who wrote before, a
// third from large providers, and the rest from anywhere.
func lifelike(n int, exim bool) []evidenceRow {
	r := rand.New(rand.NewPCG(1, 2))
	few := func(n int) int { return int(float64(n)*r.Float64()*r.Float64()*r.Float64()) % n }
	address := func(n int) string { return fmt.Sprintf("%d.%d.%d.%d", 1+n>>24&127, n>>16&255, n>>8&255, n&255) }
	var rows []evidenceRow
	start := time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC)
	for i := range n {
		begun := start.Add(time.Duration(i)*24*time.Hour/time.Duration(n) + time.Duration(r.IntN(1e6))*time.Microsecond)
		queued := begun.Add(time.Duration(r.IntN(20_000)) * time.Microsecond)
		at := queued.Add(time.Duration(r.ExpFloat64() * float64(60*time.Millisecond)))
		account := 1 + few(1000)
		row := evidenceRow{account: int64(account), at: at.UnixMilli(), size: int64(3000 * (1 + r.ExpFloat64()*r.ExpFloat64()*3)), domains: fmt.Sprintf(`["d%d.example"]`, account)}
		switch p := r.IntN(10); {
		case p < 5:
			row.client = address(account*7919 + few(40)*104729)
		case p < 8:
			row.client = address(209<<24 + 85<<16 + r.IntN(200))
		default:
			row.client = address(r.IntN(1 << 31))
		}
		if exim {
			row.queueID = inDigits(queued.Unix(), idSeconds[1].digits) + "-" + inDigits(int64(2000+i*5%4_000_000), idSeconds[1].digits) + "-" + inDigits(int64(queued.Nanosecond()/500_000), idSeconds[1].digits)[4:]
			row.instance = SpoolInstance(row.queueID)
		} else {
			row.queueID = inDigits(queued.Unix(), idSeconds[0].digits) + inDigits(int64(queued.Nanosecond()/1000), idSeconds[0].digits)[2:] + "z" + inDigits(int64(300_000+r.IntN(400)*3), idSeconds[0].digits)[2:]
			row.instance = fmt.Sprintf("%s@%x", row.queueID, begun.UnixMilli())
		}
		rows = append(rows, row)
	}
	slices.SortFunc(rows, func(a, b evidenceRow) int {
		if a.less(b) {
			return -1
		}
		return 1
	})
	return rows
}

func TestARowCostsLittle(t *testing.T) {
	t.Parallel()
	const n = 100_000
	for name, exim := range map[string]bool{"Postfix": false, "Exim": true} {
		rows := lifelike(n, exim)
		file := written(t, rows)
		t.Logf("%s: %.1f octets a row", name, float64(len(file))/n)
		if len(file) > 20*n {
			t.Errorf("%d rows of %s are %d octets", n, name, len(file))
		}
	}
}
