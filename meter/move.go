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
	"strings"
	"syscall"
)

// ErrInUse says that a daemon has the ledger open.
var ErrInUse = errors.New("a daemon has the ledger open")

// A Moved is a table of a ledger that was moved, with its rows where they were and where they are.
type Moved struct {
	Table       string
	Before, Now int64
}

// Move copies the ledger to another address, where none is yet, and has nobody write to this one any more, on whatever machine and
// with whatever settings. The new one is there whole, or not at all. After an error this one is used as before, unless the process
// was killed; then Move goes on, or [Ledger.Stay] has it used as before. Errors are [ErrInUse] and ErrUnavailable.
func (l *Ledger) Move(ctx context.Context, address string, opt Options) (tables []Moved, err error) {
	to := newLedger(address, opt)
	defer to.Close()
	if err := errors.Join(l.idle(ctx), l.unmoved(ctx, address), to.vacant(ctx)); err != nil {
		return nil, err
	}
	if err := l.fence(ctx, address); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Stay(context.WithoutCancel(ctx)))
		}
	}()
	beside := to.opt.Beside + "-moving"
	if err := os.Remove(beside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	defer os.Remove(beside)
	if err := l.Backup(ctx, beside); err != nil {
		return nil, err
	}
	if err := unfence(ctx, beside); err != nil {
		return nil, err
	}
	before, err := l.countRows(ctx)
	if err != nil {
		return nil, err
	}
	if err := l.copyEvidence(ctx, to); err != nil {
		return nil, err
	}
	if err := to.take(ctx, beside); err != nil {
		return nil, err
	}
	now, err := to.countRows(ctx)
	if err != nil {
		return nil, err
	}
	var differ []string
	for i, t := range before {
		m := Moved{t.Table, t.Now, -1}
		if i < len(now) && now[i].Table == t.Table {
			m.Now = now[i].Now
		}
		if tables = append(tables, m); m.Before != m.Now {
			differ = append(differ, t.Table)
		}
	}
	if len(differ) > 0 {
		return tables, fmt.Errorf("%w: the copy at %s has other rows in %s; remove it", ErrUnavailable, address, strings.Join(differ, ", "))
	}
	return tables, l.moveUnderway(to)
}

// movedTo is how the word begins of a ledger that takes no writes.
const movedTo = "the ledger was moved, or is being moved, to "

// WasMoved reports whether an error is of a ledger that takes no writes because it was moved, or is being moved. It says what to do.
func WasMoved(err error) bool { return violates(err, movedTo) }

// moves end the tokens of the batches that are written although the ledger takes no writes.
const moves = "-move"

// unmoved returns nil where the ledger takes writes, or its move to the same address was broken off. With two copies in use none has all.
func (l *Ledger) unmoved(ctx context.Context, address string) error {
	err := l.Writable(ctx)
	if WasMoved(err) && strings.Contains(err.Error(), movedTo+address+";") {
		return nil
	}
	return err
}

// fence has no batch written any more: each begins with its token.
func (l *Ledger) fence(ctx context.Context, address string) error {
	word := movedTo + address + "; change the key database in the settings, or have it stay: mailbag database migrate --stay"
	_, err := l.engine.write(ctx, newToken()+moves, []statement{
		{sql: "DROP TRIGGER IF EXISTS moved"},
		{sql: "CREATE TRIGGER moved BEFORE INSERT ON applied WHEN new.token NOT LIKE '%" + moves + "' BEGIN SELECT RAISE(ABORT, '" + strings.ReplaceAll(word, "'", "''") + "'); END"},
	})
	return err
}

// Stay has a ledger that was moved, or was being moved, used as before. What was written elsewhere meanwhile is not in it.
func (l *Ledger) Stay(ctx context.Context) error {
	_, err := l.engine.write(ctx, newToken()+moves, []statement{{sql: "DROP TRIGGER IF EXISTS moved"}})
	return err
}

