package meter

import (
	"context"
	"encoding/json"
	"time"
)

// evidence makes the statements of one commit. The rows travel as one JSON parameter each, so that
// a batch is two statements whatever its size; but a message for an account that takes no mail above its limit has statements
// of its own, because what comes before it counts.
func (l *Ledger) evidence(batch []*pending) []statement {
	var rows, waiting, waitingBelow [][]any
	var below []statement
	noted := l.opt.Now().UnixMilli()
	for _, p := range batch {
		m := &p.message
		its, waits := l.evidenceRows(m, noted)
		if len(m.Limits) == 0 {
			rows, waiting = append(rows, its...), append(waiting, waits...)
			continue
		}
		below = append(below, l.insertMessages(its, belowLimits))
		for _, row := range waits {
			waitingBelow = append(waitingBelow, append(row, m.Instance))
		}
	}
	var statements []statement
	if len(rows) > 0 {
		statements = append(statements, l.insertMessages(rows, ""))
	}
	if len(waiting) > 0 {
		statements = append(statements, l.noteWaiting(waiting, ""))
	}
	statements = append(statements, below...)
	if len(waitingBelow) > 0 {
		statements = append(statements, l.noteWaiting(waitingBelow, " AND EXISTS (SELECT 1 FROM message WHERE instance = q.value ->> 7 AND account = q.value ->> 1)"))
	}
	return statements
}

// evidenceRows are those of a message in tables message and waiting.
func (l *Ledger) evidenceRows(m *Message, noted int64) (rows, waiting [][]any) {
	at, on := m.At.UnixMilli(), day(m.At, l.opt.Location)
	for _, a := range m.Accounts {
		row := []any{m.Instance, a.ID, at, on, m.QueueID, m.Size, m.Client, a.among(m.Domains)}
		if limit, found := m.Limits[a.ID]; found {
			row = append(row, limit.Messages, limit.Bytes)
		}
		rows = append(rows, row)
		if a.Held() && m.QueueID != "" {
			waiting = append(waiting, waitingRows(a, m.Domains, WaitingMessage{ID: m.QueueID, Size: m.Size, Since: m.At}, noted)...)
		}
	}
	return rows, waiting
}

// insertMessages counts messages that are not counted yet, on a condition.
func (l *Ledger) insertMessages(rows [][]any, condition string) statement {
	return statement{`
		INSERT INTO message (host, instance, account, at, day, queue_id, size, client, domains)
		SELECT ?2, value ->> 0, value ->> 1, value ->> 2, ` + countedOn + `, value ->> 4, value ->> 5, value ->> 6, value -> 7
		FROM json_each(?1) WHERE true` + condition + `
		ON CONFLICT DO NOTHING`, []any{asJSON(rows), l.opt.Host}}
}

// countedOn is the day of a row of evidence. What is of a closed month, by another time zone than it was closed
// in or a clock that was set back, is recorded on the first day after all closed months: its own could not be billed
// any more.
const countedOn = `iif(substr(value ->> 3, 1, 7) IN (SELECT month FROM closed_month),
	(SELECT date(max(month) || '-01', '+1 month') FROM closed_month), value ->> 3)`

// belowLimits is true while each of a message's accounts that have a limit is below it.
const belowLimits = ` AND NOT EXISTS (
	SELECT 1 FROM (SELECT value, substr(` + countedOn + `, 1, 7) AS month FROM json_each(?1)) AS l
	CROSS JOIN month_usage AS u ON u.month = l.month AND u.account = l.value ->> 1
	WHERE u.messages >= nullif(l.value ->> 8, 0) OR u.bytes >= nullif(l.value ->> 9, 0))`

// uncounted returns which of the messages, by their place in the list, are not counted for all of their accounts.
func (l *Ledger) uncounted(ctx context.Context, messages []*Message) (places map[int]bool, err error) {
	var rows [][]any
	for i, m := range messages {
		for _, a := range m.Accounts {
			rows = append(rows, []any{i, m.Instance, a.ID})
		}
	}
	places = map[int]bool{}
	err = l.read(ctx, current, query{statement{`
		SELECT value ->> 0 FROM json_each(?)
		WHERE NOT EXISTS (SELECT 1 FROM message WHERE instance = value ->> 1 AND account = value ->> 2)`, []any{asJSON(rows)}}, func(r scanner) error {
		var place int
		err := r.Scan(&place)
		places[place] = true
		return err
	}})
	return places, err
}

// asJSON is a parameter for json_each. Its values are numbers and strings, which always encode.
func asJSON(rows any) string {
	text, err := json.Marshal(rows)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// withdraw makes it as if messages had never been counted. The bill of a closed month stays as it is. Which message was the
// last one is not known after one of the same size went; but it crosses no limit then any more.
func (l *Ledger) withdraw(messages []entry) error {
	instances := make([]string, len(messages))
	for i, e := range messages {
		instances[i] = e.instance
	}
	of := []any{asJSON(instances)}
	const these = "message WHERE instance IN (SELECT value FROM json_each(?1))"
	const theirDomains = "FROM (SELECT substr(day, 1, 7) AS month, account, size, domains FROM " + these + "), json_each(domains)"
	return l.batch(context.Background(),
		statement{"DELETE FROM waiting WHERE (host, queue_id, account) IN (SELECT host, queue_id, account FROM " + these + ")", of},
		statement{`
			UPDATE usage SET messages = usage.messages - w.messages, bytes = usage.bytes - w.bytes, last = iif(
				EXISTS (SELECT 1 FROM ` + these + ` AND account = usage.account AND day = usage.day AND size = usage.last),
				coalesce((
					SELECT size FROM message AS m
					WHERE m.account = usage.account AND m.day = usage.day AND m.instance NOT IN (SELECT value FROM json_each(?1))
					ORDER BY at DESC, instance DESC LIMIT 1), usage.last), usage.last)
			FROM (SELECT account, day, count(*) AS messages, sum(size) AS bytes FROM ` + these + ` GROUP BY account, day) AS w
			WHERE usage.account = w.account AND usage.day = w.day`, of},
		statement{`
			UPDATE domain_usage SET messages = domain_usage.messages - w.messages, bytes = domain_usage.bytes - w.bytes
			FROM (SELECT month, account, value AS domain, count(*) AS messages, sum(size) AS bytes ` + theirDomains + ` GROUP BY 1, 2, 3) AS w
			WHERE domain_usage.month = w.month AND domain_usage.account = w.account AND domain_usage.domain = w.domain`, of},
		statement{"DELETE FROM usage WHERE messages = 0 AND (account, day) IN (SELECT account, day FROM " + these + ")", of},
		statement{"DELETE FROM domain_usage WHERE messages = 0 AND (month, account, domain) IN (SELECT month, account, value " + theirDomains + ")", of},
		statement{"DELETE FROM " + these, of})
}

// CountedUnder returns the accounts for which a message was counted under one of this host's queue IDs, since then; one may be named
// several times.
func (r *Recorder) CountedUnder(ctx context.Context, queueIDs []string, since time.Time) ([]int64, error) {
	var accounts []int64
	// "A" is what follows "@".
	for rows, err := range r.ledger.rows(ctx, `
		SELECT account FROM json_each(?) AS id CROSS JOIN message
		WHERE instance >= id.value || '@' AND instance < id.value || 'A' AND at >= ? AND host = ?`, asJSON(queueIDs), since.UnixMilli(), r.ledger.opt.Host) {
		var id int64
		if err == nil {
			err = rows.Scan(&id)
		}
		if err != nil {
			return nil, err
		}
		accounts = append(accounts, id)
	}
	return accounts, nil
}
