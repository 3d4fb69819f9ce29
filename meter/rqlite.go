package meter

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// rqlite is the engine of a ledger that several machines have, each whole: SQLite, replicated by Raft. It speaks the HTTP API
// of rqlite 8 (https://rqlite.io/docs/api/) itself, because what is known after an error is all that matters here, and
// client libraries repeat what must not be repeated.
//
// A request is tried at one node after the other, and again, with the same token, until its time is over. An attempt ended in
// one of three ways: it was done; it was certainly not done, because nobody took it or a statement of it failed; or that
// is not known, because the answer was lost.
type rqlite struct {
	opt     Options
	nodes   []string // base URLs; the first is that of this machine's own
	http    *http.Client
	invalid error // what is wrong with the address

	mu      sync.Mutex
	at      int      // the node that answered last
	checked bool     // the tables are of this program's version
	unknown []string // tokens of batches of which it is not known whether they were done, or will be
}

// Scheme is what the address of a ledger on nodes begins with.
const Scheme = "rqlite://"

const (
	// writesWithin is for how long a write is tried: a new leader is there after a second, and the MTA waits for longer.
	writesWithin = 10 * time.Second
	readsWithin  = 5 * time.Second

	// attempt is how long one node has for its answer, and more for a long request. One that is stopped answers nobody.
	attempt     = 2 * time.Second
	attemptMore = 2 * time.Second // for each megabyte

	firstPause, lastPause = 20 * time.Millisecond, 250 * time.Millisecond

	// rqliteRemembers is for how long tokens are known: a node that was stopped may still hand a request on when it
	// goes on.
	rqliteRemembers = 24 * time.Hour

	// maxAnswer bounds what is read of an answer that is no result.
	maxAnswer = 4 << 10
)

// Remote reports whether a ledger is on nodes of rqlite, which are named as in rqlite://127.0.0.1:4001,mx-b:4001.
func Remote(address string) bool { return strings.HasPrefix(address, Scheme) }

func newRqlite(address string, opt Options) *rqlite {
	e := &rqlite{opt: opt}
	protocol := "http://"
	if opt.CA != "" {
		protocol = "https://"
	}
	for node := range strings.SplitSeq(strings.TrimPrefix(address, Scheme), ",") {
		if _, _, err := net.SplitHostPort(node); err != nil {
			e.invalid = fmt.Errorf("%w: %q is no node of rqlite; write %sHOST:PORT, with commas between several", ErrUnavailable, node, Scheme)
		}
		e.nodes = append(e.nodes, protocol+node)
	}
	e.http = &http.Client{Transport: &http.Transport{
		DialContext:         (&net.Dialer{Timeout: attempt}).DialContext,
		DialTLSContext:      opt.dialTLS,
		MaxIdleConnsPerHost: maxReaders + 4,
		IdleConnTimeout:     time.Minute,
	}}
	return e
}

func (e *rqlite) source(ctx context.Context) (any, error) { return e, e.check(ctx) }

func (e *rqlite) close() error {
	e.http.CloseIdleConnections()
	return nil
}

// distrust has the version of the tables looked at again: what is there now may be another ledger.
func (e *rqlite) distrust(error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.checked = false
}

// request is one to all nodes.
type request struct {
	path   string
	body   []byte
	within time.Duration
	nearby bool // the own node is asked first, whichever answered last
	answer func(*http.Response) error
}

// A refusal is a node's word that it has done nothing of a request, which others may do.
type refusal string

func (r refusal) Error() string { return string(r) }

// do tries a request until it is answered. The error is that of answer, or an ErrUnavailable, with errUnknown where an attempt
// may have been heard.
func (e *rqlite) do(ctx context.Context, r request) error {
	ctx, cancel := context.WithTimeoutCause(ctx, r.within, ErrUnavailable)
	defer cancel()
	heard := false
	pause := firstPause
	for {
		var last error
		for _, at := range e.order(r.nearby) {
			err := e.try(ctx, at, r)
			var refused refusal
			var never *net.OpError
			switch {
			case err == nil, !errors.Is(err, ErrUnavailable):
				return err
			case errors.As(err, &refused), errors.As(err, &never) && never.Op == "dial":
			default:
				heard = true
			}
			last = err
			if ctx.Err() != nil {
				break
			}
		}
		select {
		case <-ctx.Done():
			if heard {
				last = fmt.Errorf("%w: %w", errUnknown, last)
			}
			return unavailable(last)
		case <-time.After(pause):
		}
		pause = min(2*pause, lastPause)
	}
}

