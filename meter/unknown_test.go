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
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	rqlitetest "mailbag/testdata/rqlite"
)

// A fate is what becomes of a commit whose answer is lost.
type fate string

const (
	wasDone   fate = "it is done"
	neverDone fate = "it is not done"
	doneLater fate = "it is done later"
)

// unsure is an engine that does not tell how the writes of a batch with a text in its parameters ended.
type unsure struct {
	engine
	about string
	fate  fate
}

func (e unsure) write(ctx context.Context, token string, batch []statement) (time.Duration, error) {
	if !counts(fmt.Sprint(batch), e.about) {
		return e.engine.write(ctx, token, batch)
	}
	if e.fate == wasDone {
		if disk, err := e.engine.write(ctx, token, batch); err != nil {
			return disk, err
		}
	}
	return 0, fmt.Errorf("%w: %w", ErrUnavailable, errUnknown)
}

// counts reports whether a batch is one by which a message is counted, and not taken back.
func counts(batch, instance string) bool {
	return strings.Contains(batch, "INSERT INTO message") && strings.Contains(batch, instance)
}

// lost are the requests that have not come to a node yet.
type lost struct {
	node http.Handler

	mu  sync.Mutex
	all []*http.Request
}

func (l *lost) keep(q *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, q)
}

func (l *lost) number() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.all)
}

// arrive has all of them come to the node, which is to answer each of them with a word.
func (l *lost) arrive(t *testing.T, word string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, q := range l.all {
		again := q.Clone(context.Background())
		again.Body, _ = q.GetBody()
		answer := httptest.NewRecorder()
		l.node.ServeHTTP(answer, again)
		if said := answer.Body.String(); !strings.Contains(said, word) {
			t.Errorf("what comes later is answered %s; want %s", said, word)
		}
	}
}

// losing is a ledger on a node of rqlite that is reached by a proxy, which loses all answers to the batches that count
// an instance. With doneLater nothing of them comes to the node until it arrives.
func losing(t *testing.T, about string, fate fate) (*Ledger, *lost) {
	t.Helper()
	if err := rqlitetest.Available(); err != nil {
		t.Skip(err)
	}
	nodes, err := rqlitetest.Start(t.Context(), t.TempDir(), 1, rqlitetest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nodes.Stop)
	node := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: nodes.All[0].HTTP})
	later := &lost{node: node}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, err := io.ReadAll(q.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		q.Body = io.NopCloser(bytes.NewReader(body))
		if !counts(string(body), about) {
			node.ServeHTTP(w, q)
			return
		}
		switch fate {
		case wasDone:
			node.ServeHTTP(httptest.NewRecorder(), q)
		case doneLater:
			again := q.Clone(context.Background())
			again.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
			later.keep(again)
		}
		panic(http.ErrAbortHandler)
	}))
	t.Cleanup(proxy.Close)
	l, err := Open(t.Context(), Scheme+proxy.Listener.Addr().String(), Options{Create: true, Beside: filepath.Join(t.TempDir(), "mailbag")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, later
}

// TestAMessageOfWhichNothingIsKnownIsTakenBack has the answer to a commit lost. Its sender hears an error, and comes again.
func TestAMessageOfWhichNothingIsKnownIsTakenBack(t *testing.T) {
	t.Parallel()
	const about = "lost@1"
	for _, fate := range []fate{wasDone, neverDone, doneLater} {
		for _, on := range []string{"file", "rqlite"} {
			if on == "file" && fate == doneLater { // what a file has not got when it is written to next it never gets
				continue
			}
			t.Run(fmt.Sprint(fate, "/", on), func(t *testing.T) {
				t.Parallel()
				var l *Ledger
				var later *lost
				if on == "file" {
					l = newTestLedger(t, Options{})
					l.engine = unsure{l.engine, about, fate}
				} else {
					l, later = losing(t, about, fate)
				}
				mustAdd(t, l, Account{Name: "globex", Mode: ATRN, Domains: []string{"globex.example"}})
				globex := mustLoad(t, l).Account("globex")
				r := NewRecorder(l, nil)
				defer r.Close()
				message := func(instance string) Message {
					id, _, _ := strings.Cut(instance, "@")
					return Message{Instance: instance, QueueID: id, Size: 10, At: time.Now(), Accounts: []*Account{globex}, Fingerprint: repeated}
				}
				err := r.Record(message(about), func() error {
					t.Error("it is answered")
					return nil
				})
				if !errors.Is(err, ErrUnavailable) || !errors.Is(err, errUnknown) {
					t.Errorf("it ends with %v", err)
				}
				eventually(t, "its place is free", func() bool {
					r.underway.mu.Lock()
					defer r.underway.mu.Unlock()
					return len(r.underway.free) == places
				})
				if fate == doneLater {
					later.arrive(t, "UNIQUE constraint failed: applied.token")
					mustInsert(t, l, "DELETE FROM applied WHERE token < ?", fences) // as after some time
					later.arrive(t, "NOT NULL constraint failed: applied.token")
				}
				if got := used(t, l, globex); got != (Usage{}) {
					t.Errorf("%+v is counted", got)
				}
				if err := r.Record(message("again@1"), nil); err != nil {
					t.Error(err)
				}
				if got := used(t, l, globex); got != (Usage{1, 10}) {
					t.Errorf("with the repetition %+v is counted", got)
				}
				if w, err := l.Waiting(t.Context(), globex.ID); err != nil || w.Messages != 1 {
					t.Errorf("%+v waits, %v", w, err)
				}
			})
		}
	}
}

// blind is an engine that cannot say what there is of the messages that a limit may have kept out.
type blind struct{ engine }

func (e blind) read(ctx context.Context, how freshness, queries ...query) error {
	if strings.Contains(queries[0].sql, "NOT EXISTS (SELECT 1 FROM message") {
		return ErrUnavailable
	}
	return e.engine.read(ctx, how, queries...)
}

func TestAMessageOfWhichALimitIsNotKnownToHaveKeptItOutIsTakenBack(t *testing.T) {
	t.Parallel()
	l, d := twoAccounts(t, Options{})
	acme := d.Account("acme")
	l.engine = blind{l.engine}
	r := NewRecorder(l, nil)
	defer r.Close()
	m := Message{Instance: "a@1", Size: 10, At: noon, Accounts: []*Account{acme}, Limits: map[int64]Usage{acme.ID: {Messages: 5}}}
	if err := r.Record(m, nil); !errors.Is(err, errUnknown) {
		t.Errorf("it ends with %v", err)
	}
	eventually(t, "it is taken back", func() bool { return usageOf(t, l, acme, "2026-02") == Usage{} })
}
