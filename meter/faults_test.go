package meter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A fault is what becomes of a request on its way to a node. done has the node do it, and is how the answer comes.
type fault func(w http.ResponseWriter, done func() []byte)

// faulty is the engine of a node with something in between that goes wrong while fail is set, and tells of it in a channel.
type faulty struct {
	*rqlite
	node   *rqlite // without it
	fail   atomic.Pointer[fault]
	failed chan struct{}
}

func newFaulty(t *testing.T) *faulty {
	t.Helper()
	f := &faulty{node: oneNode(t), failed: make(chan struct{}, 100)}
	to, err := url.Parse(f.node.nodes.urls[0])
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(to)
	between := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fail := f.fail.Load()
		if fail == nil {
			proxy.ServeHTTP(w, r)
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		defer func() { f.failed <- struct{}{} }()
		(*fail)(w, func() []byte {
			again, err := http.NewRequest(r.Method, to.String()+r.URL.RequestURI(), bytes.NewReader(body))
			if err != nil {
				t.Error(err)
				return nil
			}
			again.Header.Set("Content-Type", "application/json")
			answer, err := http.DefaultClient.Do(again)
			if err != nil {
				t.Error(err)
				return nil
			}
			defer answer.Body.Close()
			text, _ := io.ReadAll(answer.Body)
			return text
		})
	}))
	t.Cleanup(between.Close)
	f.rqlite = newRqlite(Scheme+strings.TrimPrefix(between.URL, "http://"), Options{Create: true})
	if err := f.check(t.Context()); err != nil {
		t.Fatal(err)
	}
	return f
}

// cut ends the connection of an answer, behind what is there of it.
func cut(w http.ResponseWriter, answer string) {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	_, _ = buffered.WriteString(answer)
	_ = buffered.Flush()
}

// says answers with a status and a text.
func says(status int, text string) fault {
	return func(w http.ResponseWriter, _ func() []byte) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	}
}

// once is a batch that must not be done twice, and rounds how often it was done.
var once = statement{sql: "UPDATE host SET seen = seen + 1 WHERE id = 1"}

