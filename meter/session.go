package meter

import (
	"context"
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
		FROM json_each(?) JOIN account a ON a.name = value ->> 0`, []any{asJSON(rows)}})
}

// idle is the condition of sessions that fetched nothing, of days that are over, and have a row of their own.
const idle = "sessions = 0 AND fetched = 0 AND deleted = 0 AND bytes = 0 AND began < ?"

// countIdleSessions makes one row of a day's sessions that fetched nothing, for each mailbox: who polls every
// minute would bury those that did. It says how many sessions they were.
func (l *Ledger) countIdleSessions(ctx context.Context, counted *int64) error {
	today := dayStart(l.opt.Now().In(l.opt.Location), 0)
	accounts, err := l.everyAccount(ctx)
	if err != nil {
		return err
	}
	for _, account := range accounts {
		for {
			n, oldest, err := l.idleSessions(ctx, account, today)
			if err != nil {
				return err
			}
			if n == 0 {
				break
			}
			end := dayStart(oldest.In(l.opt.Location), 1)
			for !end.After(oldest) { // in a time zone that skips days
				end = end.Add(24 * time.Hour)
			}
			if n, _, err = l.idleSessions(ctx, account, end); err != nil {
				return err
			}
			args := []any{end.UnixMilli(), account}
			const those = " FROM pop_session WHERE " + idle + " AND account = ?"
			// SQLite gives the bare columns of the row that has the max.
			if err := l.batch(ctx, statement{`
				INSERT INTO pop_session (account, mailbox, client, tls, began, ended, fetched, bytes, deleted, outcome, sessions)
				SELECT account, mailbox, client, tls, min(began), max(ended), 0, 0, 0, 'done', count(*)` + those + ` GROUP BY mailbox`, args},
				statement{"DELETE" + those, args}); err != nil {
				return err
			}
			*counted += n
		}
	}
	return nil
}

// idleSessions counts what is to be made one row, and says when the first began.
func (l *Ledger) idleSessions(ctx context.Context, account int64, before time.Time) (n int64, oldest time.Time, err error) {
	db, err := l.reader(ctx)
	if err != nil {
		return 0, oldest, err
	}
	var began int64
	err = db.QueryRowContext(ctx, "SELECT count(*), coalesce(min(began), 0) FROM pop_session WHERE "+idle+" AND account = ?",
		before.UnixMilli(), account).Scan(&n, &began)
	return n, time.UnixMilli(began), unavailable(err)
}

// dayStart is the beginning of the calendar day of t, or of one so many days later.
func dayStart(t time.Time, later int) time.Time {
	return time.Date(t.Year(), t.Month(), t.Day()+later, 0, 0, 0, 0, t.Location())
}

// PopSessions returns the latest sessions, newest first, of an account or of all where it is empty.
// Deleted accounts' sessions are among them.
func (l *Ledger) PopSessions(ctx context.Context, account string, limit int) ([]PopSession, error) {
	db, err := l.reader(ctx)
	if err != nil {
		return nil, err
	}
	list := []PopSession{}
	for rows, err := range query(ctx, db, `
		SELECT a.name, s.mailbox, s.client, s.tls, s.began, s.ended, s.fetched, s.bytes, s.deleted, s.outcome, s.sessions
		FROM pop_session s JOIN account a ON a.id = s.account
		WHERE ? IN ('', a.name) ORDER BY s.began DESC, s.id DESC LIMIT ?`, account, limit) {
		var s PopSession
		var began, ended int64
		if err == nil {
			err = rows.Scan(&s.Account, &s.Mailbox, &s.Client, &s.TLS, &began, &ended, &s.Fetched, &s.Bytes, &s.Deleted, &s.Outcome, &s.Sessions)
		}
		if err != nil {
			return nil, unavailable(err)
		}
		s.Began, s.Ended = time.UnixMilli(began).UTC(), time.UnixMilli(ended).UTC()
		list = append(list, s)
	}
	return list, nil
}
