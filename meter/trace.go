package meter

import (
	"context"
	"errors"
	"os"
	"slices"
	"time"
)

// A CountedMessage is the evidence of a message for one of its accounts.
type CountedMessage struct {
	Account string    `json:"account"`
	QueueID string    `json:"queue_id"`
	At      time.Time `json:"at"`
	Bytes   int64     `json:"bytes"`
}

// A Sought message is looked for by its queue ID, and when it can have been counted.
type Sought struct {
	QueueID      string
	Since, Until time.Time
}

// Counted is the evidence there is of messages by their queue IDs. Other messages may have had one of these, too. That of days which
// left the ledger is read from their files.
func (l *Ledger) Counted(ctx context.Context, messages []Sought) ([]CountedMessage, error) {
	var list []CountedMessage
	ids := make([]string, len(messages))
	sought := map[string]Sought{}
	for i, m := range messages {
		ids[i] = m.QueueID
		sought[m.QueueID] = m
	}
	var files []archive
	// "A" is what follows "@".
	err := l.read(ctx, current, query{statement{`
		SELECT a.name, m.queue_id, m.at, m.size FROM json_each(?) AS id
		CROSS JOIN message m ON m.instance >= id.value || '@' AND m.instance < id.value || 'A'
		JOIN account a ON a.id = m.account`, []any{asJSON(ids)}}, func(r scanner) error {
		var m CountedMessage
		var at int64
		err := r.Scan(&m.Account, &m.QueueID, &at, &m.Bytes)
		m.At = moment(at)
		list = append(list, m)
		return err
	}}, archivesInto(&files, "", pastAll))
	if err != nil {
		return nil, err
	}
	files = slices.DeleteFunc(files, func(a archive) bool {
		return !slices.ContainsFunc(messages, func(m Sought) bool {
			return a.day >= day(m.Since.Add(-anyZone), time.UTC) && a.day <= day(m.Until.Add(anyZone), time.UTC)
		})
	})
	if len(files) == 0 {
		return list, nil
	}
	names := map[int64]string{}
	for rows, err := range l.rows(ctx, "SELECT id, name FROM account") {
		var id int64
		var name string
		if err == nil {
			err = rows.Scan(&id, &name)
		}
		if err != nil {
			return nil, err
		}
		names[id] = name
	}
	for _, a := range files {
		err := l.readEvidence(&a, func(r evidenceRow) error {
			m := CountedMessage{Account: names[r.account], QueueID: r.queueID, At: moment(r.at), Bytes: r.size}
			if _, wanted := sought[r.queueID]; wanted && !slices.Contains(list, m) {
				list = append(list, m)
			}
			return nil
		})
		if a.host != l.opt.Host && errors.Is(err, os.ErrNotExist) {
			continue // another host's messages are in its own log
		}
		if err != nil {
			return nil, l.lackingEvidence(a, err)
		}
	}
	return list, nil
}

// WaitingFor are the accounts for whose turns messages wait, by their queue IDs, as the index knows it.
func (l *Ledger) WaitingFor(ctx context.Context, queueIDs []string) (map[string][]string, error) {
	accounts := map[string][]string{}
	for rows, err := range l.rows(ctx, `
		SELECT w.queue_id, a.name FROM json_each(?) AS id CROSS JOIN waiting w ON w.host = ? AND w.queue_id = id.value
		JOIN account a ON a.id = w.account WHERE w.delivered IS NULL`, asJSON(queueIDs), l.opt.Host) {
		var id, name string
		if err == nil {
			err = rows.Scan(&id, &name)
		}
		if err != nil {
			return nil, err
		}
		if !slices.Contains(accounts[id], name) { // it may wait in several domains of one
			accounts[id] = append(accounts[id], name)
		}
	}
	return accounts, nil
}

// Owners are the accounts that have domains, by the domains. What is nobody's is not among them.
func (l *Ledger) Owners(ctx context.Context, domains []string) (map[string]string, error) {
	owners := map[string]string{}
	return owners, l.read(ctx, current, ownersInto(owners, domains))
}

func ownersInto(owners map[string]string, domains []string) query {
	return query{statement{`
		SELECT d.name, a.name FROM json_each(?) AS j CROSS JOIN domain d ON d.name = j.value JOIN account a ON a.id = d.account`,
		[]any{asJSON(domains)}}, func(r scanner) error {
		var domain, name string
		if err := r.Scan(&domain, &name); err != nil {
			return err
		}
		owners[domain] = name
		return nil
	}}
}

// TurnAt is the turn that an account had at a time, which is known to the second. It is nil where it had none, or one that is not kept any more.
func (l *Ledger) TurnAt(ctx context.Context, account string, at time.Time) (*Turn, error) {
	const exact = time.Second
	t := Turn{Account: account}
	var began, ended int64
	err := l.row(ctx, `
		SELECT kind, client, peer, began, coalesce(ended, 0), messages, bytes, coalesce(outcome, '') FROM turn
		WHERE account = (SELECT id FROM account WHERE name = ?) AND began <= ? ORDER BY began DESC LIMIT 1`,
		account, at.Add(exact).UnixMilli()).
		Scan(&t.Kind, &t.Client, &t.Peer, &began, &ended, &t.Messages, &t.Bytes, &t.Outcome)
	if errors.Is(err, errNoRow) {
		return nil, nil
	}
	t.Began, t.Ended = moment(began), moment(ended)
	if err != nil || !t.Ended.IsZero() && t.Ended.Add(exact).Before(at) {
		return nil, err
	}
	return &t, nil
}
