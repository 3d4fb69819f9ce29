package meter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// rqlite is the engine of a ledger that several machines have, each whole: SQLite, replicated by Raft. It speaks the HTTP API
// of rqlite 8 (https://rqlite.io/docs/api/) itself, because what is known after an error is all that matters here, and
// client libraries repeat what must not be repeated.
//
// BUGS: a node whose disk is full goes on without what it could not write, and rqlite does not notice; only the copies' sums tell.
type rqlite struct {
	opt     Options
	nodes   *nodes
	invalid error // what is wrong with the address

	mu      sync.Mutex
	checked bool     // the tables are of this program's version
	unknown []string // tokens of batches of which it is not known whether they were done, or will be
}

// Scheme is what the address of a ledger on nodes begins with.
const Scheme = "rqlite://"

const (
	// writesWithin is for how long a write is tried: a new leader is there after a second, and the MTA waits for longer.
	writesWithin = 10 * time.Second

	// readsWithin is for how long a read is tried where nobody takes it, and slowReads where it has only no answer yet.
	readsWithin = 5 * time.Second
	slowReads   = 30 * time.Second

	// fresh is how far a node may be behind whose own copy is read, unless no node is better.
	fresh = "2s"

	// rqliteRemembers is for how long tokens are known. A node that was stopped may still hand a request on when it goes on: after
	// minutes where its machine was moved or waited for a disk. Clocks of writers may differ by as much. Messages do not depend
	// on it, which a [fence] protects; and it is some ten megabytes of tokens for 100 batches a second.
	rqliteRemembers = time.Hour
)

// execute is where a batch goes. Without noparse rqlite reads statements with a parser of its own, and may write them anew.
const execute = "/db/execute?transaction&noparse"

// Remote reports whether a ledger is on nodes of rqlite, which are named as in rqlite://127.0.0.1:4001,mx-b:4001.
func Remote(address string) bool { return strings.HasPrefix(address, Scheme) }

func newRqlite(address string, opt Options) *rqlite {
	e := &rqlite{opt: opt}
	protocol := "http://"
	if opt.CA != "" {
		protocol = "https://"
	}
	var urls []string
	for node := range strings.SplitSeq(strings.TrimPrefix(address, Scheme), ",") {
		if _, _, err := net.SplitHostPort(node); err != nil {
			e.invalid = fmt.Errorf("%w: %q is no node of rqlite; write %sHOST:PORT, with commas between several", ErrUnavailable, node, Scheme)
		}
		urls = append(urls, protocol+node)
	}
	e.nodes = newNodes(urls, opt)
	return e
}

func (e *rqlite) source(ctx context.Context) (any, error) { return e, e.check(ctx) }

func (e *rqlite) late() bool { return true }

func (e *rqlite) close() error {
	e.nodes.close()
	return nil
}

// distrust has the version of the tables looked at again: what is there now may be another ledger.
func (e *rqlite) distrust(error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.checked = false
}

func (e *rqlite) write(ctx context.Context, token string, batch []statement) (disk time.Duration, err error) {
	if err := e.check(ctx); err != nil {
		return 0, err
	}
	begun := time.Now()
	err = e.once(ctx, token, batch)
	return time.Since(begun), err
}

// once writes a batch, and that those of which nothing is known will not be done any more.
func (e *rqlite) once(ctx context.Context, token string, batch []statement) error {
	e.mu.Lock()
	burnt := slices.Clone(e.unknown)
	e.mu.Unlock()
	all := remember(token, time.Now().Add(-rqliteRemembers))
	if len(burnt) > 0 {
		all = append(all, statement{"INSERT OR IGNORE INTO applied (token) SELECT value FROM json_each(?)", []any{asJSON(burnt)}})
	}
	err := e.post(ctx, append(all, batch...), writesWithin)
	if isDone(err) {
		err = nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case err == nil:
		e.unknown = slices.DeleteFunc(e.unknown, func(token string) bool { return slices.Contains(burnt, token) })
	case errors.Is(err, errUnknown):
		e.unknown = append(e.unknown, token)
	}
	return err
}

// post has statements executed as one.
func (e *rqlite) post(ctx context.Context, batch []statement, within time.Duration) error {
	body, err := encode(batch)
	if err != nil {
		return err
	}
	within += 2 * longer(body)
	return e.nodes.do(ctx, request{path: execute, body: body, writes: true, within: within, slow: within, answer: results(len(batch), nil, failed)})
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
	// A node sees one moment in a transaction only.
	const path = "/db/query?transaction&noparse&blob_array"
	// With weak a leader that was just chosen answers before it has done all that is in its log, and one that only believes to
	// be the leader answers too.
	r := request{path: path + "&level=linearizable", body: body, within: readsWithin, slow: slowReads, answer: results(len(queries), queries, unread)}
	if how == near { // what the node has itself
		r.nearby, r.path, r.otherwise = true, path+"&level=none&freshness_strict&freshness="+fresh, path+"&level=none"
	}
	err = e.nodes.do(ctx, r)
	if how == near && errors.Is(err, errLacking) {
		return e.query(ctx, current, queries...)
	}
	return err
}

// idle is of what no node knows.
func (e *rqlite) idle(context.Context) error { return nil }

func (e *rqlite) backup(ctx context.Context, path string) error {
	return e.nodes.do(ctx, request{path: "/db/backup", within: readsWithin, slow: time.Hour, patience: time.Hour, nearby: true, answer: func(answer io.Reader) error {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		var own *fs.PathError
		if _, err := io.Copy(f, answer); err != nil && !errors.As(err, &own) {
			return &failure{cause: err}
		} else if err != nil {
			return err
		}
		// A node that fails half-way ends its answer like a whole one.
		if _, err := CheckBackup(ctx, path, false); err != nil {
			return &failure{cause: fmt.Errorf("the copy is not whole: %w", err)}
		}
		return f.Close()
	}})
}
