package meter

import (
	"context"
	"time"
)

// Waiting is how much mail an account has in the MTA's queue for its next turn.
type Waiting struct {
	Messages int64     `json:"messages"`
	Bytes    int64     `json:"bytes"`
	Oldest   time.Time `json:"oldest,omitzero"` // arrival of the oldest
}

// A WaitingMessage is one that waits for an account.
type WaitingMessage struct {
	Host  int64 // in whose queue; 0: this one's
	ID    string
	Size  int64 // octets
	Since time.Time
	// Suspicion that connections break under it. 0: none; 1: it was under way with others when one to the customer's
	// server broke; from 2 on: it was alone when one did, so many times less one.
	Suspicion int
}

// alone is the least suspicion of messages under which a connection broke while they were under way alone.
const alone = 2

// HasWaiting reports whether anything waits for the account, and for one of the domains if there are any. It costs one
// look into an index, or one for each of the domains, however much waits.
func (l *Ledger) HasWaiting(ctx context.Context, account int64, domains ...string) (bool, error) {
	var waits bool
	sql, args := selectWhether(account, domains)
	err := l.row(ctx, sql, args...).Scan(&waits)
	return waits, err
}

// Waiting returns what waits for the account's next turn, as the index knows it: all, or what is for
// at least one of the domains.
func (l *Ledger) Waiting(ctx context.Context, account int64, domains ...string) (Waiting, error) {
	var w Waiting
	var oldest int64
	sql, args := selectAmount(account, domains)
	err := l.row(ctx, sql, args...).Scan(&w.Messages, &w.Bytes, &oldest)
	w.Oldest = moment(oldest)
	return w, err
}

// WaitingAfter returns at most limit messages that wait for the account, and for one of the domains
// if there are any, from the one after the given one on; a zero one stands for the beginning. Those under less suspicion
// come first, and of these the oldest.
func (l *Ledger) WaitingAfter(ctx context.Context, account int64, domains []string, after WaitingMessage, limit int) ([]WaitingMessage, error) {
	sql, args := selectPage(account, domains, after, limit)
	return l.waitingMessages(ctx, sql, args...)
}

// Suspects returns at most limit messages that wait for the account and under which a connection broke while they were
// under way alone, oldest first.
func (l *Ledger) Suspects(ctx context.Context, account int64, limit int) ([]WaitingMessage, error) {
	sql, args := selectSuspects(account, limit)
	return l.waitingMessages(ctx, sql, args...)
}

func selectWhether(account int64, domains []string) (string, []any) {
	if len(domains) == 0 {
		return "SELECT EXISTS (SELECT 1 FROM waiting WHERE account = ? AND delivered IS NULL)", []any{account}
	}
	return `SELECT EXISTS (SELECT 1 FROM json_each(?) AS d CROSS JOIN waiting AS w
		WHERE w.account = ? AND w.domain = d.value AND w.delivered IS NULL)`, []any{asJSON(domains), account}
}

func selectAmount(account int64, domains []string) (string, []any) {
	which, args := waitingFor(account, domains)
	return `
		SELECT count(*), coalesce(sum(size), 0), coalesce(min(since), 0)
		FROM (SELECT size, since FROM waiting WHERE ` + which + eachMessage + `)`, args
}

func selectPage(account int64, domains []string, after WaitingMessage, limit int) (string, []any) {
	which, args := waitingFor(account, domains)
	from := []any{-1, 0, 0, ""}
	if after.ID != "" {
		from = []any{after.Suspicion, after.Since.UnixMilli(), after.Host, after.ID}
	}
	return `
		SELECT host, queue_id, size, since, suspicion FROM waiting
		WHERE ` + which + ` AND (suspicion, since, host, queue_id) > (?, ?, ?, ?)` + eachMessage + `
		ORDER BY suspicion, since, host, queue_id LIMIT ?`, append(append(args, from...), limit)
}

func selectSuspects(account int64, limit int) (string, []any) {
	which, args := waitingFor(account, nil)
	return `
		SELECT host, queue_id, size, since, suspicion FROM waiting
		WHERE ` + which + ` AND suspicion >= ?` + eachMessage + ` ORDER BY since, host, queue_id LIMIT ?`, append(args, alone, limit)
}

// eachMessage makes one row of those of a message, which are next to each other in the index.
const eachMessage = " GROUP BY suspicion, since, host, queue_id"

