package meter

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Invoices are what the accounts owe for one month, in the order of their names.
type Invoices struct {
	Month    Month
	Closed   time.Time // UTC; zero: the month is open and its bills are provisional
	ClosedBy string
	Accounts []Invoice
}

// An Invoice is what one account owes for one month.
type Invoice struct {
	ID          int64 // of the account
	Account     string
	Customer    string // as the operator's books have it
	Plan        string // name of its price plan, if it has one
	Mode        Mode
	Domains     []string // A-labels, sorted; those that a deleted account had at its end
	Deleted     bool
	Counted     Usage // by evidence
	Last        int64 // octets of the last message that was counted; 0 where the octets do not fill the first tier
	Adjustments []Adjustment
	Tariff      Tariff // with the account's own limits and prices, or its plan's
	Days        int    // for which the base price is billed, from the account's first one on
	MonthDays   int    // as many as Days, but for a first month that is prorated
}

// An Adjustment is what an operator added to a month's usage, or took from it.
type Adjustment struct {
	Usage
	Reason string
	At     time.Time // UTC
	Who    string
}

// Usage is what was counted, with the adjustments, and never less than nothing.
func (i *Invoice) Usage() Usage {
	u := i.Counted
	for _, a := range i.Adjustments {
		u.Messages += a.Messages
		u.Bytes += a.Bytes
	}
	return Usage{max(0, u.Messages), max(0, u.Bytes)}
}

// Billed is the usage without what is above the bound of the tariff only by the last message.
func (i *Invoice) Billed() Usage { return i.Tariff.Billed(i.Usage(), i.Last) }

// Tiers is how many tiers are billed, at least 1.
func (i *Invoice) Tiers() int64 { return i.Tariff.Tiers(i.Billed()) }

// Decided is the limit that made the number of tiers: "messages", "bytes" or "both", and empty where
// neither was passed.
func (i *Invoice) Decided() string { return i.Tariff.Decided(i.Billed()) }

// Prorated reports whether the base price is billed for a part of the month.
func (i *Invoice) Prorated() bool { return i.Days < i.MonthDays }

// Base is the base price for the days that are billed, with half a cent rounded up.
func (i *Invoice) Base() Cents {
	price := i.Tariff.BasePrice
	if !i.Prorated() {
		return price
	}
	days, all := Cents(i.Days), Cents(i.MonthDays)
	return price/all*days + (2*(price%all)*days+all)/(2*all) // which no price can overflow
}

// Additional is the price of the tiers above the first.
func (i *Invoice) Additional() Cents { return i.Tariff.Charge(i.Billed()) - i.Tariff.BasePrice }

// Total is the amount owed.
func (i *Invoice) Total() Cents { return i.Base() + i.Additional() }

// invoiceStays is what the schema says to who would change a closed bill.
const invoiceStays = "a closed invoice does not change"

// What can stand against closing or adjusting a month.
var (
	ErrMonthClosed = errors.New("the month is closed")
	ErrMonthOpen   = errors.New("the month is not over")
)

// billed selects the bills of an open month. An account is billed for a month at whose end it existed,
// used or not, and for one in which it used anything, whatever became of it since.
const billed = `
	SELECT a.id, a.mode,
	       coalesce(iif(a.deleted IS NULL, NULL, (SELECT before ->> '$.domains' FROM change
	                WHERE account = a.id AND action = 'account delete' ORDER BY id DESC LIMIT 1)),
	                (SELECT json_group_array(name) FROM (SELECT name FROM domain WHERE account = a.id ORDER BY name))) AS domains,
	       a.deleted IS NOT NULL AS deleted, coalesce(u.messages, 0) - coalesce(d.messages, 0) AS messages, coalesce(u.bytes, 0) - coalesce(d.bytes, 0) AS bytes,
	       ` + tierMessages + ` AS tier_messages, ` + tierBytes + ` AS tier_bytes,
	       coalesce(a.base_price, p.base_price, :base) AS base_price, coalesce(a.tier_price, p.tier_price, :tier) AS tier_price,
	       :currency AS currency, coalesce(nullif(a.on_limit, ''), nullif(p.on_limit, ''), :on_limit) AS on_limit,
	       coalesce(nullif(a.max_tiers, 0), p.max_tiers, 0) AS max_tiers,
	       coalesce(iif(u.bytes >= ` + tierBytes + `, -- only then it can have crossed the bound
	                (SELECT last FROM usage WHERE account = a.id AND day BETWEEN :first AND :last ORDER BY day DESC LIMIT 1), 0), 0) AS last,
	       a.customer AS customer, coalesce(a.plan, '') AS plan,
	       -- of a month in which it was not there from the first day on
	       iif(:prorate AND a.created >= :second, (SELECT count(*) FROM json_each(:ends) WHERE value > a.created), 0) AS days
	FROM account a LEFT JOIN month_usage u ON u.month = :month AND u.account = a.id
	     LEFT JOIN (SELECT account, sum(messages) AS messages, sum(bytes) AS bytes FROM adjustment WHERE month = :month GROUP BY account) d ON d.account = a.id
	     LEFT JOIN plan p ON p.name = a.plan
	WHERE a.created < :end AND (a.deleted IS NULL OR a.deleted >= :end) OR u.messages - coalesce(d.messages, 0) > 0 OR d.account IS NOT NULL`

