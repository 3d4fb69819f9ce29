package meter

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
)

// An Amendment is what an account is to be: a new one, or one that is there.
type Amendment struct {
	Before    *Account // as a Directory has it; nil: it is new
	After     Account
	Added     []string             // keys of mailboxes
	Removed   []string             // and of those that are taken away
	Verifiers map[string]*Verifier // by log-in, of those that are new
}

// Amend makes all the accounts what they are to be, or none: revision is that of the Directory that they were before. A
// domain or an address may go from one of them to another. A mailbox begins empty, as with [Ledger.AddMailbox]. Errors:
// [ErrChanged] where an account is not as it was, [ErrInvalid], [ErrNameTaken], [ErrDomainTaken].
func (l *Ledger) Amend(ctx context.Context, revision int64, amendments []Amendment) error {
	var names, domains []string
	for i := range amendments {
		if err := amendments[i].check(); err != nil {
			return fmt.Errorf("%s: %w", amendments[i].After.Name, err)
		}
		names, domains = append(names, amendments[i].After.Name), append(domains, amendments[i].After.Domains...)
	}
	err := l.batch(ctx, l.amend(revision, amendments)...)
	switch {
	case ofNothing(err):
		return l.whichChanged(ctx, revision, names)
	case violates(err, "UNIQUE constraint failed: account.name"):
		return l.whichTaken(ctx, amendments)
	case domainTaken(err):
		return l.whoHas(ctx, domains)
	case violates(err, "FOREIGN KEY constraint failed"): // such as a plan that was removed
		return fmt.Errorf("what the accounts refer to: %w", ErrChanged)
	}
	return l.afterwards(ctx, err)
}

// amend makes the statements. What is taken away comes first, so that another of the accounts can have it.
func (l *Ledger) amend(revision int64, amendments []Amendment) []statement {
	now := l.opt.Now().UnixMilli()
	var batch []statement
	for _, a := range amendments {
		if a.Before == nil {
			continue
		}
		batch = append(batch, unchanged(a.After.Name, revision))
		for _, key := range a.Removed {
			// A line of its own, by which the ledger knows later that the address had a mailbox.
			batch = append(batch, l.historyBefore(a.After.Name, removal(key)))
			batch = append(batch, removeMailbox(a.After.Name, key)...)
			batch = append(batch, historyAfter)
		}
	}
	for _, a := range amendments {
		if a.Before == nil {
			continue
		}
		batch = append(batch, l.historyBefore(a.After.Name, "account import"))
		for _, domain := range missing(a.Before.Domains, a.After.Domains) {
			batch = append(batch, removeDomain(a.After.Name, domain))
		}
	}
	for _, a := range amendments {
		name := a.After.Name
		if a.Before == nil {
			batch = append(batch, l.addAccount(&a.After, nil, "account import")...)
		} else {
			batch = append(batch, l.edits(&a)...)
		}
		for _, key := range a.Added {
			batch = append(batch, addMailbox(name, key, now))
		}
		for login, v := range a.Verifiers {
			batch = append(batch, setVerifier(login, name, v, now))
		}
		if a.Before == nil {
			batch = append(batch, historyAfter)
		}
	}
	return append(batch, statement{`
		UPDATE change SET after = (SELECT document FROM account_document WHERE id = change.account)
		WHERE id > ? AND after IS NULL`, []any{revision}})
}

// edits are the statements for an account that is there, but for what is taken away first.
func (l *Ledger) edits(a *Amendment) []statement {
	batch := l.editAccount(a.Before, &a.After)
	for _, domain := range missing(a.After.Domains, a.Before.Domains) {
		batch = append(batch, addDomain(a.After.Name, domain))
	}
	for _, network := range missing(a.Before.Networks, a.After.Networks) {
		batch = append(batch, removeNetwork(a.After.Name, network))
	}
	for _, network := range missing(a.After.Networks, a.Before.Networks) {
		batch = append(batch, addNetwork(a.After.Name, network))
	}
	return batch
}

// check refuses what no ledger could take.
func (a *Amendment) check() error {
	if err := a.After.Validate(); err != nil {
		return err
	}
	for _, key := range a.Added {
		domain, err := keyDomain(key)
		switch {
		case err != nil:
			return invalid("%w", err)
		case a.After.Mode != POP3:
			return invalid("it is of the mode %s; only pop3 accounts have mailboxes", a.After.Mode)
		case !slices.Contains(a.After.Domains, domain):
			return invalid("the mailbox %s is in none of its domains", Written(key))
		}
	}
	return nil
}

// unchanged fails the batch where the account is not as it was at a revision.
func unchanged(name string, revision int64) statement {
	return statement{"UPDATE change SET account = NULL WHERE account = (SELECT id FROM account WHERE name = ?) AND id > ?", []any{name, revision}}
}

// whichChanged names the first of the accounts that is not as it was at a revision.
func (l *Ledger) whichChanged(ctx context.Context, revision int64, names []string) error {
	name := "one of the accounts"
	for rows, err := range l.rows(ctx, `
		SELECT name FROM account WHERE name IN (SELECT value FROM json_each(?))
		AND EXISTS (SELECT 1 FROM change WHERE account = account.id AND id > ?) LIMIT 1`, asJSON(names), revision) {
		if err == nil {
			err = rows.Scan(&name)
		}
		if err != nil {
			return err
		}
	}
	return fmt.Errorf("%s: %w", name, ErrChanged)
}

// whichTaken names one of the new accounts whose name is taken.
func (l *Ledger) whichTaken(ctx context.Context, amendments []Amendment) error {
	var names []string
	for _, a := range amendments {
		if a.Before == nil {
			names = append(names, a.After.Name)
		}
	}
	taken, err := l.NamesTaken(ctx, names)
	if err != nil {
		return err
	}
	name := "one of the accounts"
	if len(taken) > 0 {
		name = slices.Min(slices.Collect(maps.Keys(taken)))
	}
	return fmt.Errorf("%s: %w", name, ErrNameTaken)
}

// missing are those of a list that another one does not have.
func missing[T string | netip.Prefix](of, from []T) []T {
	return slices.DeleteFunc(slices.Clone(of), func(v T) bool { return slices.Contains(from, v) })
}