// order is that in which the nodes are asked.
func (e *rqlite) order(nearby bool) []int {
	e.mu.Lock()
	first := e.at
	e.mu.Unlock()
	if nearby {
		first = 0
	}
	order := make([]int, len(e.nodes))
	for i := range order {
		order[i] = (first + i) % len(e.nodes)
	}
	return order
}

func (e *rqlite) try(ctx context.Context, at int, r request) error {
	ctx, cancel := context.WithTimeout(ctx, attempt+time.Duration(len(r.body)>>10)*attemptMore>>10)
	defer cancel()
	method := http.MethodPost
	if r.body == nil {
		method = http.MethodGet
	}
	q, err := http.NewRequestWithContext(ctx, method, e.nodes[at]+r.path, bytes.NewReader(r.body))
	if err != nil {
		return unavailable(err)
	}
	q.Header.Set("Content-Type", "application/json")
	if e.opt.Credentials != "" {
		user, password, err := credentials(e.opt.Credentials)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrUnavailable, refusal(err.Error()))
		}
		q.SetBasicAuth(user, password)
	}
	answer, err := e.http.Do(q)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
		err := fmt.Errorf("%s answers %s: %s", e.nodes[at], answer.Status, bytes.TrimSpace(text))
		switch answer.StatusCode {
		case http.StatusServiceUnavailable, http.StatusUnauthorized, http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed:
			return fmt.Errorf("%w: %w", ErrUnavailable, refusal(err.Error()))
		}
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	err = r.answer(answer)
	if err == nil || !errors.Is(err, ErrUnavailable) {
		e.mu.Lock()
		e.at = at
		e.mu.Unlock()
	}
	return err
}

// credentials are read from a file with a line "user:password" each time, so that they can be changed.
func credentials(path string) (user, password string, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", "", fmt.Errorf("the credentials of the ledger cannot be read: %w", err)
	}
	user, password, found := strings.Cut(strings.TrimSpace(string(text)), ":")
	if !found {
		return "", "", fmt.Errorf("%s has no line USER:PASSWORD", path)
	}
	return user, password, nil
}

func (e *rqlite) write(ctx context.Context, token string, batch []statement) (disk time.Duration, err error) {
	if err := e.check(ctx); err != nil {
		return 0, err
	}
	begun := time.Now()
	return time.Since(begun), e.execute(ctx, token, batch)
}

// execute writes a batch, and that those of which nothing is known will not be done any more.
func (e *rqlite) execute(ctx context.Context, token string, batch []statement) error {
	e.mu.Lock()
	burnt := e.unknown
	e.mu.Unlock()
	all := remember(token, time.Now().Add(-rqliteRemembers))
	if len(burnt) > 0 {
		all = append(all, statement{"INSERT OR IGNORE INTO applied (token) SELECT value FROM json_each(?)", []any{asJSON(burnt)}})
	}
	body, err := encode(append(all, batch...))
	if err != nil {
		return err
	}
	// Without norewrite rqlite reads what it is told with a parser of its own, and may write it anew.
	err = e.do(ctx, request{path: "/db/execute?transaction&noparse", body: body, within: within(writesWithin, body), answer: results(nil)})
	if isDone(err) {
		err = nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case err == nil:
		e.unknown = e.unknown[len(burnt):]
	case errors.Is(err, errUnknown):
		e.unknown = append(e.unknown, token)
	}
	return err
}

// within gives long requests more time.
func within(least time.Duration, body []byte) time.Duration {
	return least + time.Duration(len(body)>>10)*2*attemptMore>>10
}

func (e *rqlite) read(ctx context.Context, how freshness, queries ...query) error {
	if err := e.check(ctx); err != nil {
		return err
	}
	return e.query(ctx, how, queries...)
}

func (e *rqlite) query(ctx context.Context, how freshness, queries ...query) error {
	statements := make([]statement, len(queries))
	for i, q := range queries {
		statements[i] = q.statement
	}
	body, err := encode(statements)
	if err != nil {
		return err
	}
	level := "weak" // the leader's
	if how == near {
		level = "none" // what the node has
	}
	// A node sees one moment in a transaction only.
	return e.do(ctx, request{path: "/db/query?transaction&noparse&blob_array&level=" + level, body: body, within: readsWithin, nearby: how == near, answer: results(queries)})
}

func (e *rqlite) backup(ctx context.Context, path string) error {
	return e.do(ctx, request{path: "/db/backup", within: time.Hour, nearby: true, answer: func(answer *http.Response) error {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, answer.Body)
		return errors.Join(err, f.Close())
	}})
}

