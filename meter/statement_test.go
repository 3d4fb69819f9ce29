package meter

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/mattn/go-sqlite3"
)

// TestMain has SQLite say how it would execute every statement that the tests of the package did.
func TestMain(m *testing.M) {
	if where := os.Getenv(dyingAt); where != "" {
		die(where, os.Getenv(dyingWith), os.Getenv(dyingBeside))
	}
	flag.Parse()
	sql.Register("listener", listener{})
	driverName = "listener"
	chooseEngine()
	status := m.Run()
	idleNodes.Stop()
	shadowFaults.Range(func(fault, _ any) bool {
		fmt.Println(fault)
		status = 1
		return true
	})
	whole := os.Getenv(engineVariable) == ""
	for _, narrows := range []string{"run", "skip", "list", "fuzz", "bench"} {
		whole = whole && flag.Lookup("test."+narrows).Value.String() == ""
	}
	if status == 0 && whole {
		faults, err := planFaults()
		if err != nil {
			faults = append(faults, err.Error())
		}
		for _, fault := range faults {
			fmt.Println(fault)
			status = 1
		}
	}
	os.Exit(status)
}

// large are the tables that have more rows than a ledger has accounts, domains and months.
var large = []string{"message", "usage", "turn", "pop_session", "waiting", "change", "recipient",
	"credential", "mailbox", "invoice", "adjustment", "notice", "domain_usage", "month_usage"}

// allowed are steps that go through a large table, or sort what they find there, in statements by a part of their text.
var allowed = []struct{ text, step string }{
	// What is read is all that there is, as of one moment.
	{"stored_key, server_key, cram_md5 FROM credential", "SCAN credential"},
	{"FROM message GROUP BY account, day", "SCAN message USING INDEX message_at"}, // a check
	{"FROM message GROUP BY account, day", "USE TEMP B-TREE FOR GROUP BY"},
	{"FROM message, json_each(domains) GROUP BY 1, 2, 3", "SCAN message"},
	{"FROM message, json_each(domains) GROUP BY 1, 2, 3", "USE TEMP B-TREE FOR GROUP BY"},
	{"FROM message m JOIN archive a", "SCAN m"},
	{"FROM message AS m, json_each(domains)", "SCAN m"},
	{"FROM message AS m, json_each(domains)", "USE TEMP B-TREE FOR GROUP BY"},
	{"FROM month_usage m JOIN account", "SCAN m"}, // a check
	// The few that are taken back.
	{"SET messages = usage.messages - w.messages", "USE TEMP B-TREE FOR GROUP BY"},
	{"SET messages = domain_usage.messages - w.messages", "USE TEMP B-TREE FOR GROUP BY"},
	// In the order of an index, as far as the limit.
	{"FROM turn r JOIN account a ON a.id = r.account ORDER BY", "SCAN r USING INDEX turn_began"},
	{"FROM pop_session r JOIN account a ON a.id = r.account ORDER BY", "SCAN r USING INDEX pop_session_began"},
	// An index of what is open, which is little.
	{"UPDATE turn", "SCAN turn USING INDEX turn_open"},
	{"FROM notice WHERE sent IS NULL", "SCAN notice USING INDEX notice_unsent"},
	// The newest row.
	{"FROM change ORDER BY id DESC LIMIT 1", "SCAN change"},
	// What operators enter by hand.
	{"FROM adjustment WHERE month", "SCAN adjustment"},
	{"FROM adjustment WHERE month", "SEARCH d USING AUTOMATIC COVERING INDEX"},
	// A row for each account, one account's mailboxes, and messages under which connections broke are sorted.
	{"b JOIN account a ON a.id = b.id ", "USE TEMP B-TREE FOR ORDER BY"},
	{"SELECT a.id FROM account a\n\t\tLEFT JOIN month_usage", "USE TEMP B-TREE FOR ORDER BY"},
	// All that waits, once for somebody who looks.
	{"SELECT a.mode, sum(w.messages)", "SCAN waiting USING COVERING INDEX waiting_order"},
	{"SELECT a.mode, sum(w.messages)", "USE TEMP B-TREE FOR GROUP BY"},
	// Of some thousand accounts, next to each other.
	{"FROM waiting WHERE account BETWEEN ?1 AND ?2", "USE TEMP B-TREE FOR GROUP BY"},
	{"json_group_array(id) FROM (SELECT o.id", "USE TEMP B-TREE FOR ORDER BY"}, // a list for each domain of an account
	{"json_each(?) AS a CROSS JOIN message", "USE TEMP B-TREE FOR ORDER BY"},   // a page of evidence
	{"document FROM account_document", "USE TEMP B-TREE FOR ORDER BY"},
	{"AND suspicion >= ?", "USE TEMP B-TREE FOR ORDER BY"},
}