// waitingFor is the condition of rows that wait for an account, and in one of the domains if there are any.
func waitingFor(account int64, domains []string) (string, []any) {
	const which = "account = ? AND delivered IS NULL"
	switch len(domains) {
	case 0:
		return which, []any{account}
	case 1:
		return which + " AND domain = ?", []any{account, domains[0]}
	}
	// The + has SQLite read them in their order, where it would sort what it finds domain by domain.
	return which + " AND +domain IN (SELECT value FROM json_each(?))", []any{account, asJSON(domains)}
}

func (l *Ledger) waitingMessages(ctx context.Context, sql string, args ...any) ([]WaitingMessage, error) {
	var list []WaitingMessage
	for rows, err := range l.rows(ctx, sql, args...) {
		var m WaitingMessage
		var since int64
		if err == nil {
			err = rows.Scan(&m.Host, &m.ID, &m.Size, &since, &m.Suspicion)
		}
		if err != nil {
			return nil, err
		}
		m.Since = moment(since)
		list = append(list, m)
	}
	return list, nil
}

// Delivered strikes messages off, in one batch, that wait no more for the account in the domains; without domains, in
// any.
func (l *Ledger) Delivered(ctx context.Context, account int64, domains []string, ids ...string) error {
	s := statement{`
		UPDATE waiting SET delivered = ? WHERE host = ? AND account = ? AND queue_id IN (SELECT value FROM json_each(?))`,
		[]any{l.opt.Now().UnixMilli(), l.opt.Host, account, asJSON(ids)}}
	if len(domains) > 0 {
		s.sql += " AND domain IN (SELECT value FROM json_each(?))"
		s.args = append(s.args, asJSON(domains))
	}
	return l.batch(ctx, s)
}

// StillWaits notes a message that an account did not take, where the index lacks it: it came to its turn
// by another way. It waits in those of the account's domains; without any, nobody knows in which.
func (l *Ledger) StillWaits(ctx context.Context, a *Account, domains []string, m WaitingMessage) error {
	return l.batch(ctx, l.noteWaiting(waitingRows(a, domains, m, l.opt.Now().UnixMilli()), ""))
}

// Suspect sets how far messages of the account are under suspicion, by their queue ID and in one batch.
func (l *Ledger) Suspect(ctx context.Context, account int64, suspicion map[string]int) error {
	return l.batch(ctx, statement{`
		UPDATE waiting SET suspicion = s.value FROM json_each(?) AS s WHERE host = ? AND account = ? AND queue_id = s.key`,
		[]any{asJSON(suspicion), l.opt.Host, account}})
}

// waitingRows are those of a message that waits for the account in some of its domains, or nobody knows in which: then
// it is in all of them until a pass over the queue tells.
func waitingRows(a *Account, domains []string, m WaitingMessage, noted int64) [][]any {
	var rows [][]any
	in := func(domain string) {
		rows = append(rows, []any{m.ID, a.ID, domain, m.Size, m.Since.UnixMilli(), noted, m.Suspicion})
	}
	for _, domain := range a.among(domains) {
		in(domain)
	}
	if rows == nil {
		for _, domain := range a.Domains {
			in(domain)
		}
	}
	return rows
}

// noteWaiting notes rows, on a condition, that are not noted yet. One that was delivered is another message by now: the
// MTA uses queue IDs again.
func (l *Ledger) noteWaiting(rows [][]any, condition string) statement {
	return statement{insertWaiting + condition + `
		ON CONFLICT DO UPDATE SET size = excluded.size, since = excluded.since, noted = excluded.noted,
			missed = 0, suspicion = excluded.suspicion, delivered = NULL
		WHERE delivered IS NOT NULL`, []any{asJSON(rows), l.opt.Host}}
}

// insertWaiting takes what [waitingRows] makes, and the host.
const insertWaiting = `
	INSERT INTO waiting (host, queue_id, account, domain, size, since, noted, suspicion)
	SELECT ?2, q.value ->> 0, q.value ->> 1, q.value ->> 2,
		coalesce((SELECT w.size ` + waitsAlready + `), q.value ->> 3),
		coalesce((SELECT w.since ` + waitsAlready + `), q.value ->> 4), q.value ->> 5,
		coalesce((SELECT w.suspicion ` + waitsAlready + `), q.value ->> 6)
	FROM json_each(?1) AS q WHERE true`

// waitsAlready is a row of the same message, which all others that wait have to be like.
const waitsAlready = "FROM waiting AS w WHERE w.host = ?2 AND w.queue_id = q.value ->> 0 AND w.account = q.value ->> 1 AND w.delivered IS NULL LIMIT 1"
