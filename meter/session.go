package meter

import (
	"context"
	"errors"
	"math"
	"time"
)

// A PopSession is the record of one POP3 session, from log-in to end.
type PopSession struct {
	Account string    `json:"account"`
	Mailbox string    `json:"mailbox,omitempty"` // address; empty: the catch-all
	Client  string    `json:"client"`            // IP address
	TLS     string    `json:"tls,omitempty"`     // version; empty: none
	Began   time.Time `json:"began"`
	Ended   time.Time `json:"ended"`
	Fetched int64     `json:"fetched"` // messages
	Bytes   int64     `json:"bytes"`   // octets sent of them, whole or in part
	Deleted int64     `json:"deleted"` // messages
	Outcome string    `json:"outcome"` // "done", or why it ended

	// So many sessions of one day that fetched nothing, as one record: from the beginning of the first to the
	// end of the last, with the client of the last. 0: this is one session.
	Sessions int64 `json:"sessions,omitempty"`
}

// RecordPopSessions records sessions that have ended. Those of accounts that are not there are left out.
func (l *Ledger) RecordPopSessions(ctx context.Context, sessions []PopSession) error {
	var rows [][]any
	for _, s := range sessions {
		rows = append(rows, []any{s.Account, s.Mailbox, s.Client, s.TLS, s.Began.UnixMilli(), s.Ended.UnixMilli(),
			s.Fetched, s.Bytes, s.Deleted, s.Outcome})
	}
	return l.batch(ctx, statement{`
		INSERT INTO pop_session (account, mailbox, client, tls, began, ended, fetched, bytes, deleted, outcome)
		SELECT a.id, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7, value ->> 8, value ->> 9
		FROM json_each(?) JOIN account a ON a.name = value ->> 0`, []any{asJSON(rows)}},
		wasThere(`
		SELECT a.id, max(iif(value ->> 6 > 0, value ->> 5, 0)), max(iif(value ->> 9 = 'done', value ->> 5, 0))
		FROM json_each(?) JOIN account a ON a.name = value ->> 0
		WHERE a.deleted IS NULL AND (value ->> 6 > 0 OR value ->> 9 = 'done') GROUP BY a.id`, asJSON(rows)))
}

// idle is the condition of sessions that fetched nothing and have a row of their own.
const idle = "sessions = 0 AND fetched = 0 AND deleted = 0 AND bytes = 0"

// idleSession is where one is in the index of them.
type idleSession struct {
	account int64
	mailbox string
	began   int64
}

// countIdleSessions makes one row of a day's sessions that fetched nothing, for each mailbox and day that is over: who
// polls every minute would bury those that did. It says how many sessions they were.
func (l *Ledger) countIdleSessions(ctx context.Context, counted *int64) error {
	today := dayStart(l.opt.Now().In(l.opt.Location), 0).UnixMilli()
	var batch []statement
	var sessions int64 // in the batch
	write := func() error {
		if len(batch) == 0 {
			return nil
		}
		if err := l.leisurely(ctx, batch...); err != nil {
			return err
		}
		*counted += sessions
		batch, sessions = nil, 0
		return nil
	}
	var at idleSession
	for {
		next, err := l.idleAfter(ctx, at)
		switch {
		case errors.Is(err, errNoRow):
			return write()
		case err != nil:
			return err
		case next.began >= today:
			at = idleSession{next.account, next.mailbox, math.MaxInt64} // on to the next mailbox
			continue
		}
		end := l.dayEnd(next.began)
		n, err := l.idleUntil(ctx, next, end)
		if err != nil {
			return err
		}
		args := []any{next.account, next.mailbox, next.began, end}
		// SQLite gives the bare columns of the row that has the max.
		batch = append(batch, statement{`
			INSERT INTO pop_session (account, mailbox, client, tls, began, ended, fetched, bytes, deleted, outcome, sessions)
			SELECT account, mailbox, client, tls, min(began), max(ended), 0, 0, 0, 'done', count(*)` + theseIdle + " GROUP BY mailbox", args},
			statement{"DELETE" + theseIdle, args})
		if sessions += n; sessions >= pruneChunk {
			if err := write(); err != nil {
				return err
			}
		}
		at = idleSession{next.account, next.mailbox, end - 1}
	}
}

const theseIdle = " FROM pop_session WHERE " + idle + " AND account = ? AND mailbox = ? AND began >= ? AND began < ?"

// idleAfter returns the next one in the order of account, mailbox and time, or errNoRow.
func (l *Ledger) idleAfter(ctx context.Context, at idleSession) (next idleSession, err error) {
	err = l.row(ctx, "SELECT account, mailbox, began FROM pop_session WHERE "+idle+`
		AND (account, mailbox, began) > (?, ?, ?) ORDER BY account, mailbox, began LIMIT 1`, at.account, at.mailbox, at.began).
		Scan(&next.account, &next.mailbox, &next.began)
	return next, err
}

// idleUntil counts those of the mailbox from one on and up to the end of a day.
func (l *Ledger) idleUntil(ctx context.Context, first idleSession, end int64) (n int64, err error) {
	err = l.row(ctx, "SELECT count(*)"+theseIdle, first.account, first.mailbox, first.began, end).Scan(&n)
	return n, err
}

// dayEnd is the end of the calendar day of a time, both in Unix milliseconds.
func (l *Ledger) dayEnd(at int64) int64 {
	t := time.UnixMilli(at).In(l.opt.Location)
	end := dayStart(t, 1)
	for !end.After(t) { // in a time zone that skips days
		end = end.Add(24 * time.Hour)
	}
	return end.UnixMilli()
}

// dayStart is the beginning of the calendar day of t, or of one so many days later.
func dayStart(t time.Time, later int) time.Time {
	return time.Date(t.Year(), t.Month(), t.Day()+later, 0, 0, 0, 0, t.Location())
}

// PopSessions returns the latest sessions, newest first, of an account or of all where it is empty.
// Deleted accounts' sessions are among them.
func (l *Ledger) PopSessions(ctx context.Context, account string, limit int) ([]PopSession, error) {
	list := []PopSession{}
	const columns = "a.name, r.mailbox, r.client, r.tls, r.began, r.ended, r.fetched, r.bytes, r.deleted, r.outcome, r.sessions"
	text, args := latest(columns, "pop_session", "id", account, limit)
	for rows, err := range l.rows(ctx, text, args...) {
		var s PopSession
		var began, ended int64
		if err == nil {
			err = rows.Scan(&s.Account, &s.Mailbox, &s.Client, &s.TLS, &began, &ended, &s.Fetched, &s.Bytes, &s.Deleted, &s.Outcome, &s.Sessions)
		}
		if err != nil {
			return nil, err
		}
		s.Began, s.Ended = moment(began), moment(ended)
		list = append(list, s)
	}
	return list, nil
}