// billing is the parameters of billed.
func (l *Ledger) billing(month Month, t Tariff) []any {
	first, last := month.span()
	ends := make([]int64, month.Days())
	for i := range ends {
		ends[i] = month.dayStart(i+2, l.opt.Location).UnixMilli()
	}
	return []any{
		sql.Named("messages", t.Messages), sql.Named("bytes", t.Bytes), sql.Named("base", int64(t.BasePrice)),
		sql.Named("tier", int64(t.TierPrice)), sql.Named("currency", t.Currency), sql.Named("on_limit", t.OnLimit), sql.Named("first", first),
		sql.Named("last", last), sql.Named("end", month.Next().Start(l.opt.Location).UnixMilli()), sql.Named("month", month.String()),
		sql.Named("prorate", t.Prorate), sql.Named("second", ends[0]), sql.Named("ends", asJSON(ends)),
	}
}

// Invoices returns the bills of the month, all or the named accounts': of a closed one as they were closed, of an open
// one with the tariff t as far as it has come, all as of one moment.
func (l *Ledger) Invoices(ctx context.Context, month Month, t Tariff, names ...string) (*Invoices, error) {
	var closed, at int64
	for {
		all := &Invoices{Month: month}
		adjustments := map[int64][]Adjustment{}
		from, args := billed, l.billing(month, t)
		if closed != 0 {
			from, args = "SELECT account AS id, * FROM invoice WHERE month = :month", []any{sql.Named("month", month.String())}
		}
		which := ""
		if len(names) > 0 {
			which = "WHERE a.name IN (SELECT value FROM json_each(:names))"
			args = append(args, sql.Named("names", asJSON(names)))
		}
		at = 0
		err := l.read(ctx, current,
			query{statement{"SELECT at, who FROM closed_month WHERE month = ?", []any{month.String()}}, func(r scanner) error { return r.Scan(&at, &all.ClosedBy) }},
			adjustmentsInto(adjustments, month),
			query{statement{`
				SELECT b.id, a.name, b.mode, b.domains, b.deleted, b.messages, b.bytes,
				       b.tier_messages, b.tier_bytes, b.base_price, b.tier_price, b.currency,
				       b.on_limit, b.max_tiers, b.last, b.customer, b.plan, b.days
				FROM (` + from + `) b JOIN account a ON a.id = b.id ` + which + ` ORDER BY a.name`, args}, func(r scanner) error {
				i := Invoice{MonthDays: month.Days()}
				var domains string
				t := &i.Tariff
				if err := r.Scan(&i.ID, &i.Account, &i.Mode, &domains, &i.Deleted, &i.Counted.Messages, &i.Counted.Bytes,
					&t.Messages, &t.Bytes, &t.BasePrice, &t.TierPrice, &t.Currency,
					&t.OnLimit, &t.MaxTiers, &i.Last, &i.Customer, &i.Plan, &i.Days); err != nil {
					return err
				}
				if err := json.Unmarshal([]byte(domains), &i.Domains); err != nil {
					return err
				}
				if i.Days == 0 {
					i.Days = i.MonthDays
				}
				i.Adjustments = adjustments[i.ID]
				all.Accounts = append(all.Accounts, i)
				return nil
			}})
		if err != nil || at == closed {
			all.Closed = moment(at)
			return all, err
		}
		closed = at // that decides which bills are read, and a closed month stays closed
	}
}

func adjustmentsInto(all map[int64][]Adjustment, month Month) query {
	return query{statement{"SELECT account, messages, bytes, reason, at, who FROM adjustment WHERE month = ? ORDER BY id", []any{month.String()}}, func(r scanner) error {
		var a Adjustment
		var account, at int64
		if err := r.Scan(&account, &a.Messages, &a.Bytes, &a.Reason, &at, &a.Who); err != nil {
			return err
		}
		a.At = moment(at)
		all[account] = append(all[account], a)
		return nil
	}}
}

// closingGrace is how long after its end a month can be closed: what was accepted in its last second
// may be written as late as a policy client waits for its answer, which is 100 seconds.
const closingGrace = 2 * time.Minute

// CloseMonth keeps the month's bills for ever as they are with the tariff t, whatever prices, limits and
// accounts become later. Errors: [ErrMonthClosed], [ErrMonthOpen], and [ErrInvalid] before the first account.
func (l *Ledger) CloseMonth(ctx context.Context, month Month, t Tariff) error {
	now, end := l.opt.Now(), month.Next().Start(l.opt.Location)
	if now.Before(end.Add(closingGrace)) {
		return fmt.Errorf("%s: %w; it can be closed from %s on", month, ErrMonthOpen, end.Add(closingGrace).Format("2006-01-02 15:04 MST"))
	}
	first, err := l.firstCreated(ctx, "")
	if err != nil {
		return err
	}
	if first.IsZero() || !first.Before(end) {
		return invalid("there was no account in %s yet, so there is nothing to close", month)
	}
	err = l.batch(ctx,
		statement{"INSERT INTO closed_month (month, at, who) VALUES (?, ?, ?)", []any{month.String(), now.UnixMilli(), l.opt.Actor}},
		statement{`INSERT INTO invoice (month, account, mode, domains, deleted, messages, bytes,
		                                tier_messages, tier_bytes, base_price, tier_price, currency, on_limit, max_tiers, last, customer, plan, days)
			SELECT :month, * FROM (` + billed + `)`, l.billing(month, t)})
	if violates(err, "UNIQUE constraint failed: closed_month.month") {
		return fmt.Errorf("%s: %w", month, ErrMonthClosed)
	}
	return err
}
