package meter

import (
	"context"
	"database/sql"
	"strings"
	"time"
)

// A SortKey is by what a listing of accounts is ordered. What is equal is ordered by name.
type SortKey string

const (
	ByName     SortKey = "name"
	ByMessages SortKey = "messages" // of the month, most first
	ByBytes    SortKey = "bytes"    // of the month, most first
	ByWaiting  SortKey = "waiting"  // most messages first
	ByOldest   SortKey = "oldest"   // those for which mail waits for longest first
	ByFetched  SortKey = "fetched"  // those that have fetched no mail for longest first, since they were made where never
	ByCreated  SortKey = "created"  // newest first
)

// SortKeys lists every key, in the order in which help texts show them.
var SortKeys = []SortKey{ByName, ByMessages, ByBytes, ByWaiting, ByOldest, ByFetched, ByCreated}

// A Selection says which accounts a listing has, in which order, and how many at most. Its zero value is all that are not
// deleted, by name.
type Selection struct {
	Modes     []Mode        // any of them; nil: all
	Suspended bool          // suspended ones alone
	Domain    string        // has this domain, or one under it
	Customer  string        // in any case
	Plan      string        // the name of its price plan
	OverLimit bool          // has used up the first tier of the month, so that the next message is above it
	Waiting   bool          // mail waits; see [Listed]
	Silent    time.Duration // those in service whose customers, who fetch their mail, neither did nor asked for any for longer than this
	Sort      SortKey       // empty: ByName
	Limit     int           // 0: no limit

	Month  Month  // of which the usage is shown and compared
	Tariff Tariff // of the settings, for the limits of accounts that have none of their own
}

// Select returns the accounts of a selection. What is changed meanwhile may be seen or not; what is deleted meanwhile is left
// out.
func (l *Ledger) Select(ctx context.Context, s Selection) ([]Listed, error) {
	ids, err := l.selected(ctx, s)
	if err != nil {
		return nil, err
	}
	return l.Listed(ctx, s.Month, ids...)
}

// selected returns the IDs of the accounts of a selection, in its order.
func (l *Ledger) selected(ctx context.Context, s Selection) ([]int64, error) {
	ids := []int64{}
	for rows, err := range l.rows(ctx, "SELECT a.id"+s.from()+s.order(), s.parameters(l.opt.Now())...) {
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

// Count returns how many accounts a selection has, whatever its limit.
func (l *Ledger) Count(ctx context.Context, s Selection) (int64, error) {
	var n int64
	err := l.row(ctx, "SELECT count(*)"+s.from(), s.parameters(l.opt.Now())...).Scan(&n)
	return n, err
}

// from are the accounts of the selection. SQLite leaves out the joins of which nothing is asked.
func (s Selection) from() string {
	conditions := []string{"a.deleted IS NULL"}
	for _, c := range []struct {
		given     bool
		condition string
	}{
		{len(s.Modes) > 0, "a.mode IN (SELECT value FROM json_each(:modes))"},
		{s.Suspended, "a.suspended"},
		{s.Domain != "", "a.id IN (SELECT account FROM domain WHERE name = :domain OR substr(name, -length(:domain) - 1) = '.' || :domain)"},
		{s.Customer != "", "lower(a.customer) = lower(:customer)"},
		{s.Plan != "", "a.plan = :plan"},
		{s.OverLimit, usedUp},
		{s.Waiting, "iif(" + held + ", EXISTS (SELECT 1 " + itsWaiting + "), q.account IS NOT NULL)"},
		{s.Silent > 0, silent},
	} {
		if c.given {
			conditions = append(conditions, c.condition)
		}
	}
	return ` FROM account a
		LEFT JOIN month_usage u ON u.month = :month AND u.account = a.id
		LEFT JOIN plan p ON p.name = a.plan
		LEFT JOIN presence f ON f.account = a.id
		LEFT JOIN queued q ON q.account = a.id
		WHERE ` + strings.Join(conditions, " AND ")
}

// The limits of an account, a, by its plan, p, and the settings, as [Tariff.For] finds them, and that the first tier is used
// up as [Tariff.Reached] says.
const (
	tierMessages = "coalesce(nullif(a.messages, 0), nullif(p.messages, 0), :messages)"
	tierBytes    = "coalesce(nullif(a.bytes, 0), nullif(p.bytes, 0), :bytes)"
	usedUp       = "(u.messages >= nullif(" + tierMessages + ", 0) OR u.bytes >= nullif(" + tierBytes + ", 0))"
)

const (
	// silent is that the customer of an account in service, who would fetch its mail, was not there since a time.
	silent = "a.mode <> 'backup' AND NOT a.suspended AND max(coalesce(f.fetched, 0), coalesce(f.called, 0), a.created) < :heard"
	// held is what [Account.Held] says.
	held = "(a.suspended OR a.mode IN ('etrn', 'atrn'))"
	// itsWaiting is what waits for a turn.
	itsWaiting = "FROM waiting WHERE account = a.id AND delivered IS NULL"
)

// order is the order of the selection, and its limit.
func (s Selection) order() string {
	key := map[SortKey]string{
		ByMessages: "u.messages DESC, ",
		ByBytes:    "u.bytes DESC, ",
		ByWaiting:  "iif(" + held + ", (SELECT count(*) FROM (SELECT 1 " + itsWaiting + eachMessage + ")), coalesce(q.messages, 0)) DESC, ",
		ByOldest:   "iif(" + held + ", (SELECT min(since) " + itsWaiting + "), q.oldest) NULLS LAST, ",
		ByFetched:  "a.mode = 'backup', coalesce(nullif(f.fetched, 0), a.created), ",
		ByCreated:  "a.created DESC, ",
	}[s.Sort]
	order := " ORDER BY " + key + "a.name"
	if s.Limit > 0 {
		order += " LIMIT :limit"
	}
	return order
}

func (s Selection) parameters(now time.Time) []any {
	return []any{
		sql.Named("modes", asJSON(s.Modes)), sql.Named("domain", s.Domain), sql.Named("customer", s.Customer), sql.Named("plan", s.Plan),
		sql.Named("heard", now.Add(-s.Silent).UnixMilli()), sql.Named("limit", s.Limit), sql.Named("month", s.Month.String()),
		sql.Named("messages", s.Tariff.Messages), sql.Named("bytes", s.Tariff.Bytes),
	}
}
