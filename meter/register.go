package meter

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// accountID is the ID of the account whose name is the parameter.
const accountID = "(SELECT id FROM account WHERE name = ? AND deleted IS NULL)"

// Validate checks what one account alone must fulfil; the error ([ErrInvalid]) says what to change.
func (a *Account) Validate() error {
	switch {
	case !ValidName(a.Name):
		return invalid("the account name %q must be 1 to 32 of a-z, 0-9 and hyphen, and not begin with a hyphen", a.Name)
	case !slices.Contains(Modes, a.Mode):
		return invalid("the mode %q is none of backup, etrn, atrn, pop3", a.Mode)
	case a.Mode == ETRN && a.Host == "":
		return invalid("an etrn account needs a host: its mail is delivered there when it asks")
	case a.Mode == ETRN && len(a.Networks) == 0:
		return invalid("an etrn account needs a network: ETRN is trusted by the client's address")
	case !slices.Contains([]RecipientCheck{AnyRecipient, ListedRecipient, VerifiedRecipient}, a.Recipients):
		return invalid("recipients %q is none of any, list, verify", a.Recipients)
	case a.Recipients == VerifiedRecipient && a.Mode != Backup:
		return invalid("only a backup account can verify recipients, because only its server is asked in between; set recipients to any or list")
	case a.TLS != "" && !slices.Contains(TLSLevels, a.TLS):
		return invalid("tls %q is none of opportunistic, require, verify", a.TLS)
	case a.TLS.Mandatory() && a.Mode == ATRN && a.Host == "":
		return invalid("an atrn account without a host cannot have its TLS set to %s: its mail goes over the connection that the customer made", a.TLS)
	case !slices.Contains([]Copies{PerRecipient, SingleCopy}, a.Copies):
		return invalid("copies %q is none of per-recipient, single", a.Copies)
	case a.Quota < 0, a.Hold < 0:
		return invalid("the quota and the hold time cannot be negative")
	case a.Quota > MaxLimit:
		return invalid("the quota can be %d at most", int64(MaxLimit))
	case a.Hold > MaxHold:
		return invalid("mail can be held for 100 days at most")
	case a.Hold%time.Second != 0:
		return invalid("the hold time must be whole seconds")
	}
	if err := a.Terms.validate(); err != nil {
		return err
	}
	if err := checkLine("customer", a.Customer, maxCustomer); err != nil {
		return err
	}
	if err := checkLine("note", a.Note, maxNote); err != nil {
		return err
	}
	if a.Host != "" {
		host, err := ParseHost(a.Host)
		if err != nil {
			return invalid("%w", err)
		}
		if _, err := netip.ParseAddr(host.Name); err == nil && a.TLS == TLSVerify && a.Mode == Backup {
			return invalid("a backup account with tls verify needs its host by name, for which the certificate is checked")
		}
	}
	if a.Contact != "" {
		if _, err := ParseAddress(a.Contact); err != nil {
			return invalid("the contact %w", err)
		}
	}
	return nil
}

// Octets of what operators write of an account.
const (
	maxCustomer = 64
	maxNote     = 500
)

// checkLine refuses what is not a line of so many octets that can be shown.
func checkLine(what, text string, most int) error {
	hidden := func(r rune) bool { return unicode.In(r, unicode.Cc, unicode.Zl, unicode.Zp, unicode.Bidi_Control) }
	switch {
	case len(text) > most:
		return invalid("the %s is longer than %d octets", what, most)
	case !utf8.ValidString(text) || strings.ContainsFunc(text, hidden):
		return invalid("the %s must be one line of text", what)
	}
	return nil
}

// AddAccount makes an account with its domains and networks, and with a verifier for its own log-in
// where v is not nil. Domains must be normalized. Errors: [ErrInvalid], [ErrNameTaken] (by a
// deleted account too), [ErrDomainTaken], [ErrNoPlan].
func (l *Ledger) AddAccount(ctx context.Context, a Account, v *Verifier) error {
	if err := a.Validate(); err != nil {
		return err
	}
	err := l.batch(ctx, l.addAccount(&a, v, "account add")...)
	switch {
	case violates(err, "UNIQUE constraint failed: account.name"):
		return fmt.Errorf("%s: %w (names of deleted accounts are not used again)", a.Name, ErrNameTaken)
	case domainTaken(err):
		return l.whoHas(ctx, a.Domains)
	}
	return unknownPlan(a.Plan, err)
}

