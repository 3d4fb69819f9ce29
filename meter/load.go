package meter

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
)

// Load reads a Directory, all of it as of one moment.
func (l *Ledger) Load(ctx context.Context) (*Directory, error) {
	return l.loadParts(ctx, readAtOnce)
}

// readAtOnce is how many accounts of a whole Directory one read takes.
const readAtOnce = 10_000

// loadParts reads the accounts in parts, some at the same time as others and each as of its own moment, and then again what
// changed since the first. So no answer of the ledger is longer than a part, and all processors are at it.
func (l *Ledger) loadParts(ctx context.Context, size int64) (*Directory, error) {
	b := begin()
	var last int64
	greatest := query{statement{sql: "SELECT coalesce(max(id), 0) FROM account"}, func(r scanner) error { return r.Scan(&last) }}
	if err := l.read(ctx, current, append(b.all(), greatest)...); err != nil {
		return nil, err
	}
	if last <= size || b.newest.id == 0 {
		return l.loadWhere(ctx, "")
	}
	parts, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var next atomic.Int64
	var adding sync.Mutex
	var reading sync.WaitGroup
	const some = " AND a.id BETWEEN ? AND ?"
	for range min(runtime.GOMAXPROCS(0), maxReaders) {
		reading.Go(func() {
			for from := next.Add(size) - size; from < last && parts.Err() == nil; from = next.Add(size) - size {
				var part []*member
				if err := l.read(parts, current, accountsInto(&part, some, from+1, min(from+size, last))); err != nil {
					stop(err)
					return
				}
				adding.Lock()
				b.add(part...)
				adding.Unlock()
			}
		})
	}
	reading.Wait()
	if parts.Err() != nil {
		return nil, context.Cause(parts)
	}
	return l.loadAfter(ctx, b.done(nil))
}

// loadAfter is [Ledger.Load], and reads no more than what changed where the ledger goes on from a former snapshot.
func (l *Ledger) loadAfter(ctx context.Context, old *Directory) (*Directory, error) {
	for range 10 {
		c := changes{accounts: map[int64]bool{}, plans: map[string]bool{}}
		err := l.read(ctx, current, c.after(old))
		switch {
		case errors.Is(err, errOtherHistory), err == nil && c.newest.id == 0:
			return l.Load(ctx)
		case err != nil:
			return nil, err
		}
		if d, err := l.readAfter(ctx, old, &c); err != nil || d != nil {
			return d, err
		}
	}
	return l.loadWhere(ctx, "") // in one answer, however long, as there is no end of changes
}

// LoadSome reads a Directory of these accounts alone, as far as they are there.
func (l *Ledger) LoadSome(ctx context.Context, ids ...int64) (*Directory, error) {
	return l.loadWhere(ctx, these, asJSON(ids))
}

// LoadAccount reads a Directory in which there is one account alone, and finds it there. Error: [ErrNoAccount].
func (l *Ledger) LoadAccount(ctx context.Context, name string) (*Directory, *Account, error) {
	d, err := l.loadWhere(ctx, " AND a.name = ?", name)
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
func (l *Ledger) loadWhere(ctx context.Context, condition string, args ...any) (*Directory, error) {
	b := begin()
	var all []*member
	if err := l.read(ctx, current, append(b.all(), accountsInto(&all, condition, args...))...); err != nil {
		return nil, err
	}
	b.add(all...)
	return b.done(nil), nil
}

// changes are what happened between two snapshots.
type changes struct {
	newest   changeLine
	accounts map[int64]bool
	plans    map[string]bool
}

// A changeLine is one of [Change], by which a snapshot knows the history that it belongs to.
type changeLine struct {
	id, at int64
	action string
}

var errOtherHistory = errors.New("the ledger does not go on from the snapshot")

// newestChange reads the line that a snapshot of the ledger as it is would have; none where nothing happened yet.
func newestChange(line *changeLine) query {
	return query{statement{sql: "SELECT id, at, action FROM change ORDER BY id DESC LIMIT 1"}, func(r scanner) error {
		return r.Scan(&line.id, &line.at, &line.action)
	}}
}

// after reads those since a snapshot. The error errOtherHistory is of a ledger that is not the one of the snapshot any
// more, such as one that a backup was restored to.
func (c *changes) after(old *Directory) query {
	return query{statement{"SELECT id, at, action, coalesce(account, 0), coalesce(plan, '') FROM change WHERE id >= ? ORDER BY id", []any{old.newest.id}}, func(r scanner) error {
		var line changeLine
		var account int64
		var plan string
		if err := r.Scan(&line.id, &line.at, &line.action, &account, &plan); err != nil {
			return err
		}
		before := c.newest
		c.newest = line
		switch {
		case before.id == 0 && line != old.newest, before.id != 0 && line.id != before.id+1:
			return errOtherHistory
		case before.id == 0: // the snapshot has it
		case plan != "":
			c.plans[plan] = true
		default:
			c.accounts[account] = true
		}
		return nil
	}}
}

// readAfter makes the snapshot after another one, of the changes between them. It is nil where there were more meanwhile.
func (l *Ledger) readAfter(ctx context.Context, old *Directory, c *changes) (*Directory, error) {
	b := goOn(old)
	var went []*member
	for id := range c.accounts {
		if m := old.byID.get(id); m != nil {
			b.forget(m)
			went = append(went, m)
		}
	}
	queries := []query{newestChange(&b.newest)}
	if len(c.plans) > 0 {
		b.plans = map[string]*Plan{}
		queries = append(queries, plansInto(b.plans))
	}
	ids := asJSON(slices.Collect(maps.Keys(c.accounts)))
	var came []*member
	queries = append(queries, accountsInto(&came, these, ids))
	if err := l.read(ctx, current, queries...); err != nil || b.newest != c.newest {
		return nil, err
	}
	b.add(came...)
	for _, m := range old.accounts {
		if _, read := c.accounts[m.ID]; !read && c.plans[m.Plan] {
			again := *m
			b.forget(m)
			b.add(&again)
		}
	}
	return b.done(went), nil
}
