package meter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"
)

var (
	// ErrUnavailable says that the ledger cannot be read or written now: it is missing, locked,
	// read-only, damaged, or its disk is full. What was to be written was not.
	ErrUnavailable = errors.New("the ledger is unavailable")

	// ErrNoLedger is the ErrUnavailable of a file that is not there, or of nodes without tables.
	ErrNoLedger = fmt.Errorf("%w: there is none", ErrUnavailable)

	// ErrReadOnly is the ErrUnavailable of what was to be written to a file that this process may only read.
	ErrReadOnly = fmt.Errorf("%w: it can only be read", ErrUnavailable)

	// ErrLocked is the ErrUnavailable of a file that another process was writing to for longer than Options.BusyTimeout.
	ErrLocked = fmt.Errorf("%w: another process has it locked", ErrUnavailable)

	// ErrSettings is the ErrUnavailable of nodes that cannot be asked as the Options say: credentials or certificates are wrong.
	ErrSettings = fmt.Errorf("%w: not with these settings", ErrUnavailable)

	// ErrDamaged is the ErrUnavailable of a file that is no ledger, or no more.
	ErrDamaged = fmt.Errorf("%w: it is damaged", ErrUnavailable)
)

// Options of a [Ledger]. The zero value is that of a reader of an existing ledger in UTC.
type Options struct {
	Create      bool             // make the file when it is missing
	Location    *time.Location   // the billing time zone; nil: UTC
	Now         func() time.Time // nil: time.Now
	Host        int64            // which of the hosts that share the ledger; 0: the first
	Actor       string           // who changes accounts, for their history
	Beside      string           // files that belong to the ledger and are this machine's begin so; empty: as its own
	Credentials string           // file with the line USER:PASSWORD for the nodes of rqlite; empty: none are needed
	CA          string           // PEM file of who signed their certificates; empty: they are reached without TLS
	Certificate string           // PEM file of the chain by which they know this machine; empty: they need not
	Key         string           // and of its key
	BusyTimeout time.Duration    // how long to wait for another process's write; 0: 5 s
	Logger      *slog.Logger     // nil: discard
}

// A Ledger is the SQLite database of a mail bagging service. It is safe for concurrent use, and
// several processes may have the same file open. It follows its path: a file that is taken away
// makes the ledger unavailable, and the one that is put there next is the ledger from then on.
type Ledger struct {
	path   string
	opt    Options
	engine engine

	failure atomic.Pointer[error] // why the latest write failed; nil when it did not
}

// New returns the ledger at path without touching the file, for a daemon that starts while the
// ledger is missing and goes on when it comes. It never makes the file: a daemon that answered from
// an empty ledger would have the MTA refuse everybody's mail.
func New(path string, opt Options) *Ledger {
	opt.Create = false
	return newLedger(path, opt)
}

// Open returns the ledger at path, migrated to this program's schema. Errors are [ErrNoLedger] and
// [ErrUnavailable].
func Open(ctx context.Context, path string, opt Options) (*Ledger, error) {
	l := newLedger(path, opt)
	if opt.Create && !Remote(path) {
		if err := create(path); err != nil {
			return nil, err
		}
	}
	if _, err := l.engine.source(ctx); err != nil {
		return nil, err
	}
	return l, nil
}

// newEngine makes the engine of the ledger at path. The tests put others in its place.
var newEngine = func(path string, opt Options) engine {
	if Remote(path) {
		return newRqlite(path, opt)
	}
	return &sqlite{path: path, opt: opt}
}

func newLedger(path string, opt Options) *Ledger {
	if opt.Location == nil {
		opt.Location = time.UTC
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Beside == "" {
		opt.Beside = path
	}
	if opt.Host == 0 {
		opt.Host = 1
	}
	if opt.BusyTimeout == 0 {
		opt.BusyTimeout = 5 * time.Second
	}
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	return &Ledger{path: path, opt: opt, engine: newEngine(path, opt)}
}

// Close closes the file. What is under way is finished first.
func (l *Ledger) Close() error { return l.engine.close() }

// Available returns nil when the latest write succeeded, or why the ledger cannot be written
// (errors.Is [ErrUnavailable]).
func (l *Ledger) Available() error {
	if failure := l.failure.Load(); failure != nil {
		return *failure
	}
	return nil
}

// probe finds out by a real write, that of its token, whether the ledger can be written again.
func (l *Ledger) probe(ctx context.Context) error { return l.batch(ctx) }

// batch executes the statements as one: all of them are on the disk when it returns nil, and none
// of them otherwise.
func (l *Ledger) batch(ctx context.Context, statements ...statement) error {
	_, err := l.commit(ctx, statements...)
	return err
}

// commit is batch, and says how long the disk took.
func (l *Ledger) commit(ctx context.Context, statements ...statement) (disk time.Duration, err error) {
	disk, err = l.engine.write(ctx, newToken(), statements)
	if WasMoved(err) {
		err = fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if errors.Is(err, ErrUnavailable) {
		l.failure.Store(&err)
		l.engine.distrust(err)
	} else if err == nil {
		l.failure.Store(nil)
	}
	return disk, err
}

// moment is a time as the ledger has it, in milliseconds; 0 is none.
func moment(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// unavailable makes every error an ErrUnavailable but those that speak of the statement and not of the ledger: a
// [violation] and a cancelled context.
func unavailable(err error) error {
	var against violation
	switch {
	case err == nil, errors.Is(err, ErrUnavailable), errors.As(err, &against),
		errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}