// statistics are those of the ledger of [fillLarge], as ANALYZE has them: table, index, rows and how many of them have the
// same first columns.
const statistics = `
	('account', 'sqlite_autoindex_account_1', '10000 1'),
	('adjustment', 'adjustment_account', '100 1 1'),
	('change', 'change_account', '30000 3 1'),
	('credential', 'credential', '20000 1'),
	('credential', 'credential_account', '20000 8'),
	('domain', 'domain', '10000 1'),
	('domain', 'sqlite_autoindex_domain_2', '10000 1 1'),
	('mailbox', 'mailbox', '20000 1'),
	('mailbox', 'mailbox_domain', '20000 8 8'),
	('domain_usage', 'domain_usage', '30000 10000 1 1'),
	('message', 'message', '3000000 1 1'),
	('message', 'message_at', '3000000 375 2'),
	('month_usage', 'month_usage', '30000 10000 1'),
	('notice', 'notice_made', '60000 1'),
	('notice', 'notice_once', '10000 2 1 1'),
	('pop_session', 'pop_session_account', '1000000 400 1'),
	('pop_session', 'pop_session_began', '1000000 1'),
	('pop_session', 'pop_session_idle', '20000 8 4 1'),
	('recipient', 'recipient', '500000 50 1'),
	('recipient_list', 'recipient_list_domain', '10000 1'),
	('recipient_list', 'sqlite_autoindex_recipient_list_1', '10000 1 1'),
	('turn', 'turn', '300000 1'),
	('turn', 'turn_account', '300000 38 1'),
	('turn', 'turn_began', '300000 1'),
	('usage', 'usage', '3248062 325 1'),
	('waiting', 'waiting', '200000 200000 1 1 1'),
	('waiting', 'waiting_domain', '198000 2000 2000 2000 1 1 1 1 1'),
	('waiting', 'waiting_order', '198000 2000 2000 1 1 1 1 1 1')`

// planFaults says which statements go through a large table or sort what they find there, and which ones of the
// package no test executed. SQLite plans by the schema alone where it has no statistics, as in every ledger that nobody
// analyzed by hand, and else by these; so an empty ledger shows what becomes of one with millions of rows.
func planFaults() (faults []string, err error) {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	ctx := context.Background()
	l, err := Open(ctx, filepath.Join(dir, "mailbag.db"), Options{Create: true})
	if err != nil {
		return nil, err
	}
	defer l.Close()
	literals, tests, err := literals()
	if err != nil {
		return nil, err
	}
	all := heard.list()
	for _, text := range literals {
		if strings.Contains(text, " seen") { // of a pass over the queue, which is no part of the ledger
			continue
		}
		if !slices.ContainsFunc(all, func(h heardStatement) bool { return strings.Contains(h.text, text) }) {
			faults = append(faults, "no test executes\n"+text)
		}
	}
	for _, text := range heard.untold {
		if slices.ContainsFunc(literals, func(literal string) bool { return strings.Contains(text, literal) }) && !slices.Contains(tests, text) {
			faults = append(faults, "no line of the history tells of\n"+text)
		}
	}
	all = slices.DeleteFunc(all, func(h heardStatement) bool {
		return !statementText.MatchString(h.text) || slices.Contains(tests, h.text) || !slices.ContainsFunc(literals, func(text string) bool { return strings.Contains(h.text, text) })
	})
	needed := make([]bool, len(allowed))
	for _, prepare := range []string{"", "ANALYZE; DELETE FROM sqlite_stat1; INSERT INTO sqlite_stat1 VALUES " + statistics} {
		if err := l.batch(ctx, statement{sql: prepare}); err != nil {
			return nil, err
		}
		l.Close() // statistics are read at the beginning
		for _, h := range all {
			plan, err := planOf(ctx, l, h.text, h.args...)
			if err != nil {
				return nil, fmt.Errorf("%w of\n%s", err, h.text)
			}
			for _, step := range slow(h.text, plan) {
				excused := false
				for i, a := range allowed {
					if strings.Contains(h.text, a.text) && strings.HasPrefix(step, a.step) {
						excused, needed[i] = true, true
					}
				}
				if !excused {
					faults = append(faults, fmt.Sprintf("%s\nis slow (with statistics: %t) because of %q in\n%s", h.text, prepare != "", step, plan))
				}
			}
		}
	}
	for i, a := range allowed {
		if !needed[i] {
			faults = append(faults, fmt.Sprintf("no statement needs any more what is allowed for %q: %q", a.text, a.step))
		}
	}
	return faults, nil
}

