package meter

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"
)

// An engine keeps the tables of a ledger: in one file ([sqlite]), or on several machines. Its errors are those of a ledger,
// and a [violation] where a statement is against a constraint.
type engine interface {
	// source tells whether the tables are still those of before: it is comparable, and another one has another history.
	source(ctx context.Context) (any, error)

	// read has the rows of each query read, of one after another, all as of one moment.
	read(ctx context.Context, how freshness, queries ...query) error

	// write executes the statements as one: all of them are durable when it returns nil, and none of them was done
	// otherwise, nor will be, unless the error is an [errUnknown]. A batch that was written under the same token is not
	// written again. disk is how long that took once nobody else was writing.
	write(ctx context.Context, token string, batch []statement) (disk time.Duration, err error)

	// late reports whether a batch may yet be done when its writer is gone; see [fence].
	late() bool

	// distrust is told of an error of write or read, whose cause may stay with what is open.
	distrust(err error)

	// idle returns nil where no other process has the ledger open, as far as that can be seen from here, or ErrInUse.
	idle(ctx context.Context) error

	// backup writes a whole and consistent copy, as one SQLite file, to a file that is there and empty.
	backup(ctx context.Context, path string) error

	close() error
}

// freshness is how new what is read has to be.
type freshness int

const (
	// current is everything that any process was told to be durable before the read began.
	current freshness = iota

	// near is what this machine has of it, which may be some tenths of a second older and costs the least.
	near
)

// statement is one parameterised statement of a batch.
type statement struct {
	sql  string
	args []any
}

// newToken makes the token of a batch. Tokens are in the order of time, so that they are written one behind the other and old
// ones are found at the beginning. Those of one millisecond differ by 60 bits.
func newToken() string { return tokenAt(time.Now()) + rand.Text()[:12] }

// tokenAt is what all tokens of a moment begin with.
func tokenAt(t time.Time) string { return fmt.Sprintf("%09s", strconv.FormatInt(t.UnixMilli(), 36)) }

// forgets is how many tokens a batch forgets at the most: on rqlite there can be hundreds of thousands, after which nothing was
// written for as long.
const forgets = 100

// remember makes the statements that come before a batch, so that it is done once. Those before a time are forgotten: whoever
// wrote them has their answer, or does not ask any more.
func remember(token string, before time.Time) []statement {
	return []statement{
		{"INSERT INTO applied (token) VALUES (?)", []any{token}},
		{"DELETE FROM applied WHERE token IN (SELECT token FROM applied WHERE token < ? ORDER BY token LIMIT ?)", []any{tokenAt(before), forgets}},
	}
}

// isDone reports whether a batch failed because it is done already.
func isDone(err error) bool { return violates(err, "UNIQUE constraint failed: applied.token") }

// A query is a statement that reads, and what is done with each of its rows.
type query struct {
	statement
	row func(scanner) error
}

// scanner is a row of a result: its columns are copied to where the pointers point, as those of [database/sql.Rows].
type scanner interface{ Scan(into ...any) error }

// A violation is a statement's of a constraint or a trigger of the schema, in the words of SQLite. Nothing of its batch was done.
type violation string

func (v violation) Error() string { return string(v) }

// violates reports whether an error is a violation in words that begin like these.
func violates(err error, words string) bool {
	var v violation
	return errors.As(err, &v) && strings.HasPrefix(string(v), words)
}

// errUnknown is with the ErrUnavailable of a write of which it is not known whether it was done, or with a [violation] of one that may
// be done yet. It will not be done once a later one was.
var errUnknown = errors.New("it is not known whether it was written")

// errNoRow is what a [row] says that is not there.
var errNoRow = errors.New("there is no such row")

// errEnough ends a query whose other rows nobody wants.
var errEnough = errors.New("enough")

// read is [engine.read].
func (l *Ledger) read(ctx context.Context, how freshness, queries ...query) error {
	err := l.engine.read(ctx, how, queries...)
	if errors.Is(err, ErrUnavailable) {
		l.engine.distrust(err)
	}
	return err
}

// rows yields a result row by row. It is closed when the loop ends, however it ends.
func (l *Ledger) rows(ctx context.Context, sql string, args ...any) iter.Seq2[scanner, error] {
	return func(yield func(scanner, error) bool) {
		err := l.read(ctx, current, query{statement{sql, args}, func(r scanner) error {
			if !yield(r, nil) {
				return errEnough
			}
			return nil
		}})
		if err != nil && !errors.Is(err, errEnough) {
			yield(nil, err)
		}
	}
}

// row is the first one of a result; Scan returns [errNoRow] where there is none.
func (l *Ledger) row(ctx context.Context, sql string, args ...any) scanner {
	return firstRow(func(read func(scanner) error) error {
		return l.read(ctx, current, query{statement{sql, args}, read})
	})
}

type firstRow func(read func(scanner) error) error

func (f firstRow) Scan(into ...any) error {
	found := false
	err := f(func(r scanner) error {
		if err := r.Scan(into...); err != nil {
			return err
		}
		found = true
		return errEnough
	})
	switch {
	case found:
		return nil
	case err == nil:
		return errNoRow
	}
	return err
}
