package meter

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"

	"github.com/mattn/go-sqlite3"
)

// A Transfer is an account with all that is its own but its usage, on its way from one ledger to another.
type Transfer struct {
	Account
	Listed    []string             // keys of its recipient list, sorted
	Mailboxes []string             // keys, sorted
	Verifiers map[string]*Verifier // by log-in: the account's name or a mailbox's key
}

// Transfers returns all accounts, in the order of their names and as of one moment.
func (l *Ledger) Transfers(ctx context.Context) ([]Transfer, error) {
	var all []Transfer
	err := l.atOneMoment(ctx, func(conn *sql.Conn) error {
		d, err := load(ctx, conn)
		if err != nil {
			return err
		}
		verifiers, err := verifiersOf(ctx, conn)
		if err != nil {
			return err
		}
		listed := map[int64][]string{}
		gather(listed, pairs(ctx, conn, &err, "SELECT account, address FROM recipient"))
		for a := range d.Accounts() {
			all = append(all, Transfer{Account: *a, Listed: listed[a.ID], Mailboxes: d.Mailboxes(a), Verifiers: verifiers[a.ID]})
		}
		return err
	})
	return all, err
}

func verifiersOf(ctx context.Context, q querier) (map[int64]map[string]*Verifier, error) {
	all := map[int64]map[string]*Verifier{}
	for rows, err := range query(ctx, q, "SELECT account, login, salt, iterations, stored_key, server_key, cram_md5 FROM credential") {
		var account int64
		var login string
		v := new(Verifier)
		if err == nil {
			err = rows.Scan(&account, &login, &v.Salt, &v.Iterations, &v.StoredKey, &v.ServerKey, &v.CRAMMD5)
		}
		if err != nil {
			return nil, err
		}
		if all[account] == nil {
			all[account] = map[string]*Verifier{}
		}
		all[account][login] = v
	}
	return all, nil
}

// Import adds the accounts, all of them or none. They are billed from now on: what they used elsewhere is
// not theirs here. Domains, mailboxes and listed addresses must be in the form in which the ledger has
// them. Errors: [ErrInvalid], [ErrNameTaken], [ErrDomainTaken], [ErrMailboxTaken].
func (l *Ledger) Import(ctx context.Context, accounts []Transfer) error {
	now := l.opt.Now().UnixMilli()
	var batch []statement
	var domains []string
	for _, t := range accounts {
		if err := t.Validate(); err != nil {
			return fmt.Errorf("%s: %w", t.Name, err)
		}
		domains = append(domains, t.Domains...)
		batch = append(batch, l.addAccount(&t.Account, nil, "account import")...)
		for _, key := range t.Mailboxes {
			domain, err := keyDomain(key)
			if err != nil {
				return invalid("%s: %w", t.Name, err)
			}
			batch = append(batch, statement{"INSERT INTO mailbox (address, account, domain, created) VALUES (?, " + accountID + ", ?, ?)",
				[]any{key, t.Name, domain, now}})
		}
		listed, seen := [][]any{}, map[string]bool{}
		for _, key := range t.Listed {
			if seen[key] {
				return invalid("%s lists %s twice", t.Name, key)
			}
			seen[key] = true
			domain, err := keyDomain(key)
			if err != nil {
				return invalid("%s: %w", t.Name, err)
			}
			listed = append(listed, []any{key, domain})
		}
		if len(listed) > 0 {
			batch = append(batch, statement{`
				INSERT INTO recipient (account, address, domain)
				SELECT ` + accountID + `, value ->> 0, value ->> 1 FROM json_each(?)`, []any{t.Name, asJSON(listed)}})
		}
		for login, v := range t.Verifiers {
			if login != t.Name && !slices.Contains(t.Mailboxes, login) {
				return invalid("%s has a verifier for %q, which is none of its log-ins", t.Name, login)
			}
			if err := v.check(); err != nil {
				return invalid("the verifier of %s: %w", login, err)
			}
			batch = append(batch, setVerifier(login, t.Name, v, now))
		}
		batch = append(batch, historyAfter)
	}
	err := l.batch(ctx, batch...)
	switch {
	case constraint(err, sqlite3.ErrConstraintUnique, "account.name"):
		return fmt.Errorf("one of the accounts: %w, perhaps by a deleted account", ErrNameTaken)
	case constraint(err, sqlite3.ErrConstraintPrimaryKey, "mailbox.address"):
		return fmt.Errorf("one of the mailboxes: %w", ErrMailboxTaken)
	case constraint(err, sqlite3.ErrConstraintForeignKey, ""):
		return invalid("a mailbox or a listed address is in none of its account's domains")
	case domainTaken(err):
		return l.whoHas(ctx, domains)
	}
	return err
}

// keyDomain is the domain of an address in the form of [Address.Key].
func keyDomain(key string) (string, error) {
	at := strings.LastIndexByte(key, '@')
	if at < 1 || strings.ToLower(key) != key {
		return "", fmt.Errorf("%q is not an address in lower case", key)
	}
	domain, err := NormalizeDomain(key[at+1:])
	if err == nil && domain != key[at+1:] {
		err = fmt.Errorf("%q is not the form %q of its domain", key, domain)
	}
	return domain, err
}