// encode makes the body of a request: an array of statements, each an array of its text and its parameters.
func encode(batch []statement) ([]byte, error) {
	lines := make([][]any, len(batch))
	for i, s := range batch {
		text := s.sql
		line := make([]any, 1, 1+len(s.args))
		named := map[string]any{}
		for at, arg := range s.args {
			placeholder := "?" + strconv.Itoa(at+1)
			n, isNamed := arg.(sql.NamedArg)
			if isNamed {
				placeholder, arg = ":"+n.Name, n.Value
			}
			value, err := driver.DefaultParameterConverter.ConvertValue(arg)
			if err != nil {
				return nil, fmt.Errorf("the parameter %s of %s: %w", placeholder, s.sql, err)
			}
			switch v := value.(type) {
			case []byte: // as an array of numbers; encoding/json makes base64 of it
				if v == nil {
					value = nil
					break
				}
				octets := make([]int, len(v))
				for i, b := range v {
					octets[i] = int(b)
				}
				value = octets
			case string:
				if looksLikeBLOB.MatchString(v) {
					text = asText(text, placeholder)
				}
			}
			if isNamed {
				named[n.Name] = value
			} else {
				line = append(line, value)
			}
		}
		if len(named) > 0 {
			line = append(line, named)
		}
		line[0] = text
		lines[i] = line
	}
	return json.Marshal(lines)
}

// looksLikeBLOB matches texts that rqlite takes for the octets that they name.
var looksLikeBLOB = regexp.MustCompile(`(?i)^\s*x'([0-9a-f]{2})*'\s*$`)

// asText has SQLite make a parameter a text again.
func asText(statement, placeholder string) string {
	n := 0
	return lexeme.ReplaceAllStringFunc(statement, func(found string) string {
		name := found
		switch {
		case found == "?":
			n++
			name = "?" + strconv.Itoa(n)
		case found[0] == '?':
			n, _ = strconv.Atoi(found[1:])
		}
		if name == placeholder {
			return "CAST(" + name + " AS TEXT)"
		}
		return found
	})
}

// lexeme matches placeholders, and what they may not be looked for in.
var lexeme = regexp.MustCompile(`'[^']*'|"[^"]*"|--[^\n]*|\?[0-9]*|:[a-z_]+`)

// result is that of one statement.
type result struct {
	Error  string
	Values [][]any
}

// results reads the results of a request, and has the rows of queries read.
func results(queries []query) func(*http.Response) error {
	return func(answer *http.Response) error {
		var all struct {
			Error   string
			Results []result
		}
		in := json.NewDecoder(answer.Body)
		in.UseNumber()
		if err := in.Decode(&all); err != nil {
			return fmt.Errorf("%w: its answer cannot be read: %w", ErrUnavailable, err)
		}
		if all.Error != "" {
			return fmt.Errorf("%w: %s", ErrUnavailable, all.Error)
		}
		for _, r := range all.Results {
			if r.Error != "" {
				return failed(r.Error)
			}
		}
		if len(queries) > 0 && len(all.Results) != len(queries) {
			return fmt.Errorf("%w: of %d queries it answers %d", ErrUnavailable, len(queries), len(all.Results))
		}
		for i, q := range queries {
			for _, values := range all.Results[i].Values {
				if err := q.row(rqliteRow(values)); err != nil {
					return err
				}
			}
		}
		return nil
	}
}

// failed makes an error of the word with which a statement failed, and all of its batch with it.
func failed(word string) error {
	switch {
	case strings.Contains(word, "constraint failed"), strings.HasSuffix(word, "already exists"), word == ErrMonthClosed.Error(), word == invoiceStays:
		return violation(word)
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, refusal(word))
}

// rqliteRow is a row as JSON has it: numbers, texts, arrays of octets, and null.
type rqliteRow []any

func (r rqliteRow) Scan(into ...any) error {
	if len(into) != len(r) {
		return fmt.Errorf("a row has %d columns, and %d are wanted", len(r), len(into))
	}
	for i, value := range r {
		if err := assign(into[i], value); err != nil {
			return fmt.Errorf("column %d of a row: %w", i+1, err)
		}
	}
	return nil
}

