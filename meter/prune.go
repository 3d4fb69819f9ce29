package meter

import (
	"context"
	"slices"
	"time"
)

// Keep is how long records are kept.
type Keep struct {
	Messages time.Duration // evidence
	Turns    time.Duration
	Sessions time.Duration
}

// Pruned says how many records were older than that, and how many idle POP3 sessions became counts of their day.
type Pruned struct {
	Messages   int64 `json:"messages"`
	Turns      int64 `json:"turns"`
	Sessions   int64 `json:"sessions"`
	Idle       int64 `json:"idle"`
	Notices    int64 `json:"notices"`
	Recipients int64 `json:"recipients"` // of lists that were replaced, or not finished
}

const (
	pruneChunk    = 2000 // rows that one batch deletes
	pruneAccounts = 500  // whose evidence one batch deletes: most have little, and each batch is an fsync

	// keepNotices is longer than any occasion of a notice lasts: a month, or [MaxHold]. Only who does not fetch can be so
	// for longer, and is told of once more then.
	keepNotices = 400 * 24 * time.Hour
)

// Prune deletes what is older than it is to be kept, and keeps POP3 sessions of earlier days that fetched
// nothing as one count a day. Usage, invoices and the accounts' history stay.
func (l *Ledger) Prune(ctx context.Context, keep Keep) (Pruned, error) {
	var p Pruned
	now := l.opt.Now()
	before := func(kept time.Duration) int64 { return now.Add(-kept).UnixMilli() }
	accounts, err := l.everyAccount(ctx)
	if err != nil {
		return p, err
	}
	for some := range slices.Chunk(accounts, pruneAccounts) { // evidence is found by account and time
		err := l.prune(ctx, &p.Messages, "message", "account, at, instance", "account IN (SELECT value FROM json_each(?)) AND at < ?",
			asJSON(some), before(keep.Messages))
		if err != nil {
			return p, err
		}
	}
	if err := l.pruneArchive(ctx, &p.Messages, day(now.Add(-keep.Messages), l.opt.Location)); err != nil {
		return p, err
	}
	if err := l.prune(ctx, &p.Turns, "turn", "began, token", "began < ? AND ended IS NOT NULL", before(keep.Turns)); err != nil {
		return p, err
	}
	sessions := before(keep.Sessions) // those that ended earlier are among those that began earlier, which an index has
	if err := l.prune(ctx, &p.Sessions, "pop_session", "began, id", "began < ? AND ended < ?", sessions, sessions); err != nil {
		return p, err
	}
	if err := l.countIdleSessions(ctx, &p.Idle); err != nil {
		return p, err
	}
	if err := l.prune(ctx, &p.Notices, "notice", "made, id", "made < ? AND sent IS NOT NULL", before(keepNotices)); err != nil {
		return p, err
	}
	return p, l.sweepLists(ctx, &p.Recipients)
}

// everyAccount returns the IDs of all accounts, deleted ones too.
func (l *Ledger) everyAccount(ctx context.Context) ([]int64, error) {
	var ids []int64
	for rows, err := range l.rows(ctx, "SELECT id FROM account") {
		var id int64
		if err == nil {
			err = rows.Scan(&id)
		}
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// prune deletes the rows that fulfil a condition, and counts them. The columns are a key, in whose order they go: on all machines
// that have the ledger the same do.
func (l *Ledger) prune(ctx context.Context, pruned *int64, table, key, condition string, args ...any) error {
	some := "FROM " + table + " WHERE " + condition + " ORDER BY " + key + " LIMIT ?"
	args = append(args, pruneChunk)
	for {
		var rows int64
		if err := l.row(ctx, "SELECT count(*) FROM (SELECT 1 "+some+")", args...).Scan(&rows); err != nil || rows == 0 {
			return err
		}
		if err := l.leisurely(ctx, statement{"DELETE FROM " + table + " WHERE (" + key + ") IN (SELECT " + key + " " + some + ")", args}); err != nil {
			return err
		}
		*pruned += rows
		if rows < pruneChunk {
			return nil
		}
	}
}

// leisurely executes one batch of several, and waits then as long as that took: half of the time belongs to the
// daemons, which write too.
func (l *Ledger) leisurely(ctx context.Context, statements ...statement) error {
	begun := time.Now()
	if err := l.batch(ctx, statements...); err != nil {
		return err
	}
	select {
	case <-time.After(time.Since(begun)):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
