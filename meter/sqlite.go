package meter

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/mattn/go-sqlite3"
)

// sqlite is the engine of a ledger that is one file, which several processes may have open. It follows its path.
type sqlite struct {
	path string
	opt  Options

	mu   sync.Mutex
	file *openFile // nil while there is none
}

// openFile is the database file that the path named when it was opened.
type openFile struct {
	info  fs.FileInfo
	write *sql.DB // one connection: SQLite has one writer
	read  *sql.DB
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
	return unavailable(giveToOwner(f, path))
}

// giveToOwner has what root makes belong to the owner of the directory of its path, which it may yet come to.
func giveToOwner(f *os.File, path string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	dir, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return err
	}
	owner := dir.Sys().(*syscall.Stat_t)
	return f.Chown(int(owner.Uid), int(owner.Gid))
}

// makeAnew makes a file in the place of what is there. It follows no link: root writes to directories of who is not.
func makeAnew(path string, mode fs.FileMode) (*os.File, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
}

// current returns the file that the path names now, opening it where it is another than before.
func (l *sqlite) current(ctx context.Context) (*openFile, error) {
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

func (l *sqlite) openFile(ctx context.Context) (*openFile, error) {
	write, err := sql.Open(driverName, l.dsn("rw"))
	if err != nil {
		return nil, told(err)
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
		return nil, told(err)
	}
	read, err := sql.Open(driverName, l.dsn("ro"))
	if err != nil {
		write.Close()
		return nil, told(err)
	}
	read.SetMaxOpenConns(maxReaders)
	read.SetConnMaxIdleTime(time.Minute)
	return &openFile{write: write, read: read}, nil
}

func (l *sqlite) closeFile() error {
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
func (l *sqlite) dsn(mode string) string {
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

func (l *sqlite) source(ctx context.Context) (any, error) { return l.current(ctx) }

func (l *sqlite) late() bool { return false }

func (l *sqlite) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closeFile()
}

// read sees one moment by a deferred transaction of reads alone, where there are several queries.
func (l *sqlite) read(ctx context.Context, _ freshness, queries ...query) error {
	file, err := l.current(ctx)
	if err != nil {
		return err
	}
	if len(queries) == 1 {
		return readRows(ctx, file.read, queries[0])
	}
	conn, err := file.read.Conn(ctx)
	if err != nil {
		return told(err)
	}
	defer conn.Close()
	if _, err := conn.ExecContext(ctx, "BEGIN DEFERRED"); err != nil {
		return told(err)
	}
	defer conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
	for _, q := range queries {
		if err := readRows(ctx, conn, q); err != nil {
			return err
		}
	}
	return nil
}

// querier is what *sql.DB and *sql.Conn have in common here.
type querier interface {
	QueryContext(ctx context.Context, text string, args ...any) (*sql.Rows, error)
}

// readRows has the rows of a query read.
func readRows(ctx context.Context, from querier, q query) error {
	rows, err := from.QueryContext(ctx, q.sql, q.args...)
	if err != nil {
		return told(err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := q.row(sqliteRow{rows}); err != nil {
			return err
		}
	}
	return told(rows.Err())
}

type sqliteRow struct{ rows *sql.Rows }

func (r sqliteRow) Scan(into ...any) error { return told(r.rows.Scan(into...)) }

// remembers is for how long an engine of one file knows tokens: nobody repeats a batch from outside of the process.
const remembers = time.Minute

func (l *sqlite) write(ctx context.Context, token string, batch []statement) (disk time.Duration, err error) {
	file, err := l.current(ctx)
	if err != nil {
		return 0, err
	}
	tx, err := file.write.BeginTx(ctx, nil)
	if err != nil {
		return 0, told(err)
	}
	defer tx.Rollback()
	for _, s := range append(remember(token, time.Now().Add(-remembers)), batch...) {
		if _, err := tx.ExecContext(ctx, s.sql, s.args...); err != nil {
			if err = told(err); isDone(err) {
				err = nil
			}
			return 0, err
		}
	}
	begun := time.Now()
	if err = tx.Commit(); err != nil { // what came to the disk of it can be found there after a crash
		err = fmt.Errorf("%w: %w", errUnknown, told(err))
	}
	return time.Since(begun), err
}

func (l *sqlite) backup(ctx context.Context, path string) error {
	file, err := l.current(ctx)
	if err != nil {
		return err
	}
	_, err = file.read.ExecContext(ctx, "VACUUM INTO ?", path)
	return told(err)
}

// idle asks for the lock that every connection has a share in. A daemon has the file open as long as it runs.
func (l *sqlite) idle(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.closeFile(); err != nil {
		return told(err)
	}
	db, err := sql.Open(driverName, l.dsn("rw")+"&_locking_mode=exclusive")
	if err != nil {
		return told(err)
	}
	_, err = db.ExecContext(ctx, "BEGIN EXCLUSIVE; ROLLBACK")
	if err = errors.Join(err, db.Close()); busy(err) {
		return ErrInUse
	}
	return told(err)
}

// distrust closes the file after an error that would stay with its open descriptors when its cause is
// gone, such as that of a file system that was mounted read-only. The next use opens it anew.
func (l *sqlite) distrust(err error) {
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

func busy(err error) bool {
	var e sqlite3.Error
	return errors.As(err, &e) && e.Code == sqlite3.ErrBusy
}

// told makes an error of the driver one of the ledger's.
func told(err error) error {
	var e sqlite3.Error
	switch {
	case !errors.As(err, &e) || errors.Is(err, ErrUnavailable):
		return unavailable(err)
	case e.Code == sqlite3.ErrConstraint:
		return violation(e.Error())
	case e.Code == sqlite3.ErrReadonly:
		return fmt.Errorf("%w: %w", ErrReadOnly, err)
	case e.Code == sqlite3.ErrBusy:
		return fmt.Errorf("%w: %w", ErrLocked, err)
	case e.Code == sqlite3.ErrCorrupt, e.Code == sqlite3.ErrNotADB:
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return unavailable(err)
}