// assign copies a value to where a pointer points, as database/sql does.
func assign(into, value any) error {
	switch v := value.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			value = n
		} else if value, err = v.Float64(); err != nil {
			return err
		}
	case []any:
		octets := make([]byte, len(v))
		for i, e := range v {
			n, _ := e.(json.Number)
			octet, err := strconv.ParseUint(string(n), 10, 8)
			if err != nil {
				return err
			}
			octets[i] = byte(octet)
		}
		value = octets
	}
	if s, ok := into.(sql.Scanner); ok {
		return s.Scan(value)
	}
	to := reflect.ValueOf(into).Elem()
	if to.Kind() == reflect.Pointer {
		if value == nil {
			to.SetZero()
			return nil
		}
		to.Set(reflect.New(to.Type().Elem()))
		return assign(to.Interface(), value)
	}
	switch v := value.(type) {
	case int64:
		switch {
		case to.CanInt() && !to.OverflowInt(v):
			to.SetInt(v)
			return nil
		case to.Kind() == reflect.Bool && (v == 0 || v == 1):
			to.SetBool(v == 1)
			return nil
		case to.Kind() == reflect.String:
			to.SetString(strconv.FormatInt(v, 10))
			return nil
		case to.CanFloat():
			to.SetFloat(float64(v))
			return nil
		}
	case float64:
		if to.CanFloat() {
			to.SetFloat(v)
			return nil
		}
	case string:
		switch {
		case to.Kind() == reflect.String:
			to.SetString(v)
			return nil
		case to.Kind() == reflect.Slice && to.Type().Elem().Kind() == reflect.Uint8:
			to.SetBytes([]byte(v))
			return nil
		}
	case []byte:
		if to.Kind() == reflect.Slice && to.Type().Elem().Kind() == reflect.Uint8 {
			to.SetBytes(v)
			return nil
		}
	case nil:
		if to.Kind() == reflect.Slice {
			to.SetZero()
			return nil
		}
	}
	return fmt.Errorf("%v, which is %T, does not fit into %s", value, value, to.Type())
}

// check sees to it that the tables are of this program's version.
func (e *rqlite) check(ctx context.Context) error {
	e.mu.Lock()
	checked := e.checked
	e.mu.Unlock()
	if checked || e.invalid != nil {
		return e.invalid
	}
	for {
		version := 0
		err := e.query(ctx, current, query{statement{sql: "SELECT user_version FROM pragma_user_version"}, func(r scanner) error { return r.Scan(&version) }})
		switch {
		case err != nil:
			return err
		case version > len(migrations):
			return otherVersion(version)
		case version == len(migrations):
			e.mu.Lock()
			e.checked = true
			e.mu.Unlock()
			return nil
		case version == 0 && !e.opt.Create:
			return fmt.Errorf("%w: %s has no tables; make a new ledger by adding an account, or bring one there: mailbag database migrate", ErrNoLedger, e.nodes[0])
		}
		var batch []statement
		if version == 0 {
			batch, err = newTables(ctx)
		} else {
			batch = []statement{{sql: strings.Join(migrations[version:], "")}}
		}
		if err != nil {
			return err
		}
		batch = append(batch, statement{sql: fmt.Sprintf("PRAGMA user_version = %d", len(migrations))})
		// Whoever loses a race against others finds a table there, or the token, and looks again.
		err = e.migrate(ctx, version, batch)
		if err != nil && !strings.Contains(err.Error(), "already exists") && !isDone(err) {
			return err
		}
	}
}

// migrate writes the statements that lead from a version to this program's.
func (e *rqlite) migrate(ctx context.Context, from int, batch []statement) error {
	if from > 0 {
		batch = append([]statement{{"INSERT INTO applied (token) VALUES (?)", []any{fmt.Sprintf("schema-%d", from)}}}, batch...)
	}
	body, err := encode(batch)
	if err != nil {
		return err
	}
	return e.do(ctx, request{path: "/db/execute?transaction&noparse", body: body, within: migrationTakes, answer: results(nil)})
}

// newTables makes the statements for the tables of a new ledger: what an empty file of SQLite becomes by all migrations, one of
// which calls a function of this program, and one of which makes something at random.
func newTables(ctx context.Context) (batch []statement, err error) {
	db, err := sql.Open(driverName, ":memory:")
	if err != nil {
		return nil, unavailable(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	if err := migrate(ctx, db, true); err != nil {
		return nil, told(err)
	}
	key := []byte{}
	err = errors.Join(
		readRows(ctx, db, query{statement{sql: "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' ORDER BY type <> 'table', rowid"}, func(r scanner) error {
			var text string
			err := r.Scan(&text)
			batch = append(batch, statement{sql: text})
			return err
		}}),
		readRows(ctx, db, query{statement{sql: "SELECT key FROM decoy"}, func(r scanner) error { return r.Scan(&key) }}))
	return append(batch, statement{"INSERT INTO decoy (key) VALUES (?)", []any{key}}, statement{sql: "INSERT INTO host (id, name) VALUES (1, '')"}), err
}
