package meter

import (
	"context"
	"database/sql"
	"encoding/json"
	"time"
)

// A Notice is a message about an account's limit, its waiting mail or its silence. It is kept whole before it is handed
// to the MTA, so that whoever finds it not sent hands over the same one.
type Notice struct {
	ID         int64
	Account    int64    // 0: of several accounts; such a one is always made
	Subject    string   // what it is about: a notice of the same subject and level is made once
	Level      int64    // how far it has come; a lower one of the same subject is not made after it
	Recipients []string // none: it counts as sent, because a notice of several accounts tells the same
	Message    string
}

// An Occasion is the subject of an account's notices.
type Occasion struct {
	Account int64
	Subject string
}

// AddNotices keeps notices to be sent. One whose subject has a notice of its level or a higher one already,
// from this process or another, is left out.
func (l *Ledger) AddNotices(ctx context.Context, notices ...Notice) error {
	rows := [][]any{}
	for _, n := range notices {
		rows = append(rows, []any{n.Account, n.Subject, n.Level, asJSON(append([]string{}, n.Recipients...)), n.Message})
	}
	return l.batch(ctx, statement{`
		INSERT INTO notice (account, subject, level, recipient, message, made, sent)
		SELECT nullif(value ->> 0, 0), value ->> 1, value ->> 2, value ->> 3, value ->> 4, :now, iif(value ->> 3 = '[]', :now, NULL)
		FROM json_each(:notices) AS n
		WHERE NOT EXISTS (SELECT 1 FROM notice WHERE account = n.value ->> 0 AND subject = n.value ->> 1
		                  AND level >= n.value ->> 2 AND over IS NULL)`,
		[]any{sql.Named("now", l.opt.Now().UnixMilli()), sql.Named("notices", asJSON(rows))}})
}

// Noticed returns the highest level of each occasion that is not over.
func (l *Ledger) Noticed(ctx context.Context) (map[Occasion]int64, error) {
	levels := map[Occasion]int64{}
	for rows, err := range l.rows(ctx, "SELECT account, subject, max(level) FROM notice WHERE over IS NULL AND account IS NOT NULL GROUP BY account, subject") {
		var o Occasion
		var level int64
		if err == nil {
			err = rows.Scan(&o.Account, &o.Subject, &level)
		}
		if err != nil {
			return nil, err
		}
		levels[o] = level
	}
	return levels, nil
}

// EndOccasions lets the next notice of these subjects be another.
func (l *Ledger) EndOccasions(ctx context.Context, occasions ...Occasion) error {
	if len(occasions) == 0 {
		return nil
	}
	rows := [][]any{}
	for _, o := range occasions {
		rows = append(rows, []any{o.Account, o.Subject})
	}
	return l.batch(ctx, statement{`
		UPDATE notice SET over = ? WHERE over IS NULL
		AND (account, subject) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?))`,
		[]any{l.opt.Now().UnixMilli(), asJSON(rows)}})
}

// UnsentNotices returns the notices that are not known to be with the MTA, oldest first.
func (l *Ledger) UnsentNotices(ctx context.Context) ([]Notice, error) {
	var list []Notice
	for rows, err := range l.rows(ctx, `
		SELECT id, coalesce(account, 0), subject, level, recipient, message FROM notice WHERE sent IS NULL ORDER BY id`) {
		var n Notice
		var recipients string
		if err == nil {
			err = rows.Scan(&n.ID, &n.Account, &n.Subject, &n.Level, &recipients, &n.Message)
		}
		if err == nil {
			err = json.Unmarshal([]byte(recipients), &n.Recipients)
		}
		if err != nil {
			return nil, err
		}
		list = append(list, n)
	}
	return list, nil
}

// NoticeSent records that the MTA has the notice.
func (l *Ledger) NoticeSent(ctx context.Context, id int64, at time.Time) error {
	return l.batch(ctx, statement{"UPDATE notice SET sent = ? WHERE id = ?", []any{at.UnixMilli(), id}})
}
