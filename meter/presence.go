package meter

import (
	"context"
	"time"
)

// calledEvery is how exactly it is known when a customer called in vain: thousands who ask every minute shall not make
// as many commits.
const calledEvery = time.Hour

// Called records that the account's customer asked for mail and there was none, which no turn tells. It writes once an
// hour at the most.
func (l *Ledger) Called(ctx context.Context, account int64) error {
	now := l.opt.Now()
	var known bool
	err := l.row(ctx, "SELECT EXISTS (SELECT 1 FROM presence WHERE account = ? AND called > ?)",
		account, now.Add(-calledEvery).UnixMilli()).Scan(&known)
	if err != nil || known {
		return err
	}
	return l.batch(ctx, wasThere("SELECT id, 0, ? FROM account WHERE id = ? AND deleted IS NULL", now.UnixMilli(), account))
}

// wasThere notes when customers were there, by a SELECT of accounts' IDs, and of when they fetched and called. What is
// known of a later time stays.
func wasThere(rows string, args ...any) statement {
	return statement{`
		INSERT INTO presence (account, fetched, called) ` + rows + `
		ON CONFLICT DO UPDATE SET fetched = max(fetched, excluded.fetched), called = max(called, excluded.called)`, args}
}
