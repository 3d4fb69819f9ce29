package meter

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// A Transfer is an account with all that is its own but its usage, on its way from one ledger to another.
type Transfer struct {
	Account
	Listed    []string             // keys of its recipient list, sorted
	Mailboxes []string             // keys, sorted
	Maildirs  map[string]string    // by mailbox, as [Directory.Maildir] where it is not the key
	Verifiers map[string]*Verifier // by log-in: the account's name or a mailbox's key
}

// Transfers returns all accounts and all plans, in the order of their names and as of one moment.
func (l *Ledger) Transfers(ctx context.Context) (all []Transfer, plans []*Plan, err error) {
	b := begin()
	verifiers, listed := map[int64]map[string]*Verifier{}, map[int64][]string{}
	var members []*member
	err = l.read(ctx, current, append(b.all(), accountsInto(&members, ""), verifiersInto(verifiers), listedInto(listed))...)
	if err != nil {
		return nil, nil, err
	}
	b.add(members...)
	d := b.done(nil)
	for _, m := range d.accounts {
		slices.Sort(listed[m.ID])
		t := Transfer{Account: m.Account, Listed: listed[m.ID], Mailboxes: m.mailboxes.lines(), Maildirs: map[string]string{}, Verifiers: verifiers[m.ID]}
		maps.Copy(t.Maildirs, m.maildirs)
		all = append(all, t)
	}
	return all, d.Plans(), nil
}

// listedInto reads all recipient lists, by account.
func listedInto(all map[int64][]string) query {
	return query{statement{sql: "SELECT l.account, r.address FROM recipient_list l CROSS JOIN recipient r ON r.list = l.id WHERE l.account IS NOT NULL ORDER BY l.account"}, func(r scanner) error {
		var account int64
		var address string
		if err := r.Scan(&account, &address); err != nil {
			return err
		}
		all[account] = append(all[account], address)
		return nil
	}}
}

// verifiersInto reads all verifiers, by account and log-in.
func verifiersInto(all map[int64]map[string]*Verifier) query {
	return query{statement{sql: "SELECT account, login, salt, iterations, stored_key, server_key, cram_md5 FROM credential"}, func(r scanner) error {
		var account int64
		var login string
		v := new(Verifier)
		if err := r.Scan(&account, &login, &v.Salt, &v.Iterations, &v.StoredKey, &v.ServerKey, &v.CRAMMD5); err != nil {
			return err
		}
		if all[account] == nil {
			all[account] = map[string]*Verifier{}
		}
		all[account][login] = v
		return nil
	}}
}

// maxFaults bounds how many faults of one transfer are told.
const maxFaults = 20

// Faults returns what is wrong with a transfer in itself, each an [ErrInvalid]; none where it can be imported into an
// empty ledger.
func (t *Transfer) Faults() []error {
	var faults []error
	if err := t.Validate(); err != nil {
		faults = append(faults, err)
	}
	fault := func(format string, args ...any) { faults = append(faults, invalid(format, args...)) }
	for _, list := range []struct {
		verb string
		keys []string
	}{{"has the mailbox", t.Mailboxes}, {"lists", t.Listed}} {
		seen := make(map[string]bool, len(list.keys))
		for _, key := range list.keys {
			domain, err := keyDomain(key)
			switch {
			case len(faults) == maxFaults:
				return faults
			case err != nil:
				fault("%w", err)
			case !slices.Contains(t.Domains, domain):
				fault("it %s %s, which is in none of its domains", list.verb, Written(key))
			case seen[key]:
				fault("it %s %s twice", list.verb, Written(key))
			}
			seen[key] = true
		}
	}
	if err := t.checkMaildirs(); err != nil {
		fault("%w", err)
	}
	logins := map[string]bool{t.Name: true}
	for _, key := range t.Mailboxes {
		logins[key] = true
	}
	for _, login := range slices.Sorted(maps.Keys(t.Verifiers)) {
		if !logins[login] {
			fault("it has a verifier for %q, which is none of its log-ins", login)
		}
		if err := t.Verifiers[login].check(); err != nil {
			fault("the verifier of %s: %w", login, err)
		}
	}
	return faults
}

// Clashes returns what in the ledger is in the way of an import: names that are taken, also by deleted accounts
// ([ErrNameTaken]), and else domains that are ([ErrDomainTaken]), and plans that are others here ([ErrPlanTaken]).
func (l *Ledger) Clashes(ctx context.Context, accounts []Transfer, plans ...*Plan) (clashes []error, err error) {
	var names, domains []string
	for _, t := range accounts {
		names, domains = append(names, t.Name), append(domains, t.Domains...)
	}
	taken, present, owners := map[string]bool{}, map[string]*Plan{}, map[string]string{}
	err = l.read(ctx, current, plansInto(present), namesInto(taken, names), ownersInto(owners, domains))
	for _, p := range plans {
		if clash := p.clash(present); clash != nil {
			clashes = append(clashes, clash)
		}
	}
	for _, t := range accounts {
		if deleted, found := taken[t.Name]; found {
			by := ""
			if deleted {
				by = " by a deleted account"
			}
			clashes = append(clashes, fmt.Errorf("%s: %w%s", t.Name, ErrNameTaken, by))
			continue
		}
		for _, domain := range t.Domains {
			if owner, found := owners[domain]; found {
				clashes = append(clashes, fmt.Errorf("%s: %w: %s", domain, ErrDomainTaken, owner))
			}
		}
	}
	return clashes, err
}

// NamesTaken returns which of the names an account has (false) or had (true).
func (l *Ledger) NamesTaken(ctx context.Context, names []string) (map[string]bool, error) {
	taken := map[string]bool{}
	return taken, l.read(ctx, current, namesInto(taken, names))
}