// unfence is Stay for a copy that nobody has open.
func unfence(ctx context.Context, path string) error {
	db, err := openCopy(path, "rw")
	if err != nil {
		return unavailable(err)
	}
	_, err = db.ExecContext(ctx, "DROP TRIGGER moved")
	return unavailable(errors.Join(err, db.Close()))
}

func openCopy(path, mode string) (*sql.DB, error) {
	return sql.Open(driverName, (&url.URL{Scheme: "file", Opaque: url.PathEscape(path), RawQuery: "mode=" + mode + "&_foreign_keys=on&_synchronous=full"}).String())
}

// idle returns nil where no daemon of this machine writes to the ledger.
func (l *Ledger) idle(ctx context.Context) error {
	if f, err := os.Open(l.opt.Beside + "-underway"); err == nil {
		defer f.Close()
		if syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) != nil {
			return ErrInUse
		}
	}
	return l.engine.idle(ctx)
}

// vacant returns nil where the ledger could be made.
func (l *Ledger) vacant(ctx context.Context) error {
	if e, ok := l.engine.(*rqlite); ok {
		_, err := e.vacant(ctx)
		return err
	}
	if _, err := os.Lstat(l.path); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s exists already; name a new file", l.path)
	}
	return nil
}

// take makes the ledger of a copy, which may go.
func (l *Ledger) take(ctx context.Context, path string) error {
	if e, ok := l.engine.(*rqlite); ok {
		db, err := openCopy(path, "ro")
		if err != nil {
			return unavailable(err)
		}
		defer db.Close()
		return e.fill(ctx, db)
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	dir, err := os.Open(filepath.Dir(l.path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return errors.Join(f.Chmod(0o640), giveToOwner(f, l.path), f.Sync(), os.Link(path, l.path), dir.Sync())
}

// countRows counts all tables as of one moment, but for the tokens of batches, which are forgotten in time.
func (l *Ledger) countRows(ctx context.Context) (tables []Moved, err error) {
	for r, err := range l.rows(ctx, "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_stat%' AND name <> 'applied' ORDER BY name") {
		var t Moved
		if err == nil {
			err = r.Scan(&t.Table)
		}
		if err != nil {
			return nil, err
		}
		tables = append(tables, t)
	}
	var counts []query
	for i, t := range tables {
		counts = append(counts, query{statement{sql: "/* all */ SELECT count(*) FROM " + quoted(t.Table)}, func(r scanner) error { return r.Scan(&tables[i].Now) }})
	}
	return tables, l.read(ctx, current, counts...)
}

// quoted is a name in a statement.
func quoted(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// moveUnderway has what was under way be known to the new ledger's daemons.
func (l *Ledger) moveUnderway(to *Ledger) error {
	from, into := l.opt.Beside+"-underway", to.opt.Beside+"-underway"
	if from == into {
		return nil
	}
	text, err := os.ReadFile(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	f, err := makeAnew(into, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, giveToOwner(f, into), f.Sync(), f.Close(), os.Remove(from))
}

// copyEvidence has the new ledger's files of evidence be where it looks for them. The old one keeps its own: it may have to stay.
func (l *Ledger) copyEvidence(ctx context.Context, to *Ledger) error {
	if l.evidenceDir() == to.evidenceDir() {
		return nil
	}
	all, err := l.archives(ctx, "", pastAll)
	if err != nil || len(all) == 0 {
		return err
	}
	unlock, err := to.lockEvidence()
	if err != nil || unlock == nil {
		return err
	}
	defer unlock()
	for _, a := range all {
		if a.host != l.opt.Host {
			continue
		}
		path := to.evidencePath(a)
		// One that lacks, lacks there as well, as its check says.
		err := l.backUp(ctx, a, path)
		if errors.Is(err, ErrEvidence) {
			continue
		}
		if err != nil {
			return err
		}
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it was pruned meanwhile
		}
		if err != nil {
			return err
		}
		if err := errors.Join(f.Chmod(0o640), giveToOwner(f, path), f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	return nil
}
