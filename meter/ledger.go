package meter

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/mattn/go-sqlite3"
)

var (
	// ErrUnavailable says that the ledger cannot be read or written now: it is missing, locked,
	// read-only, damaged, or its disk is full. What was to be written was not.
	ErrUnavailable = errors.New("the ledger is unavailable")

	// ErrNoLedger is the ErrUnavailable of a file that is not there.
	ErrNoLedger = fmt.Errorf("%w: there is no such file", ErrUnavailable)

	// ErrReadOnly is the ErrUnavailable of what was to be written to a file that this process may only read.
	ErrReadOnly = fmt.Errorf("%w: it can only be read", ErrUnavailable)

	// ErrLocked is the ErrUnavailable of a file that another process was writing to for longer than Options.BusyTimeout.
	ErrLocked = fmt.Errorf("%w: another process has it locked", ErrUnavailable)

	// ErrDamaged is the ErrUnavailable of a file that is no ledger, or no more.
	ErrDamaged = fmt.Errorf("%w: it is damaged", ErrUnavailable)
)

// Options of a [Ledger]. The zero value is that of a reader of an existing ledger in UTC.
type Options struct {
	Create      bool             // make the file when it is missing
	Location    *time.Location   // the billing time zone; nil: UTC
	Now         func() time.Time // nil: time.Now
	Actor       string           // who changes accounts, for their history
	BusyTimeout time.Duration    // how long to wait for another process's write; 0: 5 s
	Logger      *slog.Logger     // nil: discard
}

// A Ledger is the SQLite database of a mail bagging service. It is safe for concurrent use, and
// several processes may have the same file open. It follows its path: a file that is taken away
// makes the ledger unavailable, and the one that is put there next is the ledger from then on.
type Ledger struct {
	path string
	opt  Options

	mu   sync.Mutex
	file *openFile // nil while there is none

	failure atomic.Pointer[error] // why the latest write failed; nil when it did not
}

// openFile is the database file that the path named when it was opened.
type openFile struct {
	info  fs.FileInfo
	write *sql.DB // one connection: SQLite has one writer
	read  *sql.DB
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
	if opt.Create {
		if err := create(path); err != nil {
			return nil, err
		}
	}
	if _, err := l.current(ctx); err != nil {
		return nil, err
	}
	return l, nil
}

func newLedger(path string, opt Options) *Ledger {
	if opt.Location == nil {
		opt.Location = time.UTC
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.BusyTimeout == 0 {
		opt.BusyTimeout = 5 * time.Second
	}
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	return &Ledger{path: path, opt: opt}
}

// create makes an empty file at path if there is none. A ledger made by root belongs to the owner
// of its directory, which is the user that the daemons run as.
func create(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o640)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	defer f.Close()
	if os.Geteuid() != 0 {
		return nil
	}
	dir, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	owner := dir.Sys().(*syscall.Stat_t)
	return f.Chown(int(owner.Uid), int(owner.Gid))
}

// Close closes the file. What is under way is finished first.
func (l *Ledger) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closeFile()
}

// Available returns nil when the latest write succeeded, or why the ledger cannot be written
// (errors.Is [ErrUnavailable]).
func (l *Ledger) Available() error {
	if failure := l.failure.Load(); failure != nil {
		return *failure
	}
	return nil
}

// probe finds out by a real write of one page whether the ledger can be written again.
func (l *Ledger) probe(ctx context.Context) error {
	return l.batch(ctx, statement{sql: fmt.Sprintf("PRAGMA user_version = %d", len(migrations))})
}

// current returns the file that the path names now, opening it where it is another than before.
func (l *Ledger) current(ctx context.Context) (*openFile, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	info, err := os.Stat(l.path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%w: %s", ErrNoLedger, l.path)
		}
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if l.file != nil {
		if os.SameFile(l.file.info, info) {
			return l.file, nil
		}
		l.opt.Logger.Warn("the ledger is another file than before; opening it", "path", l.path)
		if err := l.file.settle(ctx); err != nil {
			return nil, err
		}
		l.closeFile()
	}
	file, err := l.openFile(ctx)
	if err != nil {
		return nil, err
	}
	file.info = info
	l.file = file
	return file, nil
}

// settle empties the write-ahead log into the file that it belongs to. The log is found by its name, so
// what the former file left there would be taken for the new one's, and spoil it.
func (f *openFile) settle(ctx context.Context) error {
	var busy, frames, moved int
	err := f.write.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &frames, &moved)
	if err == nil && busy != 0 {
		err = errors.New("another process reads it")
	}
	if err != nil {
		return fmt.Errorf("%w: its former file cannot be closed: %w", ErrUnavailable, err)
	}
	return nil
}

// migrationTakes is for how long another process may be at bringing a ledger to this program's version: with the years of
// an ISP it is seconds on a machine that is not busy. systemd gives a daemon half as long again to start.
const migrationTakes = time.Minute

// maxReaders is how many reads there are at once.
const maxReaders = 4

