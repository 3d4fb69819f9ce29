package meter

import (
	"context"
	"strings"
)

// A Form is what SCRAM shows of a verifier to whoever asks, but for the octets of the salt. Those that were made elsewhere
// have others than ours.
type Form struct {
	Iterations int
	Salt       int // octets
}

// forms say how many verifiers have each form.
type forms struct {
	accounts  map[Form]int           // of accounts' own log-ins
	mailboxes map[Form]int           // of all mailboxes
	of        map[int64]map[Form]int // of each account's mailboxes
}

// Forms returns how many of the log-ins that are most like this one have verifiers of each form: of the mailboxes of the
// account that has its domain, since passwords come from elsewhere by whole accounts; of all mailboxes where there are
// none; or of the accounts, where it is no address. The login must be in one spelling, as stored ones are.
func (d *Directory) Forms(login string) map[Form]int {
	at := strings.LastIndexByte(login, '@')
	if at <= 0 {
		return d.verifiers.accounts
	}
	if a := d.domains[login[at+1:]]; a != nil && len(d.verifiers.of[a.ID]) > 0 {
		return d.verifiers.of[a.ID]
	}
	return d.verifiers.mailboxes
}

// DecoyKey is a secret of the ledger, from which to make up what log-ins show that do not exist.
func (d *Directory) DecoyKey() []byte { return d.decoyKey }

func loadForms(ctx context.Context, q querier) (forms, error) {
	f := forms{map[Form]int{}, map[Form]int{}, map[int64]map[Form]int{}}
	for rows, err := range query(ctx, q, `
		SELECT account, login LIKE '%@%', iterations, length(salt), count(*) FROM credential GROUP BY 1, 2, 3, 4`) {
		if err != nil {
			return f, err
		}
		var account int64
		var mailbox bool
		var form Form
		var n int
		if err := rows.Scan(&account, &mailbox, &form.Iterations, &form.Salt, &n); err != nil {
			return f, err
		}
		if !mailbox {
			f.accounts[form] += n
			continue
		}
		f.mailboxes[form] += n
		if f.of[account] == nil {
			f.of[account] = map[Form]int{}
		}
		f.of[account][form] = n
	}
	return f, nil
}
