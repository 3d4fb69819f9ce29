package meter

import (
	"context"
	"database/sql"
)

// Sums are those of all accounts; of deleted ones the month alone, for which they are billed too.
type Sums struct {
	Accounts  int64            `json:"accounts"`
	Suspended int64            `json:"suspended"`
	Waiting   map[Mode]Waiting `json:"waiting"` // as in [Listed]; a message for two accounts counts twice
	Usage     Usage            `json:"usage"`   // of the month
	Charge    Cents            `json:"-"`       // of the month so far
}

// Sums sums up a month with the tariff t, and what waits now.
func (l *Ledger) Sums(ctx context.Context, month Month, t Tariff) (Sums, error) {
	s := Sums{Waiting: map[Mode]Waiting{}}
	const plain = `b.days = 0 AND coalesce(b.messages <= nullif(b.tier_messages, 0), true) AND coalesce(b.bytes <= nullif(b.tier_bytes, 0), true)
		AND NOT EXISTS (SELECT 1 FROM adjustment WHERE account = b.id AND month = :month)`
	billing := l.billing(month, t)
	adjustments := map[int64][]Adjustment{}
	err := l.read(ctx, current,
		query{statement{sql: "SELECT count(*), coalesce(sum(suspended), 0) FROM account WHERE deleted IS NULL"}, func(r scanner) error {
			return r.Scan(&s.Accounts, &s.Suspended)
		}},
		query{statement{"SELECT coalesce(sum(max(0, messages)), 0), coalesce(sum(max(0, bytes)), 0) FROM month_usage WHERE month = ?", []any{month.String()}}, func(r scanner) error {
			return r.Scan(&s.Usage.Messages, &s.Usage.Bytes)
		}},
		query{statement{sql: `
			SELECT a.mode, sum(w.messages), sum(w.bytes), min(w.oldest)
			FROM (` + waitingWhere("true") + `) w CROSS JOIN account a ON a.id = w.account AND w.held = ` + held + `
			WHERE a.deleted IS NULL GROUP BY a.mode`}, func(r scanner) error {
			var mode Mode
			var w Waiting
			var oldest int64
			if err := r.Scan(&mode, &w.Messages, &w.Bytes, &oldest); err != nil {
				return err
			}
			w.Oldest = moment(oldest)
			s.Waiting[mode] = w
			return nil
		}},
		// SQL sums up those that owe the base price; the others are reckoned.
		query{statement{"SELECT coalesce(sum(b.base_price), 0) FROM (" + billed + ") b WHERE " + plain, billing}, func(r scanner) error {
			return r.Scan(&s.Charge)
		}},
		adjustmentsInto(adjustments, month),
		query{statement{`
			SELECT b.id, b.messages, b.bytes, b.tier_messages, b.tier_bytes, b.base_price, b.tier_price, b.on_limit, b.max_tiers, b.last,
			       coalesce(nullif(b.days, 0), :days) FROM (` + billed + ") b WHERE NOT (" + plain + ")", append(billing, sql.Named("days", month.Days()))}, func(r scanner) error {
			i := Invoice{MonthDays: month.Days()}
			t := &i.Tariff
			if err := r.Scan(&i.ID, &i.Counted.Messages, &i.Counted.Bytes, &t.Messages, &t.Bytes, &t.BasePrice, &t.TierPrice, &t.OnLimit, &t.MaxTiers, &i.Last, &i.Days); err != nil {
				return err
			}
			i.Adjustments = adjustments[i.ID]
			s.Charge = s.Charge.Plus(i.Total())
			return nil
		}})
	return s, err
}
