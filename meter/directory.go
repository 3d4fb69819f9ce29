package meter

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"strings"
)

// A Directory is a snapshot of the accounts with all that is theirs but recipient lists, which have no bound and of which a
// line is asked for at a time: see [Ledger.Accepts]. It never changes, so any number of goroutines read it without locks. The one that follows it has all in common with it but what changed.
type Directory struct {
	newest   changeLine
	plans    map[string]*Plan
	accounts []*member // by name
	byID     sharded[int64, *member]
	domains  sharded[string, *member]
	tally    tally
	decoyKey []byte
}

// A member is an account with what else is its own.
type member struct {
	Account
	login Form // of the verifier of its own log-in; zero: it has none
	*belongings
}

// belongings are what many accounts have none of.
type belongings struct {
	mailboxes list              // keys
	maildirs  map[string]string // of mailboxes, by key, where it is not the key
	forms     []formCount       // of the verifiers of its mailboxes
}

var noBelongings = new(belongings)

// Revision identifies the state that the snapshot shows; every change of an account raises it.
func (d *Directory) Revision() int64 { return d.newest.id }

// Accounts yields the accounts in the order of their names, without deleted ones.
func (d *Directory) Accounts() iter.Seq[*Account] {
	return func(yield func(*Account) bool) {
		for _, m := range d.accounts {
			if !yield(&m.Account) {
				return
			}
		}
	}
}

// Len is how many accounts there are, without deleted ones.
func (d *Directory) Len() int { return len(d.accounts) }

// Account returns the account of that name, or nil.
func (d *Directory) Account(name string) *Account {
	i, found := d.position(name)
	if !found {
		return nil
	}
	return &d.accounts[i].Account
}

// position is where an account of that name is, or would be, among all.
func (d *Directory) position(name string) (int, bool) {
	return slices.BinarySearchFunc(d.accounts, name, func(m *member, name string) int { return strings.Compare(m.Name, name) })
}

// AccountByID returns the account of that ID, or nil.
func (d *Directory) AccountByID(id int64) *Account { return d.byID.get(id).account() }

// Plan returns the price plan of that name, or nil.
func (d *Directory) Plan(name string) *Plan { return d.plans[name] }

// Plans returns the price plans in the order of their names.
func (d *Directory) Plans() []*Plan {
	return slices.SortedFunc(maps.Values(d.plans), func(a, b *Plan) int { return strings.Compare(a.Name, b.Name) })
}

// Domain returns the account that has the normalized domain, or nil if it is nobody's here.
func (d *Directory) Domain(domain string) *Account { return d.domains.get(domain).account() }

func (m *member) account() *Account {
	if m == nil {
		return nil
	}
	return &m.Account
}

// its are the account's belongings as the snapshot has them.
func (d *Directory) its(a *Account) *belongings {
	if m := d.byID.get(a.ID); m != nil {
		return m.belongings
	}
	return noBelongings
}

// Mailboxes returns the addresses of the account's mailboxes, sorted.
func (d *Directory) Mailboxes(a *Account) []string { return d.its(a).mailboxes.lines() }

// Mailbox returns the account that has a mailbox of that address, or nil.
func (d *Directory) Mailbox(addr Address) *Account {
	if m := d.domains.get(addr.Domain); m != nil && m.mailboxes.has(addr.Key()) {
		return &m.Account
	}
	return nil
}

// Maildir names the place of a mailbox's mail, by its key: another one than that of any mailbox that had the address
// before. It is the key, or that of another spelling, or one of them with a comma and a token behind it.
func (d *Directory) Maildir(mailbox string) string {
	if m := d.domains.get(KeyAddress(mailbox).Domain); m != nil {
		return cmp.Or(m.maildirs[mailbox], mailbox)
	}
	return mailbox
}

// Delivery returns the key of the account's mailbox that mail for an address goes to: its own, or that of
// the address without extension. Empty: none, so it is for the catch-all, where there is one.
func (d *Directory) Delivery(a *Account, addr Address) string {
	mailboxes := d.its(a).mailboxes
	for _, key := range withoutExtension(addr) {
		if mailboxes.has(key) {
			return key
		}
	}
	return ""
}

// withoutExtension are the keys that an address is known by: its own, and that of the one without its extension (user+x).
func withoutExtension(addr Address) []string {
	all := []string{addr.Key()}
	if user, _, extended := strings.Cut(addr.Local, "+"); extended && user != "" {
		all = append(all, Address{Local: user, Domain: addr.Domain}.Key())
	}
	return all
}