func rounds(t *testing.T, e *rqlite) (n int) {
	t.Helper()
	if err := e.query(t.Context(), current, query{statement{sql: "SELECT seen FROM host WHERE id = 1"}, func(r scanner) error { return r.Scan(&n) }}); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestABatchIsDoneOnceWhateverBecomesOfItsRequests has each go wrong until it heals, and until the writer gives up; then what is still
// on its way arrives.
func TestABatchIsDoneOnceWhateverBecomesOfItsRequests(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		fail    fault
		unknown bool // whether it was done; else it certainly was not
		done    bool
		stays   bool // it is not tried again
	}{
		{name: "the request is lost", unknown: true, fail: func(w http.ResponseWriter, _ func() []byte) { cut(w, "") }},
		{name: "the answer is lost", unknown: true, done: true, fail: func(w http.ResponseWriter, done func() []byte) { done(); cut(w, "") }},
		{name: "the answer is cut", unknown: true, done: true, fail: func(w http.ResponseWriter, done func() []byte) {
			answer := done()
			cut(w, fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(answer), answer[:len(answer)/2]))
		}},
		{name: "the leader lost its lead", unknown: true, fail: says(http.StatusOK, `{"results":[],"error":"leadership lost while committing log"}`)},
		{name: "the leader lost its lead when it was done", unknown: true, done: true, fail: func(w http.ResponseWriter, done func() []byte) {
			done()
			_, _ = io.WriteString(w, `{"results":[],"error":"leadership lost while committing log"}`)
		}},
		{name: "the disk of one node is full", unknown: true, done: true, fail: func(w http.ResponseWriter, done func() []byte) {
			done()
			_, _ = io.WriteString(w, `{"results":[{"error":"database or disk is full"}]}`)
		}},
		{name: "a proxy waited in vain", unknown: true, done: true, fail: func(w http.ResponseWriter, done func() []byte) {
			done()
			w.WriteHeader(http.StatusGatewayTimeout)
		}},
		{name: "it is no node", unknown: true, fail: says(http.StatusOK, "<html>It works!</html>")},
		{name: "it is no node, and speaks JSON", unknown: true, fail: says(http.StatusOK, "{}")},
		{name: "it is elsewhere", unknown: true, fail: func(w http.ResponseWriter, _ func() []byte) {
			w.Header().Set("Location", "/")
			w.WriteHeader(http.StatusMovedPermanently)
		}},
		{name: "there is no leader", fail: says(http.StatusServiceUnavailable, "leader not found\n")},
		{name: "the credentials are wrong", fail: says(http.StatusUnauthorized, ""), stays: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFaulty(t)
			var late []func() []byte
			fail := fault(func(w http.ResponseWriter, done func() []byte) {
				late = append(late, done)
				c.fail(w, done)
			})
			write := func(ctx context.Context) chan error {
				f.fail.Store(&fail)
				result := make(chan error, 1)
				go func() {
					_, err := f.write(ctx, newToken(), []statement{once})
					result <- err
				}()
				<-f.failed
				return result
			}
			arrive := func() {
				t.Helper()
				for _, done := range late {
					if answer := done(); !bytes.Contains(answer, []byte("applied.token")) {
						t.Errorf("a late request is answered by %s", answer)
					}
				}
				late = nil
			}

			want := 0
			if !c.stays {
				result := write(t.Context())
				select {
				case <-f.failed:
				case err := <-result:
					t.Fatalf("it is not tried again after %v", err)
				}
				f.fail.Store(nil)
				if err := <-result; err != nil {
					t.Errorf("when it heals: %v", err)
				}
				want++
				arrive()
				if got := rounds(t, f.node); got != want {
					t.Errorf("a batch was done %d times", got)
				}
			}

			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			giveUp := func() error {
				result := write(ctx)
				if !c.stays {
					cancel()
				}
				return <-result
			}
			if !c.unknown && !c.stays { // an attempt that is cancelled may have been heard
				giveUp = func() error {
					f.fail.Store(&fail)
					return f.nodes.do(ctx, request{path: execute, body: []byte(`["UPDATE host SET seen = 100"]`), writes: true, slow: time.Hour, answer: results(1, nil, failed)})
				}
			}
			if err := giveUp(); err == nil || errors.Is(err, errUnknown) != c.unknown {
				t.Errorf("whoever gives up is told %v; want that it is not known: %t", err, c.unknown)
			}
			f.fail.Store(nil)
			if c.done {
				want++
			}
			if _, err := f.write(t.Context(), newToken(), []statement{once}); err != nil {
				t.Error(err)
			}
			want++
			if c.unknown {
				arrive()
			}
			if got := rounds(t, f.node); got != want {
				t.Errorf("batches were done %d times; want %d", got, want)
			}
			if len(f.unknown) > 0 {
				t.Errorf("%q are still to be burnt", f.unknown)
			}
		})
	}
}

// TestABatchThatFailedIsNotDoneLater loses the first request on its way, has the next one fail, and lets the first one arrive when it
// would succeed.
func TestABatchThatFailedIsNotDoneLater(t *testing.T) {
	t.Parallel()
	f := newFaulty(t)
	write := func(s statement) error {
		_, err := f.write(t.Context(), newToken(), []statement{s})
		return err
	}
	if err := write(statement{sql: "INSERT INTO host (id, name) VALUES (2, 'mx-b')"}); err != nil {
		t.Fatal(err)
	}
	var late func() []byte
	lost := fault(func(w http.ResponseWriter, done func() []byte) {
		late = done
		f.fail.Store(nil)
		cut(w, "")
	})
	f.fail.Store(&lost)
	err := write(statement{sql: "INSERT INTO host (id, name) VALUES (3, 'mx-b')"})
	if !violates(err, "UNIQUE constraint failed: host.name") || !errors.Is(err, errUnknown) {
		t.Errorf("a second host of a name: %v", err)
	}
	if err := write(statement{sql: "DELETE FROM host WHERE id = 2"}); err != nil {
		t.Fatal(err)
	}
	if answer := late(); !bytes.Contains(answer, []byte("applied.token")) {
		t.Errorf("the late request is answered by %s", answer)
	}
}

