package main

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"syscall"
	"time"

	write "mailbag/cmd/internal/tables"
	"mailbag/meter"
	"mailbag/policy/routes"
)

// tables keeps the files that the MTA reads in line with the accounts. One goroutine writes, and always the newest accounts, so
// what is there is never replaced by something older.
type tables struct {
	dir     string
	of      func(*meter.Directory) []routes.Table
	log     *slog.Logger
	retry   time.Duration // from a failure to the next write
	changed chan struct{} // has room for one: changes during a write are one more write

	written atomic.Pointer[meter.Directory] // what the files show; nil: not known
	failure atomic.Pointer[error]           // of the latest write; nil: none
}

func newTables(dir string, of func(*meter.Directory) []routes.Table, log *slog.Logger) *tables {
	return &tables{dir: dir, of: of, log: log, retry: 5 * time.Second, changed: make(chan struct{}, 1)}
}

// change says that the accounts have changed. It does not wait for the disk.
func (t *tables) change() {
	select {
	case t.changed <- struct{}{}:
	default:
	}
}

// keep writes the tables after each change until ctx is done. What fails is tried again, and logged when it is
// something else than the last time.
func (t *tables) keep(ctx context.Context, newest func() *meter.Directory) {
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.changed:
		case <-again:
		}
		accounts := newest()
		before := t.failure.Load()
		if err := t.write(accounts); err != nil {
			t.failure.Store(&err)
			if before == nil || errno(*before) != errno(err) {
				t.log.Error("the tables of the MTA could not be written; it goes by what they said before, and they are tried again", "error", err)
			}
			again = time.After(t.retry)
			continue
		}
		again = nil
		t.failure.Store(nil)
		t.written.Store(accounts)
		if before != nil {
			t.log.Info("the tables of the MTA are written again", "directory", t.dir)
		}
	}
}

// errno is the kind of an error of the file system, whose text has another temporary name each time.
func errno(err error) (kind syscall.Errno) {
	errors.As(err, &kind)
	return kind
}

func (t *tables) write(d *meter.Directory) error { return write.Write(t.dir, t.of(d)) }

// err says why the tables are not those of the accounts.
func (t *tables) err() error {
	if err := t.failure.Load(); err != nil {
		return *err
	}
	return nil
}
