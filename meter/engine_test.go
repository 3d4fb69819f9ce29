package meter

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/google/go-cmp/cmp"
)

// engineVariable names the engine on which all tests of the package run, for one that is no peer of SQLite alone:
// "twice" writes each batch twice, and "shadow" sees to it that it does the same whatever order SQLite reads in.
const engineVariable = "MAILBAG_TEST_ENGINE"

// chooseEngine has all ledgers of the tests be of the engine that the environment asks for.
func chooseEngine() {
	of := newEngine
	switch kind := os.Getenv(engineVariable); kind {
	case "":
	case "twice":
		newEngine = func(path string, opt Options) engine { return twice{of(path, opt)} }
	case "shadow":
		newEngine = func(path string, opt Options) engine { return shadow{of(path, opt).(*sqlite)} }
	default:
		panic(engineVariable + " is " + kind)
	}
}

// fileOf is the engine of a ledger that is in one file.
func fileOf(l *Ledger) *sqlite {
	switch e := l.engine.(type) {
	case twice:
		return e.engine.(*sqlite)
	case shadow:
		return e.sqlite
	default:
		return e.(*sqlite)
	}
}

// twice writes each batch as one does whose answer was lost.
type twice struct{ engine }

func (e twice) write(ctx context.Context, token string, batch []statement) (time.Duration, error) {
	if disk, err := e.engine.write(ctx, token, batch); err != nil {
		return disk, err
	}
	return e.engine.write(ctx, token, batch)
}

// shadow executes each batch twice more and takes it back, once with what has no order in reverse, and compares all tables.
type shadow struct{ *sqlite }

// shadowFaults are what differed.
var shadowFaults sync.Map

// shadowPages is up to what size all tables are compared at each batch.
const shadowPages = 500

func (e shadow) write(ctx context.Context, token string, batch []statement) (time.Duration, error) {
	if err := e.compare(ctx, batch); err != nil {
		shadowFaults.Store(err.Error(), true)
	}
	return e.sqlite.write(ctx, token, batch)
}

func (e shadow) compare(ctx context.Context, batch []statement) error {
	file, err := e.current(ctx)
	if err != nil {
		return nil
	}
	var pages int
	if err := file.read.QueryRowContext(ctx, "PRAGMA page_count").Scan(&pages); err != nil || pages > shadowPages {
		return nil
	}
	conn, err := file.write.Conn(ctx)
	if err != nil {
		return nil
	}
	defer conn.Close()
	if _, err := conn.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return nil // the write itself will say that it is locked
	}
	defer conn.ExecContext(context.WithoutCancel(ctx), "PRAGMA reverse_unordered_selects = OFF; ROLLBACK")
	tables := map[string]string{}
	for _, reversed := range []string{"OFF", "ON"} {
		if tables[reversed], err = tried(ctx, conn, reversed, batch); err != nil {
			return nil // as the write will
		}
	}
	if tables["OFF"] == tables["ON"] {
		return nil
	}
	var text strings.Builder
	for _, s := range batch {
		fmt.Fprintf(&text, "%s %v\n", s.sql, s.args)
	}
	return fmt.Errorf("what it does depends on the order in which SQLite reads: %s\n%s", &text, cmp.Diff(strings.Split(tables["OFF"], "\n"), strings.Split(tables["ON"], "\n")))
}

// tried are all tables as they would be after a batch.
func tried(ctx context.Context, conn *sql.Conn, reversed string, batch []statement) (tables string, err error) {
	if _, err := conn.ExecContext(ctx, "PRAGMA reverse_unordered_selects = "+reversed+"; SAVEPOINT before"); err != nil {
		return "", err
	}
	for _, s := range batch {
		if _, err := conn.ExecContext(ctx, s.sql, s.args...); err != nil {
			return "", err
		}
	}
	if tables, err = dump(ctx, conn); err == nil {
		_, err = conn.ExecContext(ctx, "ROLLBACK TO before")
	}
	return tables, err
}

// dump is the text of all rows of all tables.
func dump(ctx context.Context, from querier) (string, error) {
	var names []string
	err := readRows(ctx, from, query{statement{sql: "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_stat%' ORDER BY name"}, func(r scanner) error {
		names = append(names, "")
		return r.Scan(&names[len(names)-1])
	}})
	var all strings.Builder
	for _, name := range names {
		if err != nil {
			break
		}
		var columns []string
		err = readRows(ctx, from, query{statement{"SELECT 'quote(\"' || name || '\")' FROM pragma_table_info(?) ORDER BY cid", []any{name}}, func(r scanner) error {
			columns = append(columns, "")
			return r.Scan(&columns[len(columns)-1])
		}})
		if err != nil {
			break
		}
		fmt.Fprintln(&all, name)
		err = readRows(ctx, from, query{statement{sql: "SELECT " + strings.Join(columns, " || ',' || ") + " AS line FROM \"" + name + "\" ORDER BY line"}, func(r scanner) error {
			var line string
			err := r.Scan(&line)
			fmt.Fprintln(&all, line)
			return err
		}})
	}
	return all.String(), err
}
