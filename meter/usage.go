package meter

import (
	"context"
)

// Usage is what was accepted: messages, and octets as Postfix's size attribute has them.
type Usage struct {
	Messages int64 `json:"messages"`
	Bytes    int64 `json:"bytes"`
}

// DayUsage is the usage of one calendar day in the billing time zone.
type DayUsage struct {
	Day string `json:"day"` // YYYY-MM-DD
	Usage
}

// AccountUsage is an account's usage in one month.
type AccountUsage struct {
	Account *Account
	Deleted bool
	Usage
}

// Usage returns what the account used in the month, up to the latest commit.
func (l *Ledger) Usage(ctx context.Context, account int64, month Month) (Usage, error) {
	db, err := l.reader(ctx)
	if err != nil {
		return Usage{}, err
	}
	first, last := month.span()
	var u Usage
	err = db.QueryRowContext(ctx, `
		SELECT coalesce(sum(messages), 0), coalesce(sum(bytes), 0) FROM usage
		WHERE account = ? AND day BETWEEN ? AND ?`, account, first, last).Scan(&u.Messages, &u.Bytes)
	return u, unavailable(err)
}

// DailyUsage returns the days of the month on which the account used anything, in order.
func (l *Ledger) DailyUsage(ctx context.Context, account int64, month Month) ([]DayUsage, error) {
	db, err := l.reader(ctx)
	if err != nil {
		return nil, err
	}
	first, last := month.span()
	days := []DayUsage{}
	for rows, err := range query(ctx, db, `
		SELECT day, messages, bytes FROM usage
		WHERE account = ? AND day BETWEEN ? AND ? ORDER BY day`, account, first, last) {
		var d DayUsage
		if err == nil {
			err = rows.Scan(&d.Day, &d.Messages, &d.Bytes)
		}
		if err != nil {
			return nil, unavailable(err)
		}
		days = append(days, d)
	}
	return days, nil
}

// MonthUsage returns the usage of every account that exists, and of every deleted one that used
// anything in the month, in the order of their names. Of an account only its own limits are set.
func (l *Ledger) MonthUsage(ctx context.Context, month Month) ([]AccountUsage, error) {
	db, err := l.reader(ctx)
	if err != nil {
		return nil, err
	}
	first, last := month.span()
	var list []AccountUsage
	for rows, err := range query(ctx, db, `
		SELECT a.id, a.name, a.mode, a.messages, a.bytes, a.deleted IS NOT NULL,
		       coalesce(sum(u.messages), 0), coalesce(sum(u.bytes), 0)
		FROM account a LEFT JOIN usage u ON u.account = a.id AND u.day BETWEEN ? AND ?
		GROUP BY a.id HAVING a.deleted IS NULL OR sum(u.messages) > 0
		ORDER BY a.name`, first, last) {
		u := AccountUsage{Account: new(Account)}
		if err == nil {
			err = rows.Scan(&u.Account.ID, &u.Account.Name, &u.Account.Mode, &u.Account.Messages, &u.Account.Bytes,
				&u.Deleted, &u.Messages, &u.Usage.Bytes)
		}
		if err != nil {
			return nil, unavailable(err)
		}
		list = append(list, u)
	}
	return list, nil
}
