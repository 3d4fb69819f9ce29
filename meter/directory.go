package meter

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// A Directory is a snapshot of the accounts with all that is theirs. It never changes, so any
// number of goroutines read it without locks.
type Directory struct {
	revision   int64
	plans      map[string]*Plan
	accounts   []*Account // by name
	byName     map[string]*Account
	byID       map[int64]*Account
	domains    map[string]*Account
	recipients map[int64][]string // sorted keys, of the accounts that accept listed recipients only
	mailboxes  map[int64][]string // sorted keys
	maildirs   map[string]string  // of mailboxes, by key, where it is not the key
	verifiers  forms
	decoyKey   []byte
}

// Revision identifies the state that the snapshot shows; every change of an account raises it.
func (d *Directory) Revision() int64 { return d.revision }

// Accounts yields the accounts in the order of their names, without deleted ones.
func (d *Directory) Accounts() iter.Seq[*Account] { return slices.Values(d.accounts) }

// Len is how many accounts there are, without deleted ones.
func (d *Directory) Len() int { return len(d.accounts) }

// Account returns the account of that name, or nil.
func (d *Directory) Account(name string) *Account { return d.byName[name] }

// AccountByID returns the account of that ID, or nil.
func (d *Directory) AccountByID(id int64) *Account { return d.byID[id] }

// Plan returns the price plan of that name, or nil.
func (d *Directory) Plan(name string) *Plan { return d.plans[name] }

// Plans returns the price plans in the order of their names.
func (d *Directory) Plans() []*Plan {
	return slices.SortedFunc(maps.Values(d.plans), func(a, b *Plan) int { return strings.Compare(a.Name, b.Name) })
}

// Domain returns the account that has the normalized domain, or nil if it is nobody's here.
func (d *Directory) Domain(domain string) *Account { return d.domains[domain] }

// Mailboxes returns the addresses of the account's mailboxes, sorted.
func (d *Directory) Mailboxes(a *Account) []string { return d.mailboxes[a.ID] }

// Mailbox returns the account that has a mailbox of that address, or nil.
func (d *Directory) Mailbox(addr Address) *Account {
	a := d.domains[addr.Domain]
	if a == nil {
		return nil
	}
	if _, found := slices.BinarySearch(d.mailboxes[a.ID], addr.Key()); !found {
		return nil
	}
	return a
}

// Maildir names the place of a mailbox's mail, by its key: another one than that of any mailbox that had the address
// before. It is the key, or that of another spelling, or one of them with a comma and a token behind it.
func (d *Directory) Maildir(mailbox string) string {
	return cmp.Or(d.maildirs[mailbox], mailbox)
}

// Accepts reports whether the account takes mail for an address in one of its domains: by its
// recipient list, or, where it has no catch-all, by its mailboxes. An address with an extension
// (user+x) is accepted where the one without is.
func (d *Directory) Accepts(a *Account, addr Address) bool {
	var lists [][]string
	if a.Mode == POP3 && !a.CatchAll {
		lists = [][]string{d.mailboxes[a.ID]}
	} else if a.Recipients == ListedRecipient {
		lists = [][]string{d.recipients[a.ID], d.mailboxes[a.ID]}
	} else {
		return true
	}
	for _, list := range lists {
		if listed(list, addr) != "" {
			return true
		}
	}
	return false
}

// Delivery returns the key of the account's mailbox that mail for an address goes to: its own, or that of
// the address without extension. Empty: none, so it is for the catch-all, where there is one.
func (d *Directory) Delivery(a *Account, addr Address) string {
	return listed(d.mailboxes[a.ID], addr)
}

// listed returns which key in a sorted list is the address's, with or without its extension; empty: none.
func listed(list []string, addr Address) string {
	keys := []string{addr.Key()}
	if user, _, extended := strings.Cut(addr.Local, "+"); extended && user != "" {
		keys = append(keys, Address{Local: user, Domain: addr.Domain}.Key())
	}
	for _, key := range keys {
		if _, found := slices.BinarySearch(list, key); found {
			return key
		}
	}
	return ""
}

