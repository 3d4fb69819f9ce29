package meter

import (
	"cmp"
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Listed is an account as listings show it.
type Listed struct {
	ID              int64
	Name            string
	Customer        string
	Mode            Mode
	Suspended       bool
	Domain          string    // the first of them, A-labels; empty: none
	Domains         int       // how many there are
	Usage           Usage     // of the selection's month
	Waiting         Waiting   // for a turn, or in the MTA's queue at the last pass over it where the mail is not held
	Fetched, Called time.Time // when the customer last got mail, and last asked in vain or not; zero: never
}

// listedAtOnce is how many accounts one read of a listing takes.
const listedAtOnce = 5000

// Listed returns accounts by their IDs, in this order and without deleted ones, with the usage of the month. They are read
// in the order in which the ledger has them, some at the same time as others: what is asked for in another order would be
// read all over the file.
func (l *Ledger) Listed(ctx context.Context, month Month, ids ...int64) ([]Listed, error) {
	sorted := slices.Sorted(slices.Values(ids))
	all := make([]Listed, len(ids))
	parts := slices.Collect(slices.Chunk(sorted, listedAtOnce))
	errs := make([]error, len(parts))
	var next atomic.Int64
	var reading sync.WaitGroup
	for range min(len(parts), runtime.GOMAXPROCS(0), maxReaders) {
		reading.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(parts); i = int(next.Add(1)) - 1 {
				errs[i] = l.readListed(ctx, month, parts[i], all[i*listedAtOnce:])
			}
		})
	}
	reading.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if !slices.IsSorted(ids) {
		place := make(map[int64]int, len(ids))
		for i, id := range ids {
			place[id] = i
		}
		slices.SortFunc(all, func(a, b Listed) int { return cmp.Compare(place[a.ID], place[b.ID]) })
	}
	return slices.DeleteFunc(all, func(a Listed) bool { return a.ID == 0 }), nil
}

// readListed reads accounts whose IDs are sorted, each into its place.
func (l *Ledger) readListed(ctx context.Context, month Month, ids []int64, into []Listed) error {
	for rows, err := range l.rows(ctx, `
		SELECT these.key, a.id, a.name, a.customer, a.mode, a.suspended,
		       (SELECT count(*) FROM domain WHERE account = a.id), coalesce((SELECT min(name) FROM domain WHERE account = a.id), ''),
		       max(0, coalesce(u.messages, 0)), max(0, coalesce(u.bytes, 0)), coalesce(f.fetched, 0), coalesce(f.called, 0)
		FROM json_each(?) AS these CROSS JOIN account a ON a.id = these.value
		     LEFT JOIN month_usage u ON u.month = ? AND u.account = a.id
		     LEFT JOIN presence f ON f.account = a.id
		WHERE a.deleted IS NULL`, asJSON(ids), month.String()) {
		var at int
		var a Listed
		var fetched, called int64
		if err == nil {
			err = rows.Scan(&at, &a.ID, &a.Name, &a.Customer, &a.Mode, &a.Suspended, &a.Domains, &a.Domain,
				&a.Usage.Messages, &a.Usage.Bytes, &fetched, &called)
		}
		if err != nil {
			return err
		}
		a.Fetched, a.Called = moment(fetched), moment(called)
		into[at] = a
	}
	// What waits is read for all between the first and the last, in the order of its index.
	for rows, err := range l.rows(ctx, waitingWhere("account BETWEEN ?1 AND ?2"), ids[0], ids[len(ids)-1]) {
		var held bool
		var account, oldest int64
		var w Waiting
		if err == nil {
			err = rows.Scan(&held, &account, &w.Messages, &w.Bytes, &oldest)
		}
		if err != nil {
			return err
		}
		if at, found := slices.BinarySearch(ids, account); found && held == (into[at].Suspended || into[at].Mode.Held()) {
			w.Oldest = moment(oldest)
			into[at].Waiting = w
		}
	}
	return nil
}

// waitingWhere is what waits for accounts whose mail is held, and what the queues had for others, of those accounts of which
// the condition is true.
func waitingWhere(condition string) string {
	return `
		SELECT true AS held, account, count(*) AS messages, sum(size) AS bytes, min(since) AS oldest
		FROM (SELECT account, size, since FROM waiting WHERE ` + condition + ` AND delivered IS NULL GROUP BY account, suspicion, since, host, queue_id)
		GROUP BY account
		UNION ALL SELECT false, * FROM (` + queuedWhere(condition) + `)`
}
