package meter

import (
	"database/sql"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestNewTablesAreThoseOfAllMigrations makes a ledger by the statements for a new one on nodes of rqlite.
func TestNewTablesAreThoseOfAllMigrations(t *testing.T) {
	t.Parallel()
	made := func(fill func(db *sql.DB) error) string {
		t.Helper()
		db, err := sql.Open(driverName, ":memory:?_foreign_keys=on")
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		db.SetMaxOpenConns(1)
		if err := fill(db); err != nil {
			t.Fatal(err)
		}
		if _, err := db.Exec("UPDATE decoy SET key = zeroblob(32); DELETE FROM sqlite_sequence"); err != nil {
			t.Fatal(err)
		}
		var schema strings.Builder
		err = readRows(t.Context(), db, query{statement{sql: "SELECT type, name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_stat%' ORDER BY type, name"}, func(r scanner) error {
			var kind, name string
			var text *string
			err := r.Scan(&kind, &name, &text)
			fmt.Fprintln(&schema, kind, name)
			if text != nil {
				fmt.Fprintln(&schema, *text)
			}
			return err
		}})
		if err != nil {
			t.Fatal(err)
		}
		rows, err := dump(t.Context(), db)
		if err != nil {
			t.Fatal(err)
		}
		return schema.String() + rows
	}
	migrated := made(func(db *sql.DB) error { return migrate(t.Context(), db, true) })
	anew := made(func(db *sql.DB) error {
		batch, err := newTables(t.Context())
		for _, s := range batch {
			if _, err := db.Exec(s.sql, s.args...); err != nil {
				return fmt.Errorf("%s: %w", s.sql, err)
			}
		}
		return err
	})
	if diff := cmp.Diff(strings.Split(migrated, "\n"), strings.Split(anew, "\n")); diff != "" {
		t.Errorf("(-migrated +new):\n%s", diff)
	}
}

// TestParametersLookToRqliteLikeWhatTheyAre are those that it would take for something else, or JSON has no form of.
func TestParametersLookToRqliteLikeWhatTheyAre(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		statement statement
		want      string
	}{
		{statement{"SELECT ?, ?", []any{1, "a"}}, `["SELECT ?, ?",1,"a"]`},
		{statement{"SELECT ?, ?", []any{" X'41' ", "x'4'"}}, `["SELECT CAST(?1 AS TEXT), ?",[32,88,39,52,49,39,32],"x'4'"]`},
		{statement{"SELECT '?', \"?\", ?2, ? -- ?\n, ?1", []any{"x''", nil, "x'41'"}}, `["SELECT '?', \"?\", ?2, CAST(?3 AS TEXT) -- ?\n, CAST(?1 AS TEXT)",[120,39,39],null,[120,39,52,49,39]]`},
		{statement{"SELECT :a, :ab", []any{sql.Named("a", "x'41'"), sql.Named("ab", true)}}, `["SELECT CAST(:a AS TEXT), :ab",{"a":[120,39,52,49,39],"ab":true}]`},
		{statement{"SELECT ?, ?, ?", []any{[]byte{0, 255}, []byte(nil), []byte{}}}, `["SELECT ?, ?, ?",[0,255],null,[]]`},
		{statement{"SELECT ?", []any{int64(math.MinInt64)}}, `["SELECT ?",-9223372036854775808]`},
	} {
		got, err := encode([]statement{c.statement})
		if err != nil || string(got) != "["+c.want+"]" {
			t.Errorf("%v is encoded as %s, %v; want [%s]", c.statement, got, err, c.want)
		}
	}
	if _, err := encode([]statement{{"SELECT ?", []any{make(chan int)}}}); err == nil {
		t.Error("a channel is a parameter")
	}
}

func TestRowsOfRqliteAreScannedAsThoseOfSQLite(t *testing.T) {
	t.Parallel()
	var n int64
	var b bool
	var s string
	var m Mode
	var octets, none []byte
	var missing, there *string
	row := rqliteRow(`[9223372036854775807, 1, "text", "etrn", [0, 255], null, null, "there"]`)
	if err := row.Scan(&n, &b, &s, &m, &octets, &none, &missing, &there); err != nil {
		t.Fatal(err)
	}
	if n != math.MaxInt64 || !b || s != "text" || m != ETRN || string(octets) != "\x00\xff" || none != nil || missing != nil || *there != "there" {
		t.Error(n, b, s, m, octets, none, missing, there)
	}
	for _, bad := range []struct {
		row  string
		into any
	}{
		{"[null]", &n}, {`["text"]`, &n}, {"[2]", &b}, {"[1.5]", &n}, {"[9223372036854775808]", &n}, {"[[256]]", &octets}, {`[["a"]]`, &octets}, {"[true]", &b}, {"{}", &n}, {"", &n},
		{`["a", "b"]`, &s}, {"[]", &s},
	} {
		if err := rqliteRow(bad.row).Scan(bad.into); err == nil {
			t.Errorf("%s fits into %T", bad.row, bad.into)
		}
	}
}