// Load reads a Directory, all of it as of one moment.
func (l *Ledger) Load(ctx context.Context) (*Directory, error) {
	var d *Directory
	err := l.atOneMoment(ctx, func(conn *sql.Conn) (err error) {
		d, err = load(ctx, conn)
		return err
	})
	if err != nil {
		return nil, err
	}
	return d, nil
}

// atOneMoment lets several SELECTs see the ledger as of one moment, in a deferred transaction of reads
// alone.
func (l *Ledger) atOneMoment(ctx context.Context, read func(*sql.Conn) error) error {
	db, err := l.reader(ctx)
	if err != nil {
		return err
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return unavailable(err)
	}
	defer conn.Close()
	if _, err := conn.ExecContext(ctx, "BEGIN DEFERRED"); err != nil {
		return unavailable(err)
	}
	defer conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
	return unavailable(read(conn))
}

func emptyDirectory() *Directory {
	return &Directory{
		byName:     map[string]*Account{},
		byID:       map[int64]*Account{},
		domains:    map[string]*Account{},
		recipients: map[int64][]string{},
		mailboxes:  map[int64][]string{},
		maildirs:   map[string]string{},
	}
}

func load(ctx context.Context, conn *sql.Conn) (*Directory, error) {
	d := emptyDirectory()
	err := conn.QueryRowContext(ctx, "SELECT coalesce(max(id), 0) FROM change").Scan(&d.revision)
	if err != nil {
		return nil, err
	}
	if err := conn.QueryRowContext(ctx, "SELECT key FROM decoy").Scan(&d.decoyKey); err != nil {
		return nil, err
	}
	if d.verifiers, err = loadForms(ctx, conn); err != nil {
		return nil, err
	}
	if d.plans, err = loadPlans(ctx, conn); err != nil {
		return nil, err
	}
	if err := d.loadAccounts(ctx, conn, "", ""); err != nil {
		return nil, err
	}
	gather(d.recipients, pairs(ctx, conn, &err, `
		SELECT account, address FROM recipient
		WHERE account IN (SELECT id FROM account WHERE recipients = 'list')`))
	return d, err
}

// LoadSome reads a Directory of these accounts alone, as far as they are there, for who shows them: it has their plans,
// domains, networks and mailboxes, and neither lists of recipients nor log-ins.
func (l *Ledger) LoadSome(ctx context.Context, ids ...int64) (*Directory, error) {
	d := emptyDirectory()
	err := l.atOneMoment(ctx, func(conn *sql.Conn) (err error) {
		if d.plans, err = loadPlans(ctx, conn); err != nil {
			return err
		}
		const these = " IN (SELECT value FROM json_each(?))"
		return d.loadAccounts(ctx, conn, " AND id"+these, " WHERE account"+these, asJSON(ids))
	})
	return d, err
}

