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
	err := l.atOneMoment(ctx, func(conn *sql.Conn) error {
		err := conn.QueryRowContext(ctx, "SELECT count(*), coalesce(sum(suspended), 0) FROM account WHERE deleted IS NULL").Scan(&s.Accounts, &s.Suspended)
		if err != nil {
			return err
		}
		err = conn.QueryRowContext(ctx, "SELECT coalesce(sum(max(0, messages)), 0), coalesce(sum(max(0, bytes)), 0) FROM month_usage WHERE month = ?", month.String()).
			Scan(&s.Usage.Messages, &s.Usage.Bytes)
		if err != nil {
			return err
		}
		if err := s.addWaiting(ctx, conn); err != nil {
			return err
		}
		return s.addCharges(ctx, conn, month, l.billing(month, t))
	})
	return s, err
}

func (s *Sums) addWaiting(ctx context.Context, q querier) error {
	for rows, err := range query(ctx, q, `
		SELECT a.mode, sum(w.messages), sum(w.bytes), min(w.oldest)
		FROM (`+waitingWhere("true")+`) w CROSS JOIN account a ON a.id = w.account AND w.held = `+held+`
		WHERE a.deleted IS NULL GROUP BY a.mode`) {
		var mode Mode
		var w Waiting
		var oldest int64
		if err == nil {
			err = rows.Scan(&mode, &w.Messages, &w.Bytes, &oldest)
		}
		if err != nil {
			return err
		}
		w.Oldest = moment(oldest)
		s.Waiting[mode] = w
	}
	return nil
}

// addCharges asks SQL for the sum of those that owe the base price, and reckons the others.
func (s *Sums) addCharges(ctx context.Context, conn *sql.Conn, month Month, billing []any) error {
	const plain = `b.days = 0 AND coalesce(b.messages <= nullif(b.tier_messages, 0), true) AND coalesce(b.bytes <= nullif(b.tier_bytes, 0), true)
		AND NOT EXISTS (SELECT 1 FROM adjustment WHERE account = b.id AND month = :month)`
	err := conn.QueryRowContext(ctx, "SELECT coalesce(sum(b.base_price), 0) FROM ("+billed+") b WHERE "+plain, billing...).Scan(&s.Charge)
	if err != nil {
		return err
	}
	adjustments, err := adjustmentsOf(ctx, conn, month)
	if err != nil {
		return err
	}
	for rows, err := range query(ctx, conn, `
		SELECT b.id, b.messages, b.bytes, b.tier_messages, b.tier_bytes, b.base_price, b.tier_price, b.on_limit, b.max_tiers, b.last,
		       coalesce(nullif(b.days, 0), :days) FROM (`+billed+") b WHERE NOT ("+plain+")", append(billing, sql.Named("days", month.Days()))...) {
		i := Invoice{MonthDays: month.Days()}
		if err == nil {
			t := &i.Tariff
			err = rows.Scan(&i.ID, &i.Counted.Messages, &i.Counted.Bytes, &t.Messages, &t.Bytes, &t.BasePrice, &t.TierPrice, &t.OnLimit, &t.MaxTiers, &i.Last, &i.Days)
		}
		if err != nil {
			return err
		}
		i.Adjustments = adjustments[i.ID]
		s.Charge = s.Charge.Plus(i.Total())
	}
	return nil
}
