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

// ForgetPopSessions removes the records of sessions that ended before a time.
func (l *Ledger) ForgetPopSessions(ctx context.Context, before time.Time) error {
	return l.batch(ctx, statement{"DELETE FROM pop_session WHERE ended < ?", []any{before.UnixMilli()}})
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
		SELECT a.name, s.mailbox, s.client, s.tls, s.began, s.ended, s.fetched, s.bytes, s.deleted, s.outcome
		FROM pop_session s JOIN account a ON a.id = s.account
		WHERE ? IN ('', a.name) ORDER BY s.began DESC, s.id DESC LIMIT ?`, account, limit) {
		var s PopSession
		var began, ended int64
		if err == nil {
			err = rows.Scan(&s.Account, &s.Mailbox, &s.Client, &s.TLS, &began, &ended, &s.Fetched, &s.Bytes, &s.Deleted, &s.Outcome)
		}
		if err != nil {
			return nil, unavailable(err)
		}
		s.Began, s.Ended = time.UnixMilli(began).UTC(), time.UnixMilli(ended).UTC()
		list = append(list, s)
	}
	return list, nil
}