// loadAccounts reads accounts that are not deleted, or those of them that a condition has, and what is theirs by another.
func (d *Directory) loadAccounts(ctx context.Context, q querier, accounts, theirs string, args ...any) (err error) {
	for rows, err := range query(ctx, q, `
		SELECT id, name, customer, note, coalesce(plan, ''), mode, suspended, host, recipients, messages, bytes, on_limit, max_tiers,
		       base_price, tier_price, waiting_messages, waiting_bytes, hold, contact, copies, catch_all, quota, cram_md5, tls, created
		FROM account WHERE deleted IS NULL`+accounts+` ORDER BY name`, args...) {
		if err != nil {
			return err
		}
		var a Account
		var hold, created int64
		if err := rows.Scan(&a.ID, &a.Name, &a.Customer, &a.Note, &a.Plan, &a.Mode, &a.Suspended, &a.Host, &a.Recipients, &a.Messages, &a.Bytes,
			&a.OnLimit, &a.MaxTiers, &a.BasePrice, &a.TierPrice, &a.WaitingMessages, &a.WaitingBytes, &hold, &a.Contact, &a.Copies, &a.CatchAll, &a.Quota, &a.CRAMMD5,
			&a.TLS, &created); err != nil {
			return err
		}
		a.Hold = time.Duration(hold) * time.Second
		a.Created = time.UnixMilli(created).UTC()
		if plan := d.plans[a.Plan]; plan != nil {
			a.PlanTerms = plan.Terms
		}
		d.accounts = append(d.accounts, &a)
		d.byName[a.Name] = &a
		d.byID[a.ID] = &a
	}
	for name, account := range pairs(ctx, q, &err, "SELECT account, name FROM domain"+theirs+" ORDER BY name", args...) {
		if a := d.byID[account]; a != nil {
			a.Domains = append(a.Domains, name)
			d.domains[name] = a
		}
	}
	for prefix, account := range pairs(ctx, q, &err, "SELECT account, prefix FROM network"+theirs+" ORDER BY prefix", args...) {
		p, parseErr := netip.ParsePrefix(prefix)
		if parseErr != nil {
			return fmt.Errorf("the ledger has a network %q that cannot be read: %w", prefix, parseErr)
		}
		if a := d.byID[account]; a != nil {
			a.Networks = append(a.Networks, p)
		}
	}
	gather(d.mailboxes, d.loadMailboxes(ctx, q, &err, theirs, args...))
	return err
}

// loadMailboxes yields the mailboxes with their accounts as [pairs] does, and keeps where their mail is.
func (d *Directory) loadMailboxes(ctx context.Context, q querier, err *error, theirs string, args ...any) iter.Seq2[string, int64] {
	return func(yield func(string, int64) bool) {
		if *err != nil {
			return
		}
		for rows, e := range query(ctx, q, "SELECT account, address, maildir FROM mailbox"+theirs, args...) {
			var account int64
			var address, maildir string
			if e == nil {
				e = rows.Scan(&account, &address, &maildir)
			}
			if e != nil {
				*err = e
				return
			}
			if maildir != "" {
				d.maildirs[address] = maildir
			}
			if !yield(address, account) {
				return
			}
		}
	}
}

// gather makes sorted lists of addresses by account. The strings of a list share one allocation:
// a million listed recipients are then a million slice elements and nothing else.
func gather(lists map[int64][]string, rows iter.Seq2[string, int64]) {
	texts := map[int64]*strings.Builder{}
	for address, account := range rows {
		text := texts[account]
		if text == nil {
			text = new(strings.Builder)
			texts[account] = text
		}
		text.WriteString(address)
		text.WriteByte('\n')
	}
	for account, text := range maps.All(texts) {
		list := strings.Split(strings.TrimSuffix(text.String(), "\n"), "\n")
		slices.Sort(list)
		lists[account] = slices.Clip(list)
	}
}

// query yields a result row by row. The rows are closed when the loop ends, however it ends.
func query(ctx context.Context, q querier, text string, args ...any) iter.Seq2[*sql.Rows, error] {
	return func(yield func(*sql.Rows, error) bool) {
		rows, err := q.QueryContext(ctx, text, args...)
		if err != nil {
			yield(nil, err)
			return
		}
		defer rows.Close()
		for rows.Next() {
			if !yield(rows, nil) {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(nil, err)
		}
	}
}

// querier is what *sql.DB and *sql.Conn have in common here.
type querier interface {
	QueryContext(ctx context.Context, text string, args ...any) (*sql.Rows, error)
}

// pairs yields rows of (account, text) and leaves the first error of a chain of calls in *err.
func pairs(ctx context.Context, q querier, err *error, text string, args ...any) iter.Seq2[string, int64] {
	return func(yield func(string, int64) bool) {
		if *err != nil {
			return
		}
		for rows, e := range query(ctx, q, text, args...) {
			var account int64
			var value string
			if e == nil {
				e = rows.Scan(&account, &value)
			}
			if e != nil {
				*err = e
				return
			}
			if !yield(value, account) {
				return
			}
		}
	}
}
