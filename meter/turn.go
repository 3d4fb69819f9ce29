package meter

import (
	"context"
	"encoding/json"
	"errors"
	"time"
)

// TurnKind says who opens the connection of a turn.
type TurnKind string

const (
	TurnATRN TurnKind = "atrn" // the customer's, reversed (RFC 2645)
	TurnETRN TurnKind = "etrn" // dialled to the account's host (RFC 1985)
)

// A Turn is the record of one turn.
type Turn struct {
	Account  string    `json:"account"`
	Kind     TurnKind  `json:"kind"`
	Client   string    `json:"client"`        // IP address of who asked for it
	Peer     string    `json:"peer"`          // where the mail went
	TLS      string    `json:"tls,omitempty"` // version; empty: none
	Began    time.Time `json:"began"`
	Ended    time.Time `json:"ended,omitzero"`    // zero while it runs
	Messages int64     `json:"messages"`          // taken by the customer's server for at least one recipient
	Bytes    int64     `json:"bytes"`             // octets of their content
	Outcome  string    `json:"outcome,omitempty"` // "done", or why it ended

	Connections int      `json:"connections"`        // over which it went, one after the other
	Suspects    []string `json:"suspects,omitempty"` // queue IDs under which one broke while they went alone
}

// ErrTurnOpen says that the account has a turn already, on another host.
var ErrTurnOpen = errors.New("the account has a turn already")

// BeginTurn records that a turn begins. The token, which the caller makes up, names it to EndTurn. The caller has no other turn
// of the account: one that this host has open is over, and its end could not be recorded. Error: [ErrTurnOpen].
func (l *Ledger) BeginTurn(ctx context.Context, token string, account int64, t Turn) error {
	former := l.interruptTurns(t.Began, " AND account = ?", account)
	err := l.batch(ctx, former, l.beginTurn(token, account, t, nil))
	if violates(err, "UNIQUE constraint failed: turn.account") {
		return ErrTurnOpen
	}
	return err
}

// EndTurn records how the turn ended, and where its mail went: that of a dialled one was not known at its beginning.
func (l *Ledger) EndTurn(ctx context.Context, token string, t Turn) error {
	return l.batch(ctx, endTurn(token, t)...)
}

// RecordTurn records, in one commit, a turn that was over before anything began.
func (l *Ledger) RecordTurn(ctx context.Context, token string, account int64, t Turn) error {
	return l.batch(ctx, append([]statement{l.beginTurn(token, account, t, t.Ended.UnixMilli())}, endTurn(token, t)...)...)
}

func (l *Ledger) beginTurn(token string, account int64, t Turn, ended any) statement {
	return statement{`
		INSERT INTO turn (token, account, kind, client, peer, tls, began, ended, host, alive) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		[]any{token, account, t.Kind, t.Client, t.Peer, t.TLS, t.Began.UnixMilli(), ended, l.opt.Host, l.opt.Now().UnixMilli()}}
}

func endTurn(token string, t Turn) []statement {
	return []statement{{`
		UPDATE turn SET peer = ?, tls = ?, ended = ?, messages = ?, bytes = ?, outcome = ?, connections = ?, suspects = ?
		WHERE token = ?`,
		[]any{t.Peer, t.TLS, t.Ended.UnixMilli(), t.Messages, t.Bytes, t.Outcome, t.Connections, asJSON(t.Suspects), token}},
		wasThere(`
		SELECT r.account, iif(r.messages > 0, r.ended, 0), iif(r.outcome = 'done', r.ended, 0)
		FROM turn r JOIN account a ON a.id = r.account
		WHERE r.token = ? AND a.deleted IS NULL AND (r.messages > 0 OR r.outcome = 'done')`, token)}
}

// InterruptTurns records of turns that never ended that they were interrupted: the process in which
// they ran is gone. Only one that runs no turn yet may call it.
func (l *Ledger) InterruptTurns(ctx context.Context) error {
	return l.batch(ctx, l.interruptTurns(l.opt.Now(), ""))
}

// interruptTurns ends those of this host that are open, on a condition.
func (l *Ledger) interruptTurns(ended time.Time, condition string, args ...any) statement {
	return statement{"UPDATE turn SET ended = ?, outcome = 'interrupted' WHERE ended IS NULL AND host = ?" + condition,
		append([]any{ended.UnixMilli(), l.opt.Host}, args...)}
}

// Turns returns the latest turns, newest first, of an account or of all where it is empty. Deleted
// accounts' turns are among them.
func (l *Ledger) Turns(ctx context.Context, account string, limit int) ([]Turn, error) {
	list := []Turn{}
	const columns = `a.name, r.kind, r.client, r.peer, r.tls, r.began, coalesce(r.ended, 0), r.messages, r.bytes, coalesce(r.outcome, ''),
		r.connections, r.suspects`
	text, args := latest(columns, "turn", "token", account, limit)
	for rows, err := range l.rows(ctx, text, args...) {
		var t Turn
		var began, ended int64
		var suspects []byte
		if err == nil {
			err = rows.Scan(&t.Account, &t.Kind, &t.Client, &t.Peer, &t.TLS, &began, &ended, &t.Messages, &t.Bytes, &t.Outcome, &t.Connections, &suspects)
		}
		if err == nil {
			err = json.Unmarshal(suspects, &t.Suspects)
		}
		if err != nil {
			return nil, err
		}
		t.Began, t.Ended = moment(began), moment(ended)
		list = append(list, t)
	}
	return list, nil
}