// slow returns the steps of a plan that go through a large table, or sort or index what was found in one.
func slow(text, plan string) (steps []string) {
	var finds bool
	for step := range strings.Lines(plan) {
		step = strings.TrimSpace(step)
		verb, rest, _ := strings.Cut(step, " ")
		name, _, _ := strings.Cut(rest, " ")
		isLarge := slices.ContainsFunc(large, func(table string) bool { return named(text, table, name) })
		finds = finds || isLarge
		switch {
		case verb == "SCAN" && isLarge, strings.Contains(step, "AUTOMATIC"), finds && strings.Contains(step, "TEMP B-TREE"):
			steps = append(steps, step)
		}
	}
	return steps
}

// named reports whether the statement calls the table so.
func named(text, table, name string) bool {
	return name == table || regexp.MustCompile(`\b`+table+`( AS)? `+regexp.QuoteMeta(name)+`\b`).MatchString(text)
}

// statementText is how a statement begins.
var statementText = regexp.MustCompile(`^\s*(SELECT|INSERT|UPDATE|DELETE|WITH)\b`)

// literals are the beginnings of statements in the source of the package, and in that of its tests.
func literals() (own, tests []string, err error) {
	names, err := filepath.Glob("*.go")
	if err != nil {
		return nil, nil, err
	}
	for _, name := range names {
		if name == "rqlite.go" || name == "tables.go" || name == "fill.go" || name == "nodelook.go" { // whose statements nodes execute
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, nil, err
		}
		to := &own
		if strings.HasSuffix(name, "_test.go") {
			to = &tests
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if l, is := n.(*ast.BasicLit); is && l.Kind == token.STRING {
				if text, err := strconv.Unquote(l.Value); err == nil && statementText.MatchString(text) {
					*to = append(*to, text)
				}
			}
			return true
		})
	}
	return own, tests, nil
}

// heard are the statements that were executed, each once.
var heard statements

type statements struct {
	mu     sync.Mutex
	args   map[string][]driver.NamedValue
	untold []string // that changed what a Directory shows, without a line by which those who follow it would know
}

func (s *statements) addUntold(texts []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.untold = append(s.untold, texts...)
}

type heardStatement struct {
	text string
	args []any
}

func (s *statements) add(text string, args []driver.NamedValue) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.args == nil {
		s.args = map[string][]driver.NamedValue{}
	}
	s.args[text] = args
}

func (s *statements) list() (list []heardStatement) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for text, args := range s.args {
		h := heardStatement{text: text}
		for _, arg := range args {
			if arg.Name != "" {
				h.args = append(h.args, sql.Named(arg.Name, arg.Value))
			} else {
				h.args = append(h.args, arg.Value)
			}
		}
		list = append(list, h)
	}
	slices.SortFunc(list, func(a, b heardStatement) int { return strings.Compare(a.text, b.text) })
	return list
}

// listener is the ledger's driver, and hears what it is to execute.
type listener struct{}

func (listener) Open(dsn string) (driver.Conn, error) {
	c, err := (&sqlite3.SQLiteDriver{ConnectHook: prepare}).Open(dsn)
	if err != nil {
		return nil, err
	}
	return &listening{SQLiteConn: c.(*sqlite3.SQLiteConn)}, nil
}

type listening struct {
	*sqlite3.SQLiteConn
	changed []string // what the transaction changed of what a Directory shows
	told    bool     // it has a line of the history
}

// ofDirectory are statements that change what a Directory shows.
var ofDirectory = regexp.MustCompile(`^\s*(INSERT( OR IGNORE)? INTO|UPDATE|DELETE FROM) (account|domain|network|mailbox|recipient|credential|plan)\b`)

// ofNobody are parts of those that change recipient lists which are not in force yet, or no more.
var ofNobody = []string{
	"SELECT value ->> 0, value ->> 1 FROM json_each(?)",
	"SELECT ?, address FROM recipient WHERE list = ?",
	"list IN (SELECT id FROM recipient_list WHERE domain IS NULL)",
}

func (c *listening) ExecContext(ctx context.Context, text string, args []driver.NamedValue) (driver.Result, error) {
	heard.add(text, args)
	if ofDirectory.MatchString(text) && !slices.ContainsFunc(ofNobody, func(part string) bool { return strings.Contains(text, part) }) {
		c.changed = append(c.changed, text)
	}
	c.told = c.told || strings.Contains(text, "INSERT INTO change")
	return c.SQLiteConn.ExecContext(ctx, text, args)
}

func (c *listening) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	c.changed, c.told = nil, false
	tx, err := c.SQLiteConn.BeginTx(ctx, opts)
	return listeningTx{tx, c}, err
}

// listeningTx hears that what was executed is to stay.
type listeningTx struct {
	driver.Tx
	c *listening
}

func (tx listeningTx) Commit() error {
	if !tx.c.told {
		heard.addUntold(tx.c.changed)
	}
	return tx.Tx.Commit()
}

func (c *listening) QueryContext(ctx context.Context, text string, args []driver.NamedValue) (driver.Rows, error) {
	heard.add(text, args)
	return c.SQLiteConn.QueryContext(ctx, text, args)
}
