package popd

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"mailbag/meter"
)

// A journal writes the records of sessions, some at a time: no client waits for that.
type journal struct {
	sessions Sessions
	log      *slog.Logger

	mu      sync.Mutex
	pending []meter.PopSession
	wake    chan struct{}
	closing chan struct{}
	once    sync.Once
	done    sync.WaitGroup
}

const (
	gatherFor    = 200 * time.Millisecond // records that come within it share a commit
	retryAfter   = 5 * time.Second        // when the ledger is away
	mostPending  = 10_000                 // records; the oldest are dropped above that
	lastTryTakes = 5 * time.Second
)

func newJournal(sessions Sessions, log *slog.Logger) *journal {
	j := &journal{sessions: sessions, log: log, wake: make(chan struct{}, 1), closing: make(chan struct{})}
	j.done.Go(j.run)
	return j
}

func (j *journal) add(r meter.PopSession) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.pending = append(j.pending, r)
	if n := len(j.pending) - mostPending; n > 0 {
		j.pending = j.pending[n:]
		j.log.Error("records of sessions are lost, because the ledger is away for too long", "lost", n)
	}
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

func (j *journal) run() {
	pause := gatherFor
	for {
		select {
		case <-j.wake:
		case <-j.closing:
		}
		select {
		case <-time.After(pause):
		case <-j.closing:
			j.write()
			return
		}
		pause = gatherFor
		if !j.write() {
			pause = retryAfter
			select {
			case j.wake <- struct{}{}:
			default:
			}
		}
	}
}

// write writes what is pending, and reports whether nothing is left.
func (j *journal) write() bool {
	j.mu.Lock()
	batch := j.pending
	j.pending = nil
	j.mu.Unlock()
	if len(batch) == 0 {
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), lastTryTakes)
	defer cancel()
	err := j.sessions.RecordPopSessions(ctx, batch)
	if err == nil {
		return true
	}
	j.log.Error("records of sessions cannot be written now", "sessions", len(batch), "error", err)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.pending = append(batch, j.pending...)
	return false
}

// close writes what is pending and ends the journal.
func (j *journal) close() {
	j.once.Do(func() { close(j.closing) })
	j.done.Wait()
}
