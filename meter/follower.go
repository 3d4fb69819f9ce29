package meter

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// followEvery is how often a Follower looks for changes: a tenth of the second that it promises.
const followEvery = 100 * time.Millisecond

// A Follower keeps a Directory that is never older than a second, whichever process changed it.
type Follower struct {
	ledger    *Ledger
	log       *slog.Logger
	changed   func(old, new *Directory)
	directory atomic.Pointer[Directory]
	looked    atomic.Int64 // when the loop last went round, Unix ms
	stop      context.CancelFunc
	done      sync.WaitGroup

	mu     sync.Mutex // of one refresh at a time
	source any        // of which the directory was read
	seen   time.Time  // when the latest refresh began that succeeded
}

// Follow reads the directory and starts to follow it. A ledger that cannot be read is logged, and
// tried again: until it was read once Directory returns nil, after that the last snapshot. changed,
// where it is not nil, is called after each replacement, one call after another; old is nil at the first.
func Follow(ctx context.Context, l *Ledger, log *slog.Logger, changed func(old, new *Directory)) *Follower {
	if changed == nil {
		changed = func(_, _ *Directory) {}
	}
	ctx, stop := context.WithCancel(ctx)
	f := &Follower{ledger: l, log: log, changed: changed, stop: stop}
	following := following{Follower: f}
	following.look(ctx)
	f.done.Go(func() { following.run(ctx) })
	return f
}

// Directory returns the newest snapshot, nil when there was none yet.
func (f *Follower) Directory() *Directory { return f.directory.Load() }

// Fresh returns a snapshot that is as new as the ledger. It reads what is there only where the ledger has another
// revision, and once for all who ask meanwhile, so that it may be called for whatever a peer says.
func (f *Follower) Fresh(ctx context.Context) (*Directory, error) {
	if err := f.refresh(ctx, current); err != nil {
		return nil, err
	}
	return f.directory.Load(), nil
}

// Available returns nil when the ledger can be written, as far as is known, or why not.
func (f *Follower) Available() error { return f.ledger.Available() }

// longestLook is how long one round takes at the most: while nodes that take requests and do not answer are asked for the tables'
// version, the newest change and all accounts, or a million of these are read on a machine that is busy.
const longestLook = 4 * slowReads

// Alive reports whether the follower still goes round, for a watchdog.
func (f *Follower) Alive() bool {
	return time.Since(time.UnixMilli(f.looked.Load())) < longestLook+3*f.ledger.opt.BusyTimeout
}

// Close stops following.
func (f *Follower) Close() {
	f.stop()
	f.done.Wait()
}

// following is the state of the loop, which nobody else touches.
type following struct {
	*Follower
	failing string // the error that was logged last
}

func (f *following) run(ctx context.Context) {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			f.look(ctx)
		}
	}
}

// look refreshes the directory, and tries to write again if the latest write failed. Trouble is logged when it begins, when it changes, and when it ends.
func (f *following) look(ctx context.Context) {
	f.looked.Store(time.Now().UnixMilli())
	err := f.refresh(ctx, near)
	if err != nil {
		f.ledger.failure.Store(&err)
	} else if f.ledger.Available() != nil {
		err = f.ledger.probe(ctx)
	}
	switch {
	case ctx.Err() != nil:
	case err == nil && f.failing != "":
		f.failing = ""
		f.log.Info("the ledger is available again", "path", f.ledger.path)
	case err != nil && err.Error() != f.failing:
		f.failing = err.Error()
		f.log.Error("the ledger cannot be used; mail for accounts is deferred until it can", "path", f.ledger.path, "error", err)
	}
}

// refresh replaces the directory if the ledger has another revision. A near read tells no more than that it has not: a machine
// that has just come up may not have caught up with the others, and lack accounts.
func (f *Follower) refresh(ctx context.Context, how freshness) error {
	asked := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.seen.After(asked) {
		return nil // somebody has looked while we waited
	}
	began := time.Now()
	source, err := f.ledger.engine.source(ctx)
	if err != nil {
		return err
	}
	old := f.directory.Load()
	var fresh *Directory
	if old == nil || source != f.source {
		fresh, err = f.ledger.Load(ctx)
	} else {
		for _, how := range []freshness{how, current} {
			var newest changeLine
			if err := f.ledger.read(ctx, how, newestChange(&newest)); err != nil {
				return err
			}
			if newest == old.newest {
				f.seen = began
				return nil
			}
		}
		fresh, err = f.ledger.loadAfter(ctx, old)
	}
	if err != nil {
		return err
	}
	f.source, f.seen = source, began
	f.directory.Store(fresh)
	f.log.Info("directory loaded", "revision", fresh.Revision(), "accounts", fresh.Len(), "domains", fresh.domains.len())
	f.changed(old, fresh)
	return nil
}
