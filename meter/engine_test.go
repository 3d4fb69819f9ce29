package meter

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	rqlitetest "mailbag/testdata/rqlite"
)

// engineVariable names the engine on which all tests of the package run, for one that is no peer of SQLite alone:
// "twice" writes each batch twice, "shadow" sees to it that it does the same whatever order SQLite reads in, and "rqlite" has
// a node of rqlite in place of each file.
const engineVariable = "MAILBAG_TEST_ENGINE"

// chooseEngine has all ledgers of the tests be of the engine that the environment asks for.
func chooseEngine() {
	of := newEngine
	switch kind := os.Getenv(engineVariable); kind {
	case "":
	case "twice":
		newEngine = inFiles(of, func(e engine) engine { return twice{e} })
	case "rqlite":
		if err := rqlitetest.Available(); err != nil {
			fmt.Println("skipped:", err)
			os.Exit(0)
		}
		newEngine = onRqlite
	case "shadow":
		newEngine = inFiles(of, func(e engine) engine { return shadow{e.(*sqlite)} })
	default:
		panic(engineVariable + " is " + kind)
	}
}

// inFiles has ledgers in files be of another engine.
func inFiles(of func(string, Options) engine, other func(engine) engine) func(string, Options) engine {
	return func(path string, opt Options) engine {
		e := of(path, opt)
		if Remote(path) {
			return e
		}
		return other(e)
	}
}

// idleNodes are those that stand for no file at the moment.
var idleNodes rqlitetest.Pool

// rqliteNodes are the nodes that stand for files, by their paths: functions that start one, or take one that is idle.
var rqliteNodes sync.Map

// onRqlite is the engine of a node that stands for a file: for one that is missing or empty, for a backup is one.
func onRqlite(path string, opt Options) engine {
	if Remote(path) {
		return newRqlite(path, opt)
	}
	if info, err := os.Stat(path); err == nil && info.Size() > 0 {
		return &sqlite{path: path, opt: opt}
	}
	node, _ := rqliteNodes.LoadOrStore(path, sync.OnceValue(func() *rqlitetest.Nodes {
		nodes, err := idleNodes.Take(context.Background())
		if err != nil {
			panic(err)
		}
		return nodes
	}))
	return newRqlite(node.(func() *rqlitetest.Nodes)().Address(0), opt)
}

// addressOf is what another process calls the ledger.
func addressOf(l *Ledger) string {
	if e, ok := l.engine.(*rqlite); ok {
		return Scheme + strings.TrimPrefix(e.nodes.urls[0], "http://")
	}
	return l.path
}

// retire has the node that stands for a file stand for another one.
func retire(path string) {
	if node, found := rqliteNodes.LoadAndDelete(path); found {
		idleNodes.Give(node.(func() *rqlitetest.Nodes)())
	}
}

// needsFile skips a test of what only a ledger in one file has.
func needsFile(t testing.TB) {
	t.Helper()
	if os.Getenv(engineVariable) == "rqlite" {
		t.Skip("this is about a file")
	}
}

// fileOf is the engine of a ledger that is in one file.
func fileOf(t testing.TB, l *Ledger) *sqlite {
	t.Helper()
	needsFile(t)
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
		// The plans of statements that begin otherwise are not looked at.
		err = readRows(ctx, from, query{statement{sql: "/* all */ SELECT " + strings.Join(columns, " || ',' || ") + " AS line FROM \"" + name + "\" ORDER BY line"}, func(r scanner) error {
			var line string
			err := r.Scan(&line)
			fmt.Fprintln(&all, line)
			return err
		}})
	}
	return all.String(), err
}
