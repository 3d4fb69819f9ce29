package meter

import "context"

// A Kind is what completion asks for.
type Kind string

const (
	AccountNames  Kind = "accounts"
	FlushNames    Kind = "accounts to flush" // whose mail can be delivered on request
	CustomerWords Kind = "customers"
	PlanNames     Kind = "plans"
	DomainNames   Kind = "domains" // of all accounts
	Logins        Kind = "log-ins"
)

var beginnings = map[Kind]string{
	AccountNames:  "SELECT name FROM account WHERE name >= ?1 AND name < ?2 AND deleted IS NULL ORDER BY name LIMIT ?3",
	FlushNames:    "SELECT name FROM account WHERE name >= ?1 AND name < ?2 AND deleted IS NULL AND (mode <> 'atrn' OR host <> '') ORDER BY name LIMIT ?3",
	CustomerWords: "SELECT DISTINCT customer FROM account WHERE customer >= ?1 AND customer < ?2 AND customer <> '' AND deleted IS NULL ORDER BY customer LIMIT ?3",
	PlanNames:     "SELECT name FROM plan WHERE name >= ?1 AND name < ?2 ORDER BY name LIMIT ?3",
	DomainNames:   "SELECT name FROM domain WHERE name >= ?1 AND name < ?2 ORDER BY name LIMIT ?3",
	Logins: `SELECT name FROM account WHERE name >= ?1 AND name < ?2 AND deleted IS NULL
		UNION ALL SELECT address FROM mailbox WHERE address >= ?1 AND address < ?2 ORDER BY 1 LIMIT ?3`,
}

// Beginning returns the first words of a kind that begin so, at most as many as the limit.
func (l *Ledger) Beginning(ctx context.Context, kind Kind, prefix string, limit int) ([]string, error) {
	var words []string
	for rows, err := range l.rows(ctx, beginnings[kind], prefix, prefix+"\U0010FFFF", limit) {
		var word string
		if err == nil {
			err = rows.Scan(&word)
		}
		if err != nil {
			return nil, err
		}
		words = append(words, word)
	}
	return words, nil
}

// AccountID returns the ID of the account of that name. The error is [ErrNoAccount].
func (l *Ledger) AccountID(ctx context.Context, name string) (int64, error) {
	var id int64
	err := l.row(ctx, "SELECT coalesce(max(id), 0) FROM account WHERE name = ? AND deleted IS NULL", name).Scan(&id)
	if err == nil && id == 0 {
		return 0, ErrNoAccount
	}
	return id, err
}
