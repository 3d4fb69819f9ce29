package meter

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// building is a snapshot in the making.
type building struct {
	Directory
	ids    *editing[int64, *member]
	owners *editing[string, *member] // of domains
	came   []*member
	words  map[string]string // of which there are few, and many accounts have them
}

// begin makes the beginning of a snapshot.
func begin() *building {
	b := &building{ids: edit(sharded[int64, *member]{}), owners: edit(sharded[string, *member]{}), words: map[string]string{}}
	b.tally = newTally()
	b.plans = map[string]*Plan{}
	return b
}

// all reads what does not belong to accounts, and comes before them.
func (b *building) all() []query {
	decoy := query{statement{sql: "SELECT key FROM decoy"}, func(r scanner) error { return r.Scan(&b.decoyKey) }}
	return []query{newestChange(&b.newest), decoy, plansInto(b.plans)}
}

// goOn makes the beginning of the snapshot after another one: all that it has.
func goOn(old *Directory) *building {
	b := &building{Directory: *old, ids: edit(old.byID), owners: edit(old.domains), words: map[string]string{}}
	b.tally = b.tally.clone()
	return b
}

// forget takes away what is found by an account. That comes first for all that changed, because what one of them had
// another one may have now.
func (b *building) forget(m *member) {
	b.tally.count(m, -1)
	b.ids.remove(m.ID)
	for _, domain := range m.Domains {
		b.owners.remove(domain)
	}
}

func (b *building) add(all ...*member) {
	for _, m := range all {
		m.Plan = word(b, m.Plan)
		m.Mode, m.Recipients, m.OnLimit = word(b, m.Mode), word(b, m.Recipients), word(b, m.OnLimit)
		m.Copies, m.TLS = word(b, m.Copies), word(b, m.TLS)
		m.PlanTerms = nil
		if plan := b.plans[m.Plan]; plan != nil {
			m.PlanTerms = &plan.Terms
		}
		b.tally.count(m, 1)
		b.ids.set(m.ID, m)
		for _, domain := range m.Domains {
			b.owners.set(domain, m)
		}
	}
	b.came = append(b.came, all...)
}

// done is the snapshot; of those who went some may have come back.
func (b *building) done(went []*member) *Directory {
	b.byID, b.domains = b.ids.made, b.owners.made
	for _, m := range went {
		if b.AccountByID(m.ID) == nil {
			b.came = append(b.came, m)
		}
	}
	// A member that is there already goes; another takes the place of its namesake, or has a new one.
	slices.SortFunc(b.came, func(a, b *member) int { return strings.Compare(a.Name, b.Name) })
	rest := b.Directory
	b.accounts = make([]*member, 0, len(rest.accounts)+len(b.came))
	for _, m := range b.came {
		i, found := rest.position(m.Name)
		b.accounts = append(b.accounts, rest.accounts[:i]...)
		if !found || rest.accounts[i] != m {
			b.accounts = append(b.accounts, m)
		}
		if found {
			i++
		}
		rest.accounts = rest.accounts[i:]
	}
	b.accounts = append(b.accounts, rest.accounts...)
	d := b.Directory
	return &d
}

// these is a condition for accounts by their IDs.
const these = " AND a.id IN (SELECT value FROM json_each(?))"

// accountsInto reads the accounts that a condition chooses, with all that is theirs.
func accountsInto(all *[]*member, condition string, args ...any) query {
	return query{statement{`
		SELECT a.id, name, customer, note, coalesce(plan, ''), mode, suspended, host, recipients, messages, bytes, on_limit, max_tiers,
		       base_price, tier_price, waiting_messages, waiting_bytes, hold, contact, copies, catch_all, quota, cram_md5, tls, created,
		       coalesce((SELECT group_concat(name || char(10), '') FROM domain WHERE account = a.id), ''),
		       coalesce((SELECT group_concat(prefix || char(10), '') FROM network WHERE account = a.id), ''),
		       coalesce((SELECT group_concat(address || char(9) || maildir || char(10), '') FROM mailbox WHERE account = a.id), ''),
		       coalesce((SELECT group_concat((login LIKE '%@%') || ' ' || iterations || ' ' || length(salt) || char(10), '')
		                 FROM credential WHERE account = a.id), '')
		FROM account a WHERE deleted IS NULL` + condition, args}, func(r scanner) error {
		m := &member{belongings: noBelongings}
		a := &m.Account
		var hold, created int64
		var domains, networks, mailboxes, forms string
		if err := r.Scan(&a.ID, &a.Name, &a.Customer, &a.Note, &a.Plan, &a.Mode, &a.Suspended, &a.Host, &a.Recipients, &a.Messages, &a.Bytes,
			&a.OnLimit, &a.MaxTiers, &a.BasePrice, &a.TierPrice, &a.WaitingMessages, &a.WaitingBytes, &hold, &a.Contact, &a.Copies, &a.CatchAll, &a.Quota, &a.CRAMMD5,
			&a.TLS, &created, &domains, &networks, &mailboxes, &forms); err != nil {
			return err
		}
		a.Hold = time.Duration(hold) * time.Second
		a.Created = moment(created)
		a.Domains = newList(domains).lines()
		for _, prefix := range newList(networks).lines() {
			p, err := netip.ParsePrefix(prefix)
			if err != nil {
				return fmt.Errorf("the ledger has a network %q that cannot be read: %w", prefix, err)
			}
			a.Networks = append(a.Networks, p)
		}
		m.take(mailboxes)
		if err := m.takeForms(forms); err != nil {
			return err
		}
		*all = append(*all, m)
		return nil
	}}
}

// word is the one copy of a text that many accounts have.
func word[T ~string](b *building, text T) T {
	known, found := b.words[string(text)]
	if !found {
		known = string(text)
		b.words[known] = known
	}
	return T(known)
}

// own are the belongings of a member that is in the making.
func (m *member) own() *belongings {
	if m.belongings == noBelongings {
		m.belongings = new(belongings)
	}
	return m.belongings
}

// take reads lines of a mailbox, a tab and where its mail is.
func (m *member) take(mailboxes string) {
	if mailboxes == "" {
		return
	}
	var keys strings.Builder
	for line := range strings.Lines(mailboxes) {
		key, maildir, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		keys.WriteString(key + "\n")
		if maildir != "" {
			if m.own().maildirs == nil {
				m.own().maildirs = map[string]string{}
			}
			m.own().maildirs[key] = maildir
		}
	}
	m.own().mailboxes = newList(keys.String())
}
