package meter

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"strings"
)

// Load reads a Directory, all of it as of one moment.
func (l *Ledger) Load(ctx context.Context) (*Directory, error) {
	return l.loadWhere(ctx, listedRecipients, "")
}

// loadAfter is Load, and reads no more than what changed where the ledger goes on from a former snapshot.
func (l *Ledger) loadAfter(ctx context.Context, old *Directory) (d *Directory, err error) {
	err = l.atOneMoment(ctx, func(conn *sql.Conn) error {
		c, err := changesAfter(ctx, conn, old)
		switch {
		case errors.Is(err, errOtherHistory):
			d, err = readWhere(ctx, conn, listedRecipients, "")
		case err == nil:
			d, err = readAfter(ctx, conn, old, c)
		}
		return err
	})
	return d, err
}

// LoadSome reads a Directory of these accounts alone, as far as they are there, without lists of recipients.
func (l *Ledger) LoadSome(ctx context.Context, ids ...int64) (*Directory, error) {
	return l.loadWhere(ctx, noRecipients, these, asJSON(ids))
}

// LoadAccount reads a Directory in which there is one account alone, and finds it there. Error: [ErrNoAccount].
func (l *Ledger) LoadAccount(ctx context.Context, name string) (*Directory, *Account, error) {
	return l.loadAccount(ctx, name, listedRecipients)
}

func (l *Ledger) loadAccount(ctx context.Context, name string, which lists) (*Directory, *Account, error) {
	d, err := l.loadWhere(ctx, which, " AND a.name = ?", name)
	if err != nil {
		return nil, nil, err
	}
	a := d.Account(name)
	if a == nil {
		return nil, nil, fmt.Errorf("%s: %w", name, ErrNoAccount)
	}
	return d, a, nil
}

// loadWhere reads a Directory of the accounts that a condition chooses.
func (l *Ledger) loadWhere(ctx context.Context, which lists, condition string, args ...any) (d *Directory, err error) {
	err = l.atOneMoment(ctx, func(conn *sql.Conn) (err error) {
		d, err = readWhere(ctx, conn, which, condition, args...)
		return err
	})
	return d, err
}

// atOneMoment lets several SELECTs see the ledger as of one moment, in a deferred transaction of reads
// alone.
func (l *Ledger) atOneMoment(ctx context.Context, read func(*sql.Conn) error) error {
	db, err := l.reader(ctx)
	if err != nil {
		return err
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return unavailable(err)
	}
	defer conn.Close()
	if _, err := conn.ExecContext(ctx, "BEGIN DEFERRED"); err != nil {
		return unavailable(err)
	}
	defer conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
	return unavailable(read(conn))
}

// changes are what happened between two snapshots.
type changes struct {
	newest   changeLine
	accounts map[int64]bool // and whether their recipient lists may be others
	plans    map[string]bool
}

// A changeLine is one of [Change], by which a snapshot knows the history that it belongs to.
type changeLine struct {
	id, at int64
	action string
}

var errOtherHistory = errors.New("the ledger does not go on from the snapshot")

// newestChange is the line that a snapshot of the ledger as it is would have; the zero one where nothing happened yet.
func newestChange(ctx context.Context, q querier) (line changeLine, err error) {
	for rows, err := range query(ctx, q, "SELECT id, at, action FROM change ORDER BY id DESC LIMIT 1") {
		if err == nil {
			err = rows.Scan(&line.id, &line.at, &line.action)
		}
		if err != nil {
			return line, err
		}
	}
	return line, nil
}

// changesAfter are those since a snapshot. The error errOtherHistory is of a ledger that is not the one of the snapshot any
// more, such as one that a backup was restored to.
func changesAfter(ctx context.Context, q querier, old *Directory) (changes, error) {
	c := changes{accounts: map[int64]bool{}, plans: map[string]bool{}}
	for rows, err := range query(ctx, q, "SELECT id, at, action, coalesce(account, 0), coalesce(plan, '') FROM change WHERE id >= ? ORDER BY id", old.newest.id) {
		var line changeLine
		var account int64
		var plan string
		if err == nil {
			err = rows.Scan(&line.id, &line.at, &line.action, &account, &plan)
		}
		if err != nil {
			return c, err
		}
		before := c.newest
		c.newest = line
		switch {
		case before.id == 0 && line != old.newest, before.id != 0 && line.id != before.id+1:
			return c, errOtherHistory
		case before.id == 0: // the snapshot has it
		case plan != "":
			c.plans[plan] = true
		default:
			c.accounts[account] = c.accounts[account] || !sparesRecipients(line.action)
		}
	}
	if c.newest.id == 0 {
		return c, errOtherHistory
	}
	return c, nil
}

// sparesRecipients reports whether a change is known to leave the account's recipient list as it is, which may be long.
func sparesRecipients(action string) bool {
	for _, prefix := range []string{"account set", "account suspend", "account resume", "domain add ", "network ", "mailbox ", "passwd "} {
		if strings.HasPrefix(action, prefix) {
			return true
		}
	}
	return false
}

// readWhere makes the snapshot that has the accounts that a condition chooses.
func readWhere(ctx context.Context, conn *sql.Conn, which lists, condition string, args ...any) (*Directory, error) {
	b, err := begin(ctx, conn)
	if err == nil {
		err = b.read(ctx, conn, which, condition, args...)
	}
	if err != nil {
		return nil, err
	}
	return b.done(nil), nil
}

// readAfter makes the snapshot after another one, of the changes between them.
func readAfter(ctx context.Context, conn *sql.Conn, old *Directory, c changes) (_ *Directory, err error) {
	b := goOn(old)
	b.newest = c.newest
	if len(c.plans) > 0 {
		if b.plans, err = loadPlans(ctx, conn); err != nil {
			return nil, err
		}
	}
	var other, same []int64 // by their recipient lists
	var went []*member
	for id, listed := range c.accounts {
		m := old.byID.get(id)
		if !listed && m != nil && m.Recipients == ListedRecipient {
			same = append(same, id)
		} else {
			other = append(other, id)
		}
		if m != nil {
			b.forget(m)
			went = append(went, m)
		}
	}
	if err := b.read(ctx, conn, listedRecipients, these, asJSON(other)); err != nil {
		return nil, err
	}
	kept := len(b.came)
	if err := b.read(ctx, conn, noRecipients, these, asJSON(same)); err != nil {
		return nil, err
	}
	for _, m := range b.came[kept:] {
		if list := old.byID.get(m.ID).recipients; m.Recipients == ListedRecipient && list != "" {
			m.own().recipients = list
		}
	}
	for _, m := range old.accounts {
		if _, read := c.accounts[m.ID]; !read && c.plans[m.Plan] {
			again := *m
			b.forget(m)
			b.add(&again)
		}
	}
	return b.done(went), nil
}

// query yields a result row by row. The rows are closed when the loop ends, however it ends.
func query(ctx context.Context, q querier, text string, args ...any) iter.Seq2[*sql.Rows, error] {
	return func(yield func(*sql.Rows, error) bool) {
		rows, err := q.QueryContext(ctx, text, args...)
		if err != nil {
			yield(nil, err)
			return
		}
		defer rows.Close()
		for rows.Next() {
			if !yield(rows, nil) {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(nil, err)
		}
	}
}

// querier is what *sql.DB and *sql.Conn have in common here.
type querier interface {
	QueryContext(ctx context.Context, text string, args ...any) (*sql.Rows, error)
}
