package meter

import (
	"context"
	"slices"
	"strings"
	"time"
)

// Waiting is how much mail an account has in the MTA's queue for its next turn.
type Waiting struct {
	Messages int64     `json:"messages"`
	Bytes    int64     `json:"bytes"`
	Oldest   time.Time `json:"oldest,omitzero"` // arrival of the oldest
}

// Waiting returns what waits for the account's next turn, as the index knows it: all, or what is for
// at least one of the domains.
func (l *Ledger) Waiting(ctx context.Context, account int64, domains ...string) (Waiting, error) {
	db, err := l.reader(ctx)
	if err != nil {
		return Waiting{}, err
	}
	var w Waiting
	var oldest int64
	which, args := waitingFor(account, domains)
	err = db.QueryRowContext(ctx, `
		SELECT count(*), coalesce(sum(size), 0), coalesce(min(since), 0) FROM waiting
		WHERE `+which, args...).Scan(&w.Messages, &w.Bytes, &oldest)
	if w.Messages > 0 {
		w.Oldest = time.UnixMilli(oldest).UTC()
	}
	return w, unavailable(err)
}

// waitingFor is the condition of rows that wait for an account, and for one of the domains if there are any.
func waitingFor(account int64, domains []string) (string, []any) {
	if len(domains) == 0 {
		return "account = ? AND delivered IS NULL", []any{account}
	}
	return `account = ? AND delivered IS NULL AND (domains = '' OR EXISTS (
		SELECT 1 FROM json_each(?) AS d WHERE instr(waiting.domains, ' ' || d.value || ' ')))`,
		[]any{account, asJSON(domains)}
}

// A WaitingMessage is a row of the index.
type WaitingMessage struct {
	ID    string
	Size  int64 // octets
	Since time.Time
}

// WaitingAfter returns at most limit messages that wait for the account, and for one of the domains
// if there are any, oldest first, from the one after the given one on; a zero one stands for the
// beginning.
func (l *Ledger) WaitingAfter(ctx context.Context, account int64, domains []string, after WaitingMessage, limit int) ([]WaitingMessage, error) {
	db, err := l.reader(ctx)
	if err != nil {
		return nil, err
	}
	from := int64(-1)
	if !after.Since.IsZero() {
		from = after.Since.UnixMilli()
	}
	which, args := waitingFor(account, domains)
	args = append(args, from, after.ID, limit)
	var list []WaitingMessage
	for rows, err := range query(ctx, db, `
		SELECT queue_id, size, since FROM waiting
		WHERE `+which+` AND (since, queue_id) > (?, ?) ORDER BY since, queue_id LIMIT ?`, args...) {
		var m WaitingMessage
		var since int64
		if err == nil {
			err = rows.Scan(&m.ID, &m.Size, &since)
		}
		if err != nil {
			return nil, unavailable(err)
		}
		m.Since = time.UnixMilli(since).UTC()
		list = append(list, m)
	}
	return list, nil
}

// Delivered strikes messages off that wait no more for the account, in one batch.
func (l *Ledger) Delivered(ctx context.Context, account int64, ids ...string) error {
	return l.batch(ctx, statement{`
		UPDATE waiting SET delivered = ? WHERE account = ? AND queue_id IN (SELECT value FROM json_each(?))`,
		[]any{l.opt.Now().UnixMilli(), account, asJSON(ids)}})
}

// DeliveredIn notes, in one batch, that messages wait for the account no more in the first domains, but still in others
// of those that it has.
func (l *Ledger) DeliveredIn(ctx context.Context, a *Account, domains []string, ids ...string) error {
	var others []string
	for _, domain := range a.Domains {
		if !slices.Contains(domains, domain) {
			others = append(others, domain)
		}
	}
	// Where the row names none of the others, it did not know them.
	return l.batch(ctx, statement{`
		UPDATE waiting SET noted = ?, domains = coalesce((
			SELECT ' ' || group_concat(value, ' ') || ' ' FROM json_each(?) WHERE instr(waiting.domains, ' ' || value || ' ')), ?)
		WHERE account = ? AND queue_id IN (SELECT value FROM json_each(?))`,
		[]any{l.opt.Now().UnixMilli(), asJSON(others), among(a, others), a.ID, asJSON(ids)}})
}

// StillWaits notes a message that an account did not take, where the index lacks it: it came to its turn
// by another way.
func (l *Ledger) StillWaits(ctx context.Context, account int64, m WaitingMessage) error {
	return l.batch(ctx, noteWaiting([][]any{{m.ID, account, m.Size, m.Since.UnixMilli(), l.opt.Now().UnixMilli(), ""}}))
}

// among is how the index keeps which of the account's domains are meant; empty where it makes no difference.
func among(a *Account, domains []string) string {
	if len(a.Domains) < 2 {
		return ""
	}
	var list strings.Builder
	for _, domain := range domains {
		if _, ours := slices.BinarySearch(a.Domains, domain); ours {
			list.WriteString(" " + domain)
		}
	}
	if list.Len() == 0 {
		return ""
	}
	return list.String() + " "
}

// noteWaiting notes rows that are not noted yet. One that was delivered is another message by now: the
// MTA uses queue IDs again.
func noteWaiting(rows [][]any) statement {
	return statement{insertWaiting + `
		ON CONFLICT DO UPDATE SET size = excluded.size, since = excluded.since, noted = excluded.noted,
			missed = 0, domains = excluded.domains, delivered = NULL
		WHERE delivered IS NOT NULL`, []any{asJSON(rows)}}
}

// insertWaiting takes rows of (queue ID, account, size, arrival, now, domains).
const insertWaiting = `
	INSERT INTO waiting (queue_id, account, size, since, noted, domains)
	SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5
	FROM json_each(?) WHERE true`
