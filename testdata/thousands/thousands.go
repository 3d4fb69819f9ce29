// Package thousands fills a ledger with as many accounts as an ISP has, for tests of what must not take longer for that. It
// writes rows that the programs would have written one by one; nothing in it is for a ledger in use.
package thousands

import (
	"context"
	"database/sql"
	_ "embed"
	"path/filepath"
	"testing"
	"time"

	_ "github.com/mattn/go-sqlite3" // the driver

	"mailbag/meter"
)

//go:embed fill.sql
var fill string

// Ledger makes a ledger of so many accounts in a file of dir, as it is at now, and returns the file's name.
func Ledger(tb testing.TB, dir string, accounts int, now time.Time) string {
	tb.Helper()
	path := filepath.Join(dir, "mailbag.db")
	l, err := meter.Open(context.Background(), path, meter.Options{Create: true})
	if err == nil {
		err = l.Close()
	}
	if err != nil {
		tb.Fatal(err)
	}
	db, err := sql.Open("sqlite3", "file:"+path)
	if err != nil {
		tb.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	for _, s := range []struct {
		text string
		args []any
	}{
		{"PRAGMA journal_mode = off; PRAGMA synchronous = off; PRAGMA cache_size = -500000", nil}, // not everything twice
		{"CREATE TEMP TABLE given AS SELECT ? AS accounts, ? AS now, ? AS today", []any{accounts, now.UnixMilli(), now.UTC().Format(time.DateOnly)}},
		{"BEGIN", nil},
		{fill, nil},
		{"COMMIT", nil},
	} {
		if _, err := db.Exec(s.text, s.args...); err != nil {
			tb.Fatal(err)
		}
	}
	return path
}
