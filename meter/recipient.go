package meter

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"time"
)

// AddRecipients puts addresses on the account's recipient list; those that are there already are no
// error. Errors: [ErrNoAccount], [ErrNoDomain].
func (l *Ledger) AddRecipients(ctx context.Context, name string, addresses ...Address) error {
	return l.addRecipients(ctx, name, fmt.Sprintf("recipient add %s", several(addresses)), asJSON(lines(addresses)))
}

// addRecipients has them as [lines]. They are put on lists that imports make meanwhile, too, so that it is all the same which
// is in force when.
func (l *Ledger) addRecipients(ctx context.Context, name, action, these string) error {
	return foreignDomain(l.change(ctx, name, action, statement{`
		INSERT OR IGNORE INTO recipient_list (account, domain, at)
		SELECT DISTINCT ` + accountID + `, value ->> 1, ? FROM json_each(?) ORDER BY 2`, []any{name, l.opt.Now().UnixMilli(), these}}, statement{`
		INSERT OR IGNORE INTO recipient (list, address)
		SELECT l.id, value ->> 0 FROM json_each(?) CROSS JOIN recipient_list l ON l.domain = value ->> 1`, []any{these}}))
}

// RemoveRecipients takes addresses off the account's list and returns how many were on it.
func (l *Ledger) RemoveRecipients(ctx context.Context, name string, addresses ...Address) (int, error) {
	these := asJSON(lines(addresses))
	listed, err := l.countListed(ctx, name, these)
	if err != nil {
		return 0, err
	}
	return listed, l.change(ctx, name, fmt.Sprintf("recipient remove %s", several(addresses)), statement{`
		DELETE FROM recipient WHERE (list, address) IN (
			SELECT l.id, value ->> 0 FROM json_each(?) CROSS JOIN domain d ON d.name = value ->> 1 AND d.account = ` + accountID + `
			CROSS JOIN recipient_list l ON l.domain = d.name)`, []any{these, name}})
}

// countListed counts those of the addresses, as [lines], that are on the account's list.
func (l *Ledger) countListed(ctx context.Context, name, these string) (listed int, err error) {
	err = l.row(ctx, `
		SELECT count(*) FROM json_each(?) CROSS JOIN recipient_list l ON l.account = `+accountID+` AND l.domain = value ->> 1
		CROSS JOIN recipient r ON r.list = l.id AND r.address = value ->> 0`, these, name).Scan(&listed)
	return listed, err
}

// lines are addresses as statements have them: pairs of a key and a domain.
func lines(addresses []Address) [][2]string {
	pairs := [][2]string{}
	for _, a := range addresses {
		pairs = append(pairs, [2]string{a.Key(), a.Domain})
	}
	return pairs
}

// Accepts reports whether an account of the snapshot takes mail for an address in one of its domains: by its mailboxes, and,
// where it accepts listed recipients only, by its list. An address with an extension (user+x) is accepted where the one
// without is. It refuses none that the ledger would not refuse now, whatever has changed since the snapshot.
func (l *Ledger) Accepts(ctx context.Context, d *Directory, a *Account, addr Address) (accepts bool, err error) {
	hasMailbox := d.Delivery(a, addr) != ""
	switch {
	case a.Mode == POP3 && !a.CatchAll:
		return hasMailbox, nil
	case a.Recipients != ListedRecipient || hasMailbox:
		return true, nil
	}
	look := query{statement{`
		SELECT a.recipients <> 'list' OR EXISTS (
			SELECT 1 FROM recipient_list l CROSS JOIN recipient r ON r.list = l.id AND r.address IN (SELECT value FROM json_each(?))
			WHERE l.account = a.id AND l.domain = d.name)
		FROM domain d CROSS JOIN account a ON a.id = d.account WHERE d.name = ?`, []any{asJSON(withoutExtension(addr)), addr.Domain}},
		func(r scanner) error { return r.Scan(&accepts) }}
	if err = l.read(ctx, near, look); err == nil && !accepts {
		err = l.read(ctx, current, look)
	}
	return accepts, err
}

// RecipientCount is how many addresses are on the account's recipient list.
func (l *Ledger) RecipientCount(ctx context.Context, account int64) (n int, err error) {
	err = l.row(ctx, "SELECT coalesce(sum(size), 0) FROM recipient_list WHERE account = ?", account).Scan(&n)
	return n, err
}

// Recipients yields the account's recipient list in the order of domains and then of addresses. What is changed meanwhile
// may be seen or not.
func (l *Ledger) Recipients(ctx context.Context, account int64) iter.Seq2[string, error] {
	return paged(func(after string) (some []string, err error) {
		domain := after[strings.LastIndexByte(after, '@')+1:]
		read := func(condition, order string, args ...any) {
			if err != nil || len(some) == page {
				return
			}
			for rows, failure := range l.rows(ctx, `
				SELECT r.address FROM recipient_list l CROSS JOIN recipient r ON r.list = l.id WHERE l.account = ? AND `+condition+`
				ORDER BY `+order+` LIMIT ?`, append([]any{account}, append(args, page-len(some))...)...) {
				var address string
				if failure == nil {
					failure = rows.Scan(&address)
				}
				if err = failure; err != nil {
					return
				}
				some = append(some, address)
			}
		}
		read("l.domain = ? AND r.address > ?", "r.address", domain, after)
		read("l.domain > ?", "l.domain, l.id, r.address", domain)
		return some, err
	})
}

// keepImport is how long an import may take, after which it is taken to have died.
const keepImport = 24 * time.Hour

// sweepLists deletes what is in recipient lists that are in force no more, and those that imports left when they died.
func (l *Ledger) sweepLists(ctx context.Context, swept *int64) error {
	dead := l.opt.Now().Add(-keepImport).UnixMilli()
	var spare int
	err := l.row(ctx, `
		SELECT (SELECT count(*) FROM recipient_list WHERE domain IS NULL) + (SELECT count(*) FROM recipient_list WHERE import IS NOT NULL AND at < ?)`, dead).
		Scan(&spare)
	if err != nil || spare == 0 {
		return err
	}
	err = l.batch(ctx, statement{"UPDATE recipient_list SET domain = NULL, import = NULL WHERE import IS NOT NULL AND at < ?", []any{dead}})
	if err != nil {
		return err
	}
	if err := l.prune(ctx, swept, "recipient", "list, address", "list IN (SELECT id FROM recipient_list WHERE domain IS NULL)"); err != nil {
		return err
	}
	return l.batch(ctx, statement{sql: "DELETE FROM recipient_list WHERE domain IS NULL AND NOT EXISTS (SELECT 1 FROM recipient WHERE list = recipient_list.id)"})
}

// afterwards sweeps the lists of a change that succeeded. What cannot be deleted now is found by [Ledger.Prune].
func (l *Ledger) afterwards(ctx context.Context, err error) error {
	if err == nil {
		l.sweepLists(ctx, new(int64))
	}
	return err
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