func (l *Ledger) openFile(ctx context.Context) (*openFile, error) {
	write, err := sql.Open(driverName, l.dsn("rw"))
	if err != nil {
		return nil, unavailable(err)
	}
	write.SetMaxOpenConns(1)
	// SQLite waits for everybody else but for who makes a new file one with a write-ahead log: others that open it in
	// that moment are told at once that it is busy. A ledger of an earlier version is busy with being brought up to date.
	for begun, within := time.Now(), l.opt.BusyTimeout; ; time.Sleep(time.Millisecond) {
		if err = migrate(ctx, write, l.opt.Create); errors.Is(err, errOtherVersion) {
			within = migrationTakes
		}
		if !busy(err) || time.Since(begun) > within {
			break
		}
	}
	if err != nil {
		write.Close()
		return nil, unavailable(err)
	}
	read, err := sql.Open(driverName, l.dsn("ro"))
	if err != nil {
		write.Close()
		return nil, unavailable(err)
	}
	read.SetMaxOpenConns(maxReaders)
	read.SetConnMaxIdleTime(time.Minute)
	return &openFile{write: write, read: read}, nil
}

func (l *Ledger) closeFile() error {
	if l.file == nil {
		return nil
	}
	err := errors.Join(l.file.read.Close(), l.file.write.Close())
	l.file = nil
	return err
}

// driverName is what database/sql opens the ledger's connections by. The tests put another in its place, which listens.
var driverName = "mailbag"

func init() { sql.Register(driverName, &sqlite3.SQLiteDriver{ConnectHook: prepare}) }

// maxLog is what is left of the write-ahead log, in octets, when it begins anew after it was longer: it grows while
// somebody reads, such as a backup. Where nobody does SQLite begins anew at four megabytes.
const maxLog = 8 << 20

// prepare makes a new connection what the ledger needs.
func prepare(c *sqlite3.SQLiteConn) error {
	if _, err := c.Exec(fmt.Sprintf("PRAGMA journal_size_limit = %d", maxLog), nil); err != nil {
		return err
	}
	return c.RegisterFunc("one_spelling", oneSpelling, true) // for schema/11.sql
}

// dsn opens as DESIGN asks: write-ahead log, an fsync at every commit, foreign keys, and a
// transaction that takes the write lock at its start, so that it waits there and not half-way.
func (l *Ledger) dsn(mode string) string {
	q := url.Values{
		"mode":          {mode},
		"_busy_timeout": {fmt.Sprint(l.opt.BusyTimeout.Milliseconds())},
		"_foreign_keys": {"on"},
		"_txlock":       {"immediate"},
		"_synchronous":  {"full"},
		// The few statements of a daemon are compiled once.
		"_stmt_cache_size": {"16"},
	}
	if mode == "rw" {
		q.Set("_journal_mode", "wal")
	}
	return (&url.URL{Scheme: "file", Opaque: url.PathEscape(l.path), RawQuery: q.Encode()}).String()
}

// statement is one parameterised statement of a batch.
type statement struct {
	sql  string
	args []any
}

// batch executes the statements as one: all of them are on the disk when it returns nil, and none
// of them otherwise.
func (l *Ledger) batch(ctx context.Context, statements ...statement) error {
	_, err := l.commit(ctx, statements...)
	return err
}

// commit is batch, and says how long the disk took.
func (l *Ledger) commit(ctx context.Context, statements ...statement) (disk time.Duration, err error) {
	disk, err = l.execute(ctx, statements)
	if errors.Is(err, ErrUnavailable) {
		l.failure.Store(&err)
		l.distrust(err)
	} else if err == nil {
		l.failure.Store(nil)
	}
	return disk, err
}

// distrust closes the file after an error that would stay with its open descriptors when its cause is
// gone, such as that of a file system that was mounted read-only. The next use opens it anew.
func (l *Ledger) distrust(err error) {
	var e sqlite3.Error
	if !errors.As(err, &e) {
		return
	}
	switch e.Code {
	case sqlite3.ErrBusy, sqlite3.ErrLocked, sqlite3.ErrFull:
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closeFile()
}

func (l *Ledger) execute(ctx context.Context, statements []statement) (disk time.Duration, err error) {
	file, err := l.current(ctx)
	if err != nil {
		return 0, err
	}
	tx, err := file.write.BeginTx(ctx, nil)
	if err != nil {
		return 0, unavailable(err)
	}
	defer tx.Rollback()
	for _, s := range statements {
		if _, err := tx.ExecContext(ctx, s.sql, s.args...); err != nil {
			return 0, unavailable(err)
		}
	}
	begun := time.Now()
	err = tx.Commit()
	return time.Since(begun), unavailable(err)
}

// reader returns the connections that only read.
func (l *Ledger) reader(ctx context.Context) (*sql.DB, error) {
	file, err := l.current(ctx)
	if err != nil {
		return nil, err
	}
	return file.read, nil
}

// moment is a time as the ledger has it, in milliseconds; 0 is none.
func moment(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

func busy(err error) bool {
	var e sqlite3.Error
	return errors.As(err, &e) && e.Code == sqlite3.ErrBusy
}

// unavailable makes every error an ErrUnavailable but those that speak of the statement and not of
// the ledger: a violated constraint and a cancelled context.
func unavailable(err error) error {
	var e sqlite3.Error
	switch {
	case err == nil, errors.Is(err, ErrUnavailable),
		errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded),
		errors.As(err, &e) && e.Code == sqlite3.ErrConstraint:
		return err
	case errors.As(err, &e) && e.Code == sqlite3.ErrReadonly:
		return fmt.Errorf("%w: %w", ErrReadOnly, err)
	case busy(err):
		return fmt.Errorf("%w: %w", ErrLocked, err)
	case errors.As(err, &e) && (e.Code == sqlite3.ErrCorrupt || e.Code == sqlite3.ErrNotADB):
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}
