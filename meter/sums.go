package meter

import (
	"context"
	"database/sql"
)

// Sums are those of all accounts that are not deleted.
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
		return s.addCharges(ctx, conn, month, t)
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

// addCharges asks SQL for the sum of those that owe the base price, and reckons those that are above their first tier.
func (s *Sums) addCharges(ctx context.Context, conn *sql.Conn, month Month, t Tariff) error {
	const base = "coalesce(a.base_price, p.base_price, :base)"
	const above = "coalesce(u.messages > nullif(" + tierMessages + ", 0) OR u.bytes > nullif(" + tierBytes + ", 0), 0)"
	const from = ` FROM account a LEFT JOIN month_usage u ON u.month = :month AND u.account = a.id LEFT JOIN plan p ON p.name = a.plan
		WHERE (a.deleted IS NULL OR u.account IS NOT NULL) AND `
	first, last := month.span()
	args := []any{sql.Named("base", int64(t.BasePrice)), sql.Named("tier", int64(t.TierPrice)), sql.Named("messages", t.Messages), sql.Named("bytes", t.Bytes),
		sql.Named("on_limit", t.OnLimit), sql.Named("month", month.String()), sql.Named("first", first), sql.Named("last", last)}
	if err := conn.QueryRowContext(ctx, "SELECT coalesce(sum("+base+"), 0)"+from+"NOT "+above, args...).Scan(&s.Charge); err != nil {
		return err
	}
	for rows, err := range query(ctx, conn, "SELECT u.messages, u.bytes, "+tierMessages+", "+tierBytes+", "+base+`, coalesce(a.tier_price, p.tier_price, :tier),
		coalesce(nullif(a.on_limit, ''), nullif(p.on_limit, ''), :on_limit), coalesce(nullif(a.max_tiers, 0), p.max_tiers, 0),
		coalesce((SELECT last FROM usage WHERE account = a.id AND day BETWEEN :first AND :last ORDER BY day DESC LIMIT 1), 0)`+from+above, args...) {
		var used Usage
		var of Tariff
		var lastMessage int64
		if err == nil {
			err = rows.Scan(&used.Messages, &used.Bytes, &of.Messages, &of.Bytes, &of.BasePrice, &of.TierPrice, &of.OnLimit, &of.MaxTiers, &lastMessage)
		}
		if err != nil {
			return err
		}
		s.Charge = s.Charge.Plus(of.Charge(of.Billed(used, lastMessage)))
	}
	return nil
}
