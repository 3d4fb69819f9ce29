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
	db, err := l.reader(ctx)
	if err != nil {
		return err
	}
	now := l.opt.Now()
	var known bool
	err = db.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM presence WHERE account = ? AND called > ?)",
		account, now.Add(-calledEvery).UnixMilli()).Scan(&known)
	if err != nil || known {
		return unavailable(err)
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

// A Silence is an account whose customer has not been there for long.
type Silence struct {
	Account int64
	Name    string
	Since   time.Time // when the customer was there last, or could have been for the first time
	Fetched time.Time // when mail was last fetched; zero: never
}

// silent is the condition of accounts, a, whose customers should be there and were not since a time. p is their
// presence, if there is any.
const silent = `a.deleted IS NULL AND NOT a.suspended AND a.mode <> 'backup'
	AND max(a.created, coalesce(p.fetched, 0), coalesce(p.called, 0)) < ?`

// Silent returns the accounts in service that are fetched from and were not since that time, neither with mail nor in
// vain; the longest silence first.
func (l *Ledger) Silent(ctx context.Context, since time.Time) ([]Silence, error) {
	db, err := l.reader(ctx)
	if err != nil {
		return nil, err
	}
	var list []Silence
	for rows, err := range query(ctx, db, `
		SELECT a.id, a.name, max(a.created, coalesce(p.fetched, 0), coalesce(p.called, 0)) AS last, coalesce(p.fetched, 0)
		FROM account a LEFT JOIN presence p ON p.account = a.id WHERE `+silent+` ORDER BY last, a.name`, since.UnixMilli()) {
		var s Silence
		var last, fetched int64
		if err == nil {
			err = rows.Scan(&s.Account, &s.Name, &last, &fetched)
		}
		if err != nil {
			return nil, unavailable(err)
		}
		s.Since, s.Fetched = moment(last), moment(fetched)
		list = append(list, s)
	}
	return list, nil
}

// CountSilent says how many accounts [Ledger.Silent] has.
func (l *Ledger) CountSilent(ctx context.Context, since time.Time) (n int64, err error) {
	db, err := l.reader(ctx)
	if err != nil {
		return 0, err
	}
	err = db.QueryRowContext(ctx, "SELECT count(*) FROM account a LEFT JOIN presence p ON p.account = a.id WHERE "+silent, since.UnixMilli()).Scan(&n)
	return n, unavailable(err)
}

// LastFetched returns when mail of the account was last fetched; zero: never.
func (l *Ledger) LastFetched(ctx context.Context, account int64) (time.Time, error) {
	db, err := l.reader(ctx)
	if err != nil {
		return time.Time{}, err
	}
	var fetched int64
	err = db.QueryRowContext(ctx, "SELECT coalesce(max(fetched), 0) FROM presence WHERE account = ?", account).Scan(&fetched)
	return moment(fetched), unavailable(err)
}