// TestNodesWithOtherTablesGetNoLedger has nodes that somebody else keeps something in.
func TestNodesWithOtherTablesGetNoLedger(t *testing.T) {
	t.Parallel()
	e := oneNode(t)
	e.opt.Create = true
	if err := e.post(t.Context(), []statement{{sql: "CREATE TABLE account (id INTEGER)"}}, writesWithin); err != nil {
		t.Fatal(err)
	}
	if err := e.check(t.Context()); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "tables of its own") {
		t.Errorf("the tables are made: %v", err)
	}
}

// TestWhatNobodyHeardWasNotDone has nobody listen.
func TestWhatNobodyHeardWasNotDone(t *testing.T) {
	t.Parallel()
	f := newFaulty(t)
	url := f.nodes.urls[0]
	f.nodes.urls[0] = "http://127.0.0.1:1"
	ctx, cancel := context.WithTimeout(t.Context(), writesWithin/20)
	defer cancel()
	if _, err := f.write(ctx, newToken(), []statement{once}); err == nil || errors.Is(err, errUnknown) {
		t.Errorf("write = %v where nobody listens", err)
	}
	f.nodes.urls[0] = url
	if _, err := f.write(t.Context(), newToken(), []statement{once}); err != nil || rounds(t, f.node) != 1 {
		t.Errorf("write = %v, done %d times", err, rounds(t, f.node))
	}
}

// TestAReadIsHandedOverOnce has answers of reads go wrong.
func TestAReadIsHandedOverOnce(t *testing.T) {
	t.Parallel()
	f := newFaulty(t)
	fail := fault(func(w http.ResponseWriter, done func() []byte) {
		answer := done()
		cut(w, fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(answer), answer[:len(answer)-2]))
	})
	f.fail.Store(&fail)
	go func() {
		<-f.failed
		<-f.failed
		f.fail.Store(nil)
	}()
	rows := 0
	err := f.read(t.Context(), current, query{statement{sql: "SELECT value FROM json_each('[1,2,3]') ORDER BY value"}, func(scanner) error { rows++; return nil }})
	if err != nil || rows != 3 {
		t.Errorf("read = %v, %d rows; want 3", err, rows)
	}
}

// TestABackupIsWhole has one end half-way, like one that is whole.
func TestABackupIsWhole(t *testing.T) {
	t.Parallel()
	f := newFaulty(t)
	fail := fault(func(w http.ResponseWriter, done func() []byte) {
		answer := done()
		_, _ = w.Write(answer[:len(answer)/2])
		_, _ = io.WriteString(w, "unexpected EOF\n")
	})
	f.fail.Store(&fail)
	go func() {
		<-f.failed
		<-f.failed
		f.fail.Store(nil)
	}()
	path := filepath.Join(t.TempDir(), "copy.db")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.backup(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	if _, err := CheckBackup(t.Context(), path, true); err != nil {
		t.Error(err)
	}
}

// TestANodeThatHasJustComeUpLacksNobody has the own node answer without tables, and with what the others have where it has to ask.
func TestANodeThatHasJustComeUpLacksNobody(t *testing.T) {
	t.Parallel()
	f := newFaulty(t)
	to, err := url.Parse(f.node.nodes.urls[0])
	if err != nil {
		t.Fatal(err)
	}
	var looks atomic.Int64
	proxy := httputil.NewSingleHostReverseProxy(to)
	empty := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("level") != "none" {
			proxy.ServeHTTP(w, r)
			return
		}
		looks.Add(1)
		_, _ = io.WriteString(w, `{"results":[{"error":"no such table: host"}]}`)
	}))
	t.Cleanup(empty.Close)
	for _, others := range []string{"", "," + to.Host} {
		e := newRqlite(Scheme+strings.TrimPrefix(empty.URL, "http://")+others, Options{})
		looks.Store(0)
		id := 0
		err := e.query(t.Context(), near, query{statement{sql: "SELECT id FROM host"}, func(r scanner) error { return r.Scan(&id) }})
		if err != nil || id != 1 || looks.Load() != 1 {
			t.Errorf("with others %q: %v, host %d after %d answers; want 1", others, err, id, looks.Load())
		}
		if got := e.query(t.Context(), current, query{statement{sql: "SELECT nothing FROM nowhere"}, nil}); !errors.Is(got, ErrUnavailable) || errors.Is(got, errUnknown) {
			t.Errorf("what nobody has ends with %v", got)
		}
	}
}
