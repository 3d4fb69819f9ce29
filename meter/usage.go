package meter

import (
	"context"
)

// Usage is what was accepted: messages, and their octets, with CRLF.
type Usage struct {
	Messages int64 `json:"messages"`
	Bytes    int64 `json:"bytes"`
}

// DayUsage is the usage of one calendar day in the billing time zone.
type DayUsage struct {
	Day string `json:"day"` // YYYY-MM-DD
	Usage
}

// Usage returns what the account used in the month, up to the latest commit, with what operators
// adjusted.
func (l *Ledger) Usage(ctx context.Context, account int64, month Month) (Usage, error) {
	return l.usage(ctx, current, account, month)
}

// NearUsage is [Ledger.Usage] without what other machines counted in the last tenths of a second. Several that share a ledger need
// not agree on it.
func (l *Ledger) NearUsage(ctx context.Context, account int64, month Month) (Usage, error) {
	return l.usage(ctx, near, account, month)
}

func (l *Ledger) usage(ctx context.Context, how freshness, account int64, month Month) (u Usage, err error) {
	err = l.read(ctx, how, query{statement{"SELECT max(0, messages), max(0, bytes) FROM month_usage WHERE month = ? AND account = ?",
		[]any{month.String(), account}}, func(r scanner) error { return r.Scan(&u.Messages, &u.Bytes) }})
	return u, err
}

// DailyUsage returns the days of the month on which the account used anything, in order.
func (l *Ledger) DailyUsage(ctx context.Context, account int64, month Month) ([]DayUsage, error) {
	first, last := month.span()
	days := []DayUsage{}
	for rows, err := range l.rows(ctx, `
		SELECT day, messages, bytes FROM usage
		WHERE account = ? AND day BETWEEN ? AND ? ORDER BY day`, account, first, last) {
		var d DayUsage
		if err == nil {
			err = rows.Scan(&d.Day, &d.Messages, &d.Bytes)
		}
		if err != nil {
			return nil, err
		}
		days = append(days, d)
	}
	return days, nil
}

// DomainUsage is what was counted for one of an account's domains, or one that it had.
type DomainUsage struct {
	Domain string `json:"domain"`
	Usage
}

// DomainUsage returns the domains of the accounts for which anything was counted in the month, in order. A message for
// several domains of an account is in each of them, and once in the account's usage. What was counted before its domains
// were kept, and what operators adjusted, is in the account's alone.
func (l *Ledger) DomainUsage(ctx context.Context, month Month, accounts ...int64) (map[int64][]DomainUsage, error) {
	used := map[int64][]DomainUsage{}
	for rows, err := range l.rows(ctx, `
		SELECT account, domain, messages, bytes FROM domain_usage
		WHERE month = ? AND account IN (SELECT value FROM json_each(?)) ORDER BY account, domain`, month.String(), asJSON(accounts)) {
		var account int64
		var d DomainUsage
		if err == nil {
			err = rows.Scan(&account, &d.Domain, &d.Messages, &d.Bytes)
		}
		if err != nil {
			return nil, err
		}
		used[account] = append(used[account], d)
	}
	return used, nil
}