// unknownPlan is the error of a change that has nothing of another table in it but the plan, where that is not there.
func unknownPlan(plan string, err error) error {
	if violates(err, "FOREIGN KEY constraint failed") {
		return noPlan(plan)
	}
	return err
}

// addAccount makes the statements for a new account, the first line of its history among them.
func (l *Ledger) addAccount(a *Account, v *Verifier, action string) []statement {
	now := l.opt.Now().UnixMilli()
	batch := []statement{{`
		INSERT INTO account (name, customer, note, plan, mode, suspended, host, recipients, messages, bytes, on_limit, max_tiers,
		                     base_price, tier_price, waiting_messages, waiting_bytes, hold, contact, copies, catch_all, quota,
		                     cram_md5, tls, created)
		VALUES (?, ?, ?, nullif(?, ''), ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		[]any{a.Name, a.Customer, a.Note, a.Plan, a.Mode, a.Suspended, a.Host, a.Recipients, a.Messages, a.Bytes, a.OnLimit, a.MaxTiers,
			a.BasePrice, a.TierPrice, a.WaitingMessages, a.WaitingBytes, int64(a.Hold / time.Second), a.Contact, a.Copies, a.CatchAll, a.Quota, a.CRAMMD5,
			cmp.Or(a.TLS, TLSOpportunistic), now}}}
	for _, domain := range a.Domains {
		batch = append(batch, addDomain(a.Name, domain))
	}
	for _, network := range a.Networks {
		batch = append(batch, addNetwork(a.Name, network))
	}
	if v != nil {
		batch = append(batch, setVerifier(a.Name, a.Name, v, now))
	}
	return append(batch, statement{`
		INSERT INTO change (at, who, account, action) VALUES (?, ?, ` + accountID + `, ?)`,
		[]any{now, l.opt.Actor, a.Name, action}}, historyAfter)
}

// EditAccount changes what edit changes of the account, and nothing else: two processes that edit
// different fields at once both succeed. Its name, domains and networks are not edited this way. Errors: [ErrNoAccount],
// [ErrNoPlan], [ErrInvalid].
func (l *Ledger) EditAccount(ctx context.Context, name, action string, edit func(*Account) error) (before, after *Account, err error) {
	d, before, err := l.LoadAccount(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	edited := *before
	if err := edit(&edited); err != nil {
		return nil, nil, err
	}
	if err := edited.Validate(); err != nil {
		return nil, nil, err
	}
	edited.PlanTerms = nil
	if plan := d.Plan(edited.Plan); plan != nil {
		edited.PlanTerms = &plan.Terms
	}
	statements := l.editAccount(before, &edited)
	if statements == nil {
		return before, before, nil
	}
	return before, &edited, unknownPlan(edited.Plan, l.change(ctx, name, action, statements...))
}

// editAccount makes the statements that change what differs in the account's own row; nil where nothing does.
func (l *Ledger) editAccount(before, edited *Account) []statement {
	var c changed
	c.terms(before.Terms, edited.Terms)
	c.set("customer", before.Customer, edited.Customer)
	c.set("note", before.Note, edited.Note)
	c.set("mode", before.Mode, edited.Mode)
	c.set("suspended", before.Suspended, edited.Suspended)
	c.set("host", before.Host, edited.Host)
	c.set("recipients", before.Recipients, edited.Recipients)
	c.set("hold", int64(before.Hold/time.Second), int64(edited.Hold/time.Second))
	c.set("contact", before.Contact, edited.Contact)
	c.set("copies", before.Copies, edited.Copies)
	c.set("catch_all", before.CatchAll, edited.CatchAll)
	c.set("quota", before.Quota, edited.Quota)
	c.set("tls", before.TLS, cmp.Or(edited.TLS, TLSOpportunistic))
	c.set("cram_md5", before.CRAMMD5, edited.CRAMMD5)
	if before.Plan != edited.Plan {
		c.columns = append(c.columns, "plan = nullif(?, '')")
		c.args = append(c.args, edited.Plan)
	}
	if c.columns == nil {
		return nil
	}
	statements := []statement{{"UPDATE account SET " + c.list() + " WHERE name = ?", append(c.args, before.Name)}}
	if before.CRAMMD5 && !edited.CRAMMD5 { // what is not wanted any more is not kept
		statements = append(statements, statement{"UPDATE credential SET cram_md5 = NULL WHERE account = " + accountID, []any{before.Name}})
	}
	if before.Mode != edited.Mode || before.Suspended && !edited.Suspended { // until now nobody could fetch
		statements = append(statements, wasThere("SELECT id, 0, ? FROM account WHERE name = ?", l.opt.Now().UnixMilli(), before.Name))
	}
	if !before.Held() && edited.Held() { // what the queue has is for turns from now on
		statements = append(statements, statement{"DELETE FROM queued WHERE account = " + accountID, []any{before.Name}})
	}
	return statements
}

// DeleteAccount takes the account out of service with all that is its own. Its usage and its history
// stay, and so does its name. What waits for it in the MTA's queue is the caller's to ask about.
func (l *Ledger) DeleteAccount(ctx context.Context, name string) error {
	statements := []statement{}
	for _, table := range []string{"credential", "mailbox", "network", "domain", "queued"} {
		statements = append(statements, statement{"DELETE FROM " + table + " WHERE account = " + accountID, []any{name}})
	}
	// What was delivered is in no index by account; the next pass over the queue strikes it off.
	statements = append(statements, statement{"DELETE FROM waiting WHERE delivered IS NULL AND account = " + accountID, []any{name}})
	statements = append(statements, statement{"UPDATE account SET deleted = ? WHERE name = ?", []any{l.opt.Now().UnixMilli(), name}})
	return l.afterwards(ctx, l.change(ctx, name, "account delete", statements...))
}

// AddDomain gives the account a normalized domain. Errors: [ErrNoAccount], [ErrDomainTaken].
func (l *Ledger) AddDomain(ctx context.Context, name, domain string) error {
	err := l.change(ctx, name, "domain add "+domain, addDomain(name, domain))
	if domainTaken(err) {
		return l.whoHas(ctx, []string{domain})
	}
	return err
}

// RemoveDomain takes a domain from the account, with its listed recipients. A domain with mailboxes
// is refused ([ErrInvalid]), one that is not there too ([ErrNoDomain]).
func (l *Ledger) RemoveDomain(ctx context.Context, name, domain string) error {
	_, a, err := l.LoadAccount(ctx, name)
	if err != nil {
		return err
	}
	if !slices.Contains(a.Domains, domain) {
		return fmt.Errorf("%s: %w", domain, ErrNoDomain)
	}
	err = l.change(ctx, name, "domain remove "+domain,
		removeDomain(name, domain))
	if violates(err, "FOREIGN KEY constraint failed") {
		return invalid("%s has mailboxes; remove them first", domain)
	}
	return l.afterwards(ctx, err)
}

// AddNetwork lets the account's ETRN, ATRN and AUTH come from a network; one that is there already
// is no error.
func (l *Ledger) AddNetwork(ctx context.Context, name string, network netip.Prefix) error {
	return l.change(ctx, name, "network add "+network.String(), addNetwork(name, network))
}

// RemoveNetwork takes a network from the account. The last one of an etrn account is refused.
func (l *Ledger) RemoveNetwork(ctx context.Context, name string, network netip.Prefix) error {
	_, a, err := l.LoadAccount(ctx, name)
	if err != nil {
		return err
	}
	if !slices.Contains(a.Networks, network) {
		return fmt.Errorf("%s: %w", network, ErrNoNetwork)
	}
	left := *a
	left.Networks = left.Networks[1:]
	if err := left.Validate(); err != nil {
		return err
	}
	return l.change(ctx, name, "network remove "+network.String(),
		removeNetwork(name, network))
}

// AddMailbox makes a mailbox with its own log-in. It begins empty: where the account had one of this address before,
// it has another Maildir, because mail, deliveries and sessions of the former one may be there still, or come. Errors:
// [ErrNoAccount], [ErrNoDomain], [ErrMailboxTaken], [ErrInvalid] where the account is not a pop3 account.
func (l *Ledger) AddMailbox(ctx context.Context, name string, address Address, v *Verifier) error {
	_, a, err := l.LoadAccount(ctx, name)
	if err != nil {
		return err
	}
	if a.Mode != POP3 {
		return invalid("%s is an %s account; only pop3 accounts have mailboxes", name, a.Mode)
	}
	if !slices.Contains(a.Domains, address.Domain) {
		return fmt.Errorf("%s: %w", address.Domain, ErrNoDomain)
	}
	now := l.opt.Now().UnixMilli()
	key := address.Key()
	err = l.change(ctx, name, "mailbox add "+Written(key), addMailbox(name, key, now), setVerifier(key, name, v, now))
	if violates(err, "UNIQUE constraint failed: mailbox.address") {
		return fmt.Errorf("%s: %w", address, ErrMailboxTaken)
	}
	return err
}

// hadMailbox is whether the account of the first parameter had a mailbox whose removal is one of the others.
const hadMailbox = "EXISTS (SELECT 1 FROM change WHERE account = " + accountID + " AND action IN (?, ?))"

// HadMailbox reports whether the account had a mailbox of this address and has it no more. Its mail may be there still.
func (l *Ledger) HadMailbox(ctx context.Context, name string, address Address) (had bool, err error) {
	key := address.Key()
	err = l.row(ctx, "SELECT "+hadMailbox, name, removal(key), "mailbox remove "+key).Scan(&had)
	return had, err
}

// freshToken makes the name of a Maildir one that none had before.
func freshToken() string { return strings.ToLower(rand.Text()[:8]) }

// removal is what the history has of a mailbox that was removed. Older mailbags wrote the key.
func removal(key string) string { return "mailbox remove " + Written(key) }

// RemoveMailbox takes a mailbox and its log-in from the account. Mail in its Maildir is not touched, and no other
// mailbox has it.
func (l *Ledger) RemoveMailbox(ctx context.Context, name string, address Address) error {
	d, a, err := l.LoadAccount(ctx, name)
	if err != nil {
		return err
	}
	key := address.Key()
	if !slices.Contains(d.Mailboxes(a), key) {
		return fmt.Errorf("%s: %w", address, ErrNoMailbox)
	}
	return l.change(ctx, name, removal(key), removeMailbox(name, key)...)
}

func addMailbox(name, key string, now int64) statement {
	return statement{`
		INSERT INTO mailbox (address, account, domain, created, maildir)
		SELECT ?, id, ?, ?, iif(` + hadMailbox + `, ?, '') FROM account WHERE name = ? AND deleted IS NULL`,
		[]any{key, key[strings.LastIndexByte(key, '@')+1:], now, name, removal(key), "mailbox remove " + key, key + "," + freshToken(), name}}
}

func removeMailbox(name, key string) []statement {
	return []statement{
		{"DELETE FROM mailbox WHERE address = ? AND account = " + accountID, []any{key, name}},
		{"DELETE FROM credential WHERE login = ? AND account = " + accountID, []any{key, name}},
	}
}

func addDomain(name, domain string) statement {
	return statement{"INSERT INTO domain (name, account) VALUES (?, " + accountID + ")", []any{domain, name}}
}

func removeDomain(name, domain string) statement {
	return statement{"DELETE FROM domain WHERE name = ? AND account = " + accountID, []any{domain, name}}
}

func removeNetwork(name string, network netip.Prefix) statement {
	return statement{"DELETE FROM network WHERE prefix = ? AND account = " + accountID, []any{network.String(), name}}
}

func addNetwork(name string, network netip.Prefix) statement {
	return statement{"INSERT OR IGNORE INTO network (account, prefix) VALUES (" + accountID + ", ?)",
		[]any{name, network.Masked().String()}}
}

func domainTaken(err error) bool {
	return violates(err, "UNIQUE constraint failed: domain.")
}

// whoHas names the account that has one of the domains.
func (l *Ledger) whoHas(ctx context.Context, domains []string) error {
	owners, err := l.Owners(ctx, domains)
	if err != nil {
		return err
	}
	for i, domain := range domains {
		if owner, found := owners[domain]; found {
			return fmt.Errorf("%s: %w: %s", domain, ErrDomainTaken, owner)
		}
		if slices.Contains(domains[:i], domain) {
			return invalid("the domain %s is named twice", domain)
		}
	}
	return ErrDomainTaken
}
