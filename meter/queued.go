package meter

import (
	"context"
	"maps"
	"time"
)

// Queued returns what the hosts' queues had for an account at the last passes over them ([Ledger.Reconcile]), where the
// account's mail waits for no turn: because its server was away, say, or on its way just then. It is nothing where the
// account's mail is held, of which [Ledger.Waiting] knows.
func (l *Ledger) Queued(ctx context.Context, account int64) (Waiting, error) {
	queued, err := l.queued(ctx, queuedWhere("account = ?"), account)
	return queued[account], err
}

// queuedWhere is what the queues had for those accounts of which the condition is true.
func queuedWhere(condition string) string {
	return "SELECT account, sum(messages), sum(bytes), min(oldest) FROM queued WHERE " + condition + " GROUP BY account"
}

func (l *Ledger) queued(ctx context.Context, sql string, args ...any) (map[int64]Waiting, error) {
	queued := map[int64]Waiting{}
	for rows, err := range l.rows(ctx, sql, args...) {
		var account, oldest int64
		var w Waiting
		if err == nil {
			err = rows.Scan(&account, &w.Messages, &w.Bytes, &oldest)
		}
		if err != nil {
			return nil, err
		}
		w.Oldest = moment(oldest)
		queued[account] = w
	}
	return queued, nil
}

// setQueued says what this host's queue has, and writes nothing where nothing changed.
func (l *Ledger) setQueued(ctx context.Context, queued map[int64]Waiting) error {
	before, err := l.queued(ctx, queuedWhere("host = ?"), l.opt.Host)
	if err != nil || maps.Equal(before, queued) {
		return err
	}
	rows := [][]any{}
	for account, w := range queued {
		rows = append(rows, []any{account, w.Messages, w.Bytes, w.Oldest.UnixMilli()})
	}
	return l.batch(ctx, statement{"DELETE FROM queued WHERE host = ?", []any{l.opt.Host}}, statement{`
		INSERT INTO queued (account, host, messages, bytes, oldest)
		SELECT value ->> 0, ?2, value ->> 1, value ->> 2, value ->> 3 FROM json_each(?1)`, []any{asJSON(rows), l.opt.Host}})
}

// with is what waits with a message more.
func (w Waiting) with(m QueuedMessage) Waiting {
	// The ledger has milliseconds.
	if arrived := time.UnixMilli(m.Arrived.UnixMilli()).UTC(); w.Messages == 0 || arrived.Before(w.Oldest) {
		w.Oldest = arrived
	}
	w.Messages++
	w.Bytes += m.Size
	return w
}