func namesInto(taken map[string]bool, names []string) query {
	return query{statement{"SELECT name, deleted IS NOT NULL FROM account WHERE name IN (SELECT value FROM json_each(?))", []any{asJSON(names)}}, func(r scanner) error {
		var name string
		var deleted bool
		if err := r.Scan(&name, &deleted); err != nil {
			return err
		}
		taken[name] = deleted
		return nil
	}}
}

// Import adds the accounts, and those of the plans that are not there, all of them or none. The accounts are billed from now
// on: what they used elsewhere is
// not theirs here. Domains, mailboxes and listed addresses must be in the form in which the ledger has
// them. Errors: [ErrInvalid], [ErrNameTaken], [ErrDomainTaken], [ErrMailboxTaken], [ErrPlanTaken].
func (l *Ledger) Import(ctx context.Context, accounts []Transfer, plans ...*Plan) (failure error) {
	now := l.opt.Now().UnixMilli()
	var batch []statement
	present, err := l.plans(ctx)
	if err != nil {
		return err
	}
	for _, p := range plans {
		if err := p.Validate(); err != nil {
			return err
		}
		if err := p.clash(present); err != nil {
			return err
		}
		if present[p.Name] == nil {
			batch = append(batch, l.addPlan(*p)...)
		}
	}
	var domains []string
	for _, t := range accounts {
		if faults := t.Faults(); len(faults) > 0 {
			return fmt.Errorf("%s: %w", t.Name, faults[0])
		}
	}
	lists := &listMaking{ledger: l, domains: listedDomains(accounts), progress: func(int) {}}
	defer func() { lists.end(ctx, failure) }()
	for _, t := range accounts {
		for _, key := range t.Listed {
			if err := lists.add(ctx, key, key[strings.LastIndexByte(key, '@')+1:]); err != nil {
				return err
			}
		}
	}
	if len(lists.domains) > 0 {
		if err := lists.write(ctx); err != nil {
			return err
		}
	}
	left := len(lists.lists)
	for _, t := range accounts {
		domains = append(domains, t.Domains...)
		batch = append(batch, l.addAccount(&t.Account, nil, "account import")...)
		for _, key := range t.Mailboxes {
			batch = append(batch, statement{"INSERT INTO mailbox (address, account, domain, created, maildir) VALUES (?, " + accountID + ", ?, ?, ?)",
				[]any{key, t.Name, key[strings.LastIndexByte(key, '@')+1:], now, t.Maildirs[key]}})
		}
		if len(t.Listed) > 0 {
			batch = append(batch, lists.whole(left), lists.comeTo(t.Name, t.Domains))
			left -= len(listedDomains([]Transfer{t}))
		}
		for login, v := range t.Verifiers {
			batch = append(batch, setVerifier(login, t.Name, v, now))
		}
		batch = append(batch, historyAfter)
	}
	err = l.batch(ctx, batch...)
	switch {
	case violates(err, "UNIQUE constraint failed: account.name"):
		return fmt.Errorf("one of the accounts: %w, perhaps by a deleted account", ErrNameTaken)
	case domainTaken(err):
		return l.whoHas(ctx, domains)
	case ofNothing(err):
		return lists.lost()
	case violates(err, "UNIQUE constraint failed: plan.name"):
		return fmt.Errorf("one of the plans: %w", ErrPlanTaken)
	case violates(err, "FOREIGN KEY constraint failed"):
		return fmt.Errorf("one of the accounts: %w", ErrNoPlan)
	}
	return err
}

// listedDomains are the domains of which accounts list addresses, sorted.
func listedDomains(accounts []Transfer) []string {
	all := map[string]bool{}
	for _, t := range accounts {
		for _, key := range t.Listed {
			all[key[strings.LastIndexByte(key, '@')+1:]] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// clash is why a plan cannot be imported where others are present already, if it cannot.
func (p *Plan) clash(present map[string]*Plan) error {
	if here := present[p.Name]; here != nil && here.Terms != p.Terms {
		return fmt.Errorf("%s: %w, with other terms", p.Name, ErrPlanTaken)
	}
	return nil
}

var maildirToken = regexp.MustCompile("^[a-z0-9]+$") // as freshToken makes it

// checkMaildirs refuses Maildirs that two mailboxes would share, or that are none.
func (t *Transfer) checkMaildirs() error {
	owners := map[string]string{}
	for _, key := range t.Mailboxes {
		place := cmp.Or(t.Maildirs[key], key)
		if other, found := owners[place]; found {
			return fmt.Errorf("the mailboxes %s and %s have one Maildir", Written(other), Written(key))
		}
		owners[place] = key
	}
	for key, place := range t.Maildirs {
		at := strings.LastIndexByte(place, '@')
		domain, token, again := strings.Cut(place[at+1:], ",")
		if owners[place] != key || oneSpelling(place[:at+1]+domain) != key || again && !maildirToken.MatchString(token) {
			return fmt.Errorf("%q is no Maildir of a mailbox %s", place, Written(key))
		}
	}
	return nil
}

// keyDomain is the domain of an address in the form of [Address.Key].
func keyDomain(key string) (string, error) {
	at := strings.LastIndexByte(key, '@')
	if at < 1 || oneSpelling(key) != key {
		return "", fmt.Errorf("%q is not an address in lower case and NFC", key)
	}
	if strings.ContainsFunc(key, unseen) {
		return "", fmt.Errorf("%q has a control character", key)
	}
	domain, err := NormalizeDomain(key[at+1:])
	if err == nil && domain != key[at+1:] {
		err = fmt.Errorf("%q is not the form %q of its domain", key, domain)
	}
	return domain, err
}
