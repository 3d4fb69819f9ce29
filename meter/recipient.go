package meter

import (
	"context"
	"crypto/rand"
	"fmt"
	"iter"
	"time"
)

// AddRecipients puts addresses on the account's recipient list; those that are there already are no
// error. Errors: [ErrNoAccount], [ErrNoDomain].
func (l *Ledger) AddRecipients(ctx context.Context, name string, addresses ...Address) error {
	rows := [][]any{}
	for _, a := range addresses {
		rows = append(rows, []any{a.Key(), a.Domain})
	}
	err := l.change(ctx, name, fmt.Sprintf("recipient add %s", several(addresses)), statement{`
		INSERT OR IGNORE INTO recipient (account, address, domain)
		SELECT ` + accountID + `, value ->> 0, value ->> 1 FROM json_each(?)`, []any{name, asJSON(rows)}})
	return foreignDomain(err)
}

// RemoveRecipients takes addresses off the account's list and returns how many were on it.
func (l *Ledger) RemoveRecipients(ctx context.Context, name string, addresses ...Address) (int, error) {
	keys := []string{}
	for _, a := range addresses {
		keys = append(keys, a.Key())
	}
	const these = ` FROM recipient WHERE account = ` + accountID + ` AND address IN (SELECT value FROM json_each(?))`
	var listed int
	if err := l.row(ctx, "SELECT count(*)"+these, name, asJSON(keys)).Scan(&listed); err != nil {
		return 0, err
	}
	return listed, l.change(ctx, name, fmt.Sprintf("recipient remove %s", several(addresses)),
		statement{"DELETE" + these, []any{name, asJSON(keys)}})
}

// Recipients yields the account's recipient list in order. What is changed meanwhile may be seen or not.
func (l *Ledger) Recipients(ctx context.Context, account int64) iter.Seq2[string, error] {
	return paged(func(after string) ([]string, error) {
		var list []string
		for rows, err := range l.rows(ctx, `
			SELECT address FROM recipient WHERE account = ? AND address > ? ORDER BY address LIMIT ?`, account, after, page) {
			var address string
			if err == nil {
				err = rows.Scan(&address)
			}
			if err != nil {
				return nil, err
			}
			list = append(list, address)
		}
		return list, nil
	})
}

// importChunk is how many addresses of an import one batch stages.
const importChunk = 5000

// An Imported says what an import did.
type Imported struct {
	Listed  int // addresses that the file named, without repeats
	Added   int
	Removed int // only where the list was replaced
}

// ImportRecipients adds a list of addresses, or replaces the account's list with it, at one moment:
// mail is checked against the old list until the new one is whole. The addresses are staged in
// batches first, so that the daemons never wait for a long write; progress is told how many. An
// error of the sequence ends the import with nothing changed. Replacing with nothing is [ErrInvalid]:
// it would refuse all the account's mail.
func (l *Ledger) ImportRecipients(ctx context.Context, name string, replace bool, addresses iter.Seq2[Address, error], progress func(staged int)) (Imported, error) {
	var done Imported
	token := rand.Text()
	now := l.opt.Now()
	discard := statement{"DELETE FROM recipient_import WHERE token = ? OR at < ?",
		[]any{token, now.Add(-24 * time.Hour).UnixMilli()}}
	defer func() { l.batch(context.WithoutCancel(ctx), discard) }()
	staged := 0
	var rows [][]any
	stage := func() error {
		if len(rows) == 0 {
			return nil
		}
		err := l.batch(ctx, statement{`
			INSERT OR IGNORE INTO recipient_import (token, address, domain, at)
			SELECT ?, value ->> 0, value ->> 1, ? FROM json_each(?)`, []any{token, now.UnixMilli(), asJSON(rows)}})
		staged += len(rows)
		rows = rows[:0]
		progress(staged)
		return err
	}
	for address, err := range addresses {
		if err != nil {
			return done, err
		}
		rows = append(rows, []any{address.Key(), address.Domain})
		if len(rows) == importChunk {
			if err := stage(); err != nil {
				return done, err
			}
		}
	}
	if err := stage(); err != nil {
		return done, err
	}
	if staged == 0 && replace {
		return done, invalid("the list is empty; replacing with it would refuse all of the account's mail")
	}
	err := l.row(ctx, `
		WITH old AS (SELECT address FROM recipient WHERE account = `+accountID+`),
		     new AS (SELECT address FROM recipient_import WHERE token = ?)
		SELECT (SELECT count(*) FROM new),
		       (SELECT count(*) FROM new WHERE address NOT IN old),
		       (SELECT count(*) FROM old WHERE address NOT IN new)`, name, token).
		Scan(&done.Listed, &done.Added, &done.Removed)
	if err != nil {
		return done, err
	}
	statements := []statement{{`
		INSERT OR IGNORE INTO recipient (account, address, domain)
		SELECT ` + accountID + `, address, domain FROM recipient_import WHERE token = ?`, []any{name, token}}}
	action := fmt.Sprintf("recipient import of %d", done.Listed)
	if replace {
		action = fmt.Sprintf("recipient import --replace of %d", done.Listed)
		statements = append(statements, statement{`
			DELETE FROM recipient WHERE account = ` + accountID + `
			AND address NOT IN (SELECT address FROM recipient_import WHERE token = ?)`, []any{name, token}})
	} else {
		done.Removed = 0
	}
	return done, foreignDomain(l.change(ctx, name, action, statements...))
}

// foreignDomain makes the schema's word that an address is outside the account's domains readable.
func foreignDomain(err error) error {
	if violates(err, "FOREIGN KEY constraint failed") {
		return fmt.Errorf("an address is in none of the account's domains: %w", ErrNoDomain)
	}
	return err
}

// several is how a history line names addresses: all of a few, the number of many.
func several(addresses []Address) string {
	if len(addresses) > 3 {
		return fmt.Sprintf("of %d", len(addresses))
	}
	text := ""
	for i, a := range addresses {
		if i > 0 {
			text += " "
		}
		text += Written(a.Key())
	}
	return text
}
