package meter

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"time"
)

// A Change is one line of the history of an account or of a plan.
type Change struct {
	At      time.Time       `json:"at"`
	Who     string          `json:"who"`
	Account string          `json:"account,omitempty"`
	Plan    string          `json:"plan,omitempty"`
	Action  string          `json:"action"`
	Before  json.RawMessage `json:"before,omitempty"` // what was changed, as a JSON object; none for its first line
	After   json.RawMessage `json:"after,omitempty"`  // none for a plan that was removed
}

// A ChangeFilter says which changes are meant. What is zero leaves all in.
type ChangeFilter struct {
	Account string
	Since   time.Time // included
	Until   time.Time // excluded
	Who     string
	Action  string // a part of it, in any case
	Domain  string // that the account had before or after
	Limit   int    // the latest so many
}

// History returns all that operators changed on the account, oldest first. Deleted accounts have a
// history too.
func (l *Ledger) History(ctx context.Context, name string) ([]Change, error) {
	list, err := l.Changes(ctx, ChangeFilter{Account: name})
	if err == nil && len(list) == 0 {
		err = fmt.Errorf("%s: %w", name, ErrNoAccount)
	}
	return list, err
}

// Changes returns what operators changed on accounts, deleted ones among them, and on plans, oldest first.
func (l *Ledger) Changes(ctx context.Context, which ChangeFilter) ([]Change, error) {
	list := []Change{}
	text, args := which.query()
	for rows, err := range l.rows(ctx, text, args...) {
		var c Change
		var at int64
		var before, after string
		if err == nil {
			err = rows.Scan(&at, &c.Who, &c.Account, &c.Plan, &c.Action, &before, &after)
		}
		if err != nil {
			return nil, err
		}
		c.At, c.Before, c.After = moment(at), writtenMailboxes(before), writtenMailboxes(after)
		list = append(list, c)
	}
	slices.Reverse(list)
	return list, nil
}

// query asks for the latest first, by an index: that of one account's, or that of their time.
func (f ChangeFilter) query() (string, []any) {
	text := `
		SELECT c.at, c.who, coalesce(a.name, ''), coalesce(c.plan, ''), c.action, coalesce(c.before, ''), coalesce(c.after, '')
		FROM change c LEFT JOIN account a ON a.id = c.account WHERE `
	var args []any
	and := func(condition string, values ...any) {
		text += condition
		args = append(args, values...)
	}
	until := int64(math.MaxInt64)
	if !f.Until.IsZero() {
		until = f.Until.UnixMilli()
	}
	order := " ORDER BY c.at DESC, c.id DESC LIMIT ?"
	if f.Account != "" {
		and("c.account = (SELECT id FROM account WHERE name = ?) AND +c.at >= ? AND +c.at < ?", f.Account, f.Since.UnixMilli(), until)
		order = " ORDER BY c.id DESC LIMIT ?"
	} else {
		and("c.at >= ? AND c.at < ?", f.Since.UnixMilli(), until)
	}
	if f.Who != "" {
		and(" AND c.who = ?", f.Who)
	}
	if f.Action != "" {
		and(" AND instr(lower(c.action), lower(?)) > 0", f.Action)
	}
	if f.Domain != "" { // whatever has not its name in it need not be read as JSON
		and(` AND (instr(c.before, json_quote(?)) > 0 OR instr(c.after, json_quote(?)) > 0)
		AND EXISTS (SELECT 1 FROM json_each(json_array(c.before ->> '$.domains', c.after ->> '$.domains')) AS d, json_each(d.value) AS n
		            WHERE n.value = ?)`, f.Domain, f.Domain, f.Domain)
	}
	return text + order, append(args, cmp.Or(f.Limit, math.MaxInt32))
}

// writtenMailboxes has an account's document name its mailboxes as SMTP writes them.
func writtenMailboxes(document string) json.RawMessage {
	if document == "" {
		return nil
	}
	var account map[string]json.RawMessage
	var mailboxes []string
	if json.Unmarshal([]byte(document), &account) != nil || json.Unmarshal(account["mailboxes"], &mailboxes) != nil {
		return json.RawMessage(document)
	}
	changed := false
	for i, key := range mailboxes {
		mailboxes[i] = Written(key)
		changed = changed || mailboxes[i] != key
	}
	if !changed {
		return json.RawMessage(document)
	}
	account["mailboxes"] = json.RawMessage(asJSON(mailboxes))
	return json.RawMessage(asJSON(account))
}
