package meter

import (
	"bytes"
	"context"
	"database/sql"
	"math"
	"strings"
	"testing"

	rqlitetest "mailbag/testdata/rqlite"
)

// oneNode is the engine of a node without tables.
func oneNode(t testing.TB) *rqlite {
	t.Helper()
	if err := rqlitetest.Available(); err != nil {
		t.Skip(err)
	}
	nodes, err := idleNodes.Take(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { idleNodes.Give(nodes) })
	return newRqlite(nodes.Address(0), Options{})
}

// FuzzParametersComeBackAsTheyWent has a node keep parameters of every kind, by place and by name, and answer with them.
func FuzzParametersComeBackAsTheyWent(f *testing.F) {
	e := oneNode(f)
	if err := e.post(f.Context(), []statement{{sql: "CREATE TABLE kept (id INTEGER PRIMARY KEY, n INTEGER, t TEXT, b BLOB, named TEXT, yes INTEGER) STRICT"}}, writesWithin); err != nil {
		f.Fatal(err)
	}
	for _, text := range []string{
		"", "x''", "x'41'", " X'4a' ", "\vx'41'\u00a0", "\u2028x'0A'\u0085", "x'4'", "x'", "x'41", "x'''", "'x''41'''", "?", ":name", "RETURNING", "random()",
		"\x00", "a\x00b", "\xff", "\xed\xa0\x80", "\ufffd", "<&>\u2029", "\"\\", "Grüße", "9223372036854775807", "null", "1e3",
	} {
		f.Add(text, []byte(text), int64(math.MaxInt64), true)
		f.Add(text, []byte(nil), int64(math.MinInt64), false)
	}
	f.Fuzz(func(t *testing.T, text string, octets []byte, n int64, yes bool) {
		want := string([]rune(text)) // a text is of Unicode
		err := e.post(t.Context(), []statement{{"INSERT OR REPLACE INTO kept (id, n, t, b, named, yes) VALUES (1, ?2, ?1, ?, :name, :yes)",
			[]any{text, n, octets, sql.Named("name", text), sql.Named("yes", yes)}}}, writesWithin)
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		var kind string
		for _, how := range []freshness{current, near} {
			err = e.query(t.Context(), how, query{statement{"SELECT n, t, b, named, yes, typeof(b) FROM kept WHERE t = ? AND named = :name", []any{text, sql.Named("name", text)}}, func(r scanner) error {
				found++
				var gotN int64
				var gotT, gotNamed string
				var gotB []byte
				var gotYes bool
				if err := r.Scan(&gotN, &gotT, &gotB, &gotNamed, &gotYes, &kind); err != nil {
					return err
				}
				if gotN != n || gotT != want || gotNamed != want || gotYes != yes || !bytes.Equal(gotB, octets) || (kind == "null") != (octets == nil) {
					t.Errorf("%d, %q, %q, %t came back as %d, %q and %q, %q (%s), %t", n, text, octets, yes, gotN, gotT, gotNamed, gotB, kind, gotYes)
				}
				return nil
			}})
			if err != nil {
				t.Fatal(err)
			}
		}
		if found != 2 {
			t.Errorf("%q is found %d times; want 2", text, found)
		}
	})
}

// FuzzAnswer reads what a node answers, as no node does.
func FuzzAnswer(f *testing.F) {
	for _, answer := range []string{
		`{"results":[{"columns":["a"],"types":["text"],"values":[["x",1,[0,255],null]]}]}`, `{"results":[{"types":[]}]}`, `{"results":[]}`, `{"results":null}`,
		`{"results":[{"error":"no such table: t"}]}`, `{"error":"leadership lost while committing log"}`, `{"results":[{"values":[null]}]}`, `{"results":[{"values":[{}]}]}`,
		`{"results":[{"values":[[1e400]]}]}`, `{"results":[{"values":[[[-1]]]}]}`, `{"results":[{"values":[[]]}]`, "", "[]", "404 page not found", `{"results":[{"values":[[true]]}]}`,
	} {
		f.Add(answer)
	}
	f.Fuzz(func(t *testing.T, answer string) {
		rows := 0
		read := results(1, []query{{row: func(r scanner) error {
			rows++
			var text string
			var n *int64
			var octets, none []byte
			return r.Scan(&text, &n, &octets, &none)
		}}}, unread)
		err := read(strings.NewReader(answer))
		if err == nil && rows == 0 && !strings.Contains(answer, "esults") {
			t.Errorf("%q is an answer", answer)
		}
	})
}
