package meter

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"
)

// A Message is one that was accepted for one or more accounts.
type Message struct {
	Instance string // identifies the acceptance: the same message reported again has the same
	QueueID  string
	Size     int64  // octets
	Client   string // IP address
	At       time.Time
	Accounts []*Account // without repeats
	Domains  []string   // of theirs among the recipients; of an account without any here, all may be meant
}

// The least time between the beginnings of two commits is perMessage for each message of the first
// one, and maxInterval at most. A message that comes alone is committed at once, a sender of one
// message after another hardly waits, and where many come at a time they share commits: on a busy
// mail server fsyncs take what Postfix could use. Nobody waits once enough have come.
const (
	perMessage  = 5 * time.Millisecond
	maxInterval = 20 * time.Millisecond
	enough      = 40
)

// A Recorder writes accepted messages to the ledger. Calls that come while a commit is under way
// share the next one, so that many connections cost one fsync.
type Recorder struct {
	ledger *Ledger
	commit func(batch int, took time.Duration, err error)

	mu      sync.Mutex
	pending []pending
	closed  bool

	wake chan struct{} // holds one token while something is pending
	many chan struct{} // and one since enough were
	done sync.WaitGroup
}

type pending struct {
	message Message
	result  chan<- error
}

// ErrClosed is what a closed Recorder answers.
var ErrClosed = errors.New("the recorder is closed")

// NewRecorder starts a recorder. commit, where it is not nil, is told of every commit: how many
// messages it held, how long it took, and how it ended.
func NewRecorder(l *Ledger, commit func(batch int, took time.Duration, err error)) *Recorder {
	if commit == nil {
		commit = func(int, time.Duration, error) {}
	}
	r := &Recorder{ledger: l, commit: commit, wake: make(chan struct{}, 1), many: make(chan struct{}, 1)}
	r.done.Go(r.run)
	return r
}

// Record counts the message for each of its accounts, exactly once for an instance and account,
// notes it as waiting for those whose mail is held, and returns nil when all of that is durable.
// Errors are [ErrUnavailable] (nothing was counted), [ErrClosed], and those of ctx, after which the
// message may have been counted.
func (r *Recorder) Record(ctx context.Context, m Message) error {
	result := make(chan error, 1)
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return ErrClosed
	}
	r.pending = append(r.pending, pending{m, result})
	signal(r.wake)
	if len(r.pending) == enough {
		signal(r.many)
	}
	r.mu.Unlock()
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Recorded reports whether the instance was counted for any account.
func (r *Recorder) Recorded(ctx context.Context, instance string) (bool, error) {
	db, err := r.ledger.reader(ctx)
	if err != nil {
		return false, err
	}
	var found bool
	err = db.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM message WHERE instance = ?)", instance).Scan(&found)
	return found, unavailable(err)
}

// Close writes what is pending and ends the recorder.
func (r *Recorder) Close() {
	r.mu.Lock()
	if !r.closed {
		r.closed = true
		close(r.wake)
	}
	r.mu.Unlock()
	r.done.Wait()
}

func (r *Recorder) run() {
	var next time.Time
	for range r.wake {
		select {
		case <-time.After(time.Until(next)):
		case <-r.many:
		}
		begun := time.Now()
		next = begun.Add(min(time.Duration(r.flush())*perMessage, maxInterval))
	}
	r.flush()
}

// signal leaves a token where none is.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// flush commits all that is pending in one batch, answers its callers, and returns how many they were.
func (r *Recorder) flush() int {
	r.mu.Lock()
	batch := r.pending
	r.pending = nil
	r.mu.Unlock()
	if len(batch) == 0 {
		return 0
	}
	begun := time.Now()
	// Whoever waits may give up; the batch belongs to all of them and is written.
	err := r.ledger.batch(context.Background(), r.ledger.evidence(batch)...)
	r.commit(len(batch), time.Since(begun), err)
	for _, p := range batch {
		p.result <- err
	}
	return len(batch)
}

// evidence makes the statements of one commit. The rows travel as one JSON parameter each, so that
// a batch is two statements whatever its size. What is of a closed month, by another time zone than it was closed
// in or a clock that was set back, is recorded on the first day after all closed months: its own could not be billed
// any more.
func (l *Ledger) evidence(batch []pending) []statement {
	var rows, waiting [][]any
	noted := l.opt.Now().UnixMilli()
	for _, p := range batch {
		m := &p.message
		at, on := m.At.UnixMilli(), day(m.At, l.opt.Location)
		for _, a := range m.Accounts {
			rows = append(rows, []any{m.Instance, a.ID, at, on, m.QueueID, m.Size, m.Client})
			if a.Held() && m.QueueID != "" {
				waiting = append(waiting, waitingRows(a, m.Domains, WaitingMessage{ID: m.QueueID, Size: m.Size, Since: m.At}, noted)...)
			}
		}
	}
	statements := []statement{{`
		INSERT INTO message (instance, account, at, day, queue_id, size, client)
		SELECT value ->> 0, value ->> 1, value ->> 2,
		       iif(substr(value ->> 3, 1, 7) IN (SELECT month FROM closed_month),
		           (SELECT date(max(month) || '-01', '+1 month') FROM closed_month), value ->> 3),
		       value ->> 4, value ->> 5, value ->> 6
		FROM json_each(?) WHERE true
		ON CONFLICT DO NOTHING`, []any{asJSON(rows)}}}
	if len(waiting) > 0 {
		statements = append(statements, noteWaiting(waiting))
	}
	return statements
}

// asJSON is a parameter for json_each. Its values are numbers and strings, which always encode.
func asJSON(rows any) string {
	text, err := json.Marshal(rows)
	if err != nil {
		panic(err)
	}
	return string(text)
}
