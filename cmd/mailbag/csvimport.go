package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"mailbag/cmd/internal/mta"
	"mailbag/meter"
)

// importFlags are what an import is told besides its file.
type importFlags struct {
	dryRun, forced, withMail bool
	passwords                string // the file for those that are made
}

// importCSV makes the accounts what the rows say, all of them or none.
func (d *desk) importCSV(ctx context.Context, f *csvFile, flags importFlags) error {
	all, err := d.ledger.Load(ctx)
	if err != nil {
		return err
	}
	drafts := f.drafts(all)
	unchanged := len(drafts)
	drafts = slices.DeleteFunc(drafts, func(d *draft) bool { return !d.changes() })
	unchanged -= len(drafts)
	if err := d.checkDrafts(ctx, f, all, drafts, flags); err != nil {
		return err
	}
	if len(f.faults) > 0 {
		return notImported(f.told())
	}
	logins, err := d.freshLogins(ctx, drafts)
	if err != nil {
		return err
	}
	if len(logins) > 0 && flags.passwords != "" {
		if err := d.checkPasswordsFile(flags.passwords); err != nil {
			return notImported([]error{err})
		}
	}
	if flags.dryRun {
		d.sayDrafts(drafts)
		d.say("%s; nothing was changed", tally(drafts, unchanged, "would be "))
		if len(logins) > 0 {
			d.say("%s would get a password, which the file of --passwords is to have", loginsOf(len(logins)))
		}
		return nil
	}
	if len(logins) > 0 && flags.passwords == "" {
		return fmt.Errorf("nothing was imported: %s would get a password, %s for one; name a new file for these with --passwords", loginsOf(len(logins)), meter.Written(logins[0].key))
	}
	if err := d.amend(ctx, all, drafts, logins, flags); err != nil {
		return err
	}
	d.sayDrafts(drafts)
	d.say("%s", tally(drafts, unchanged, ""))
	if len(logins) > 0 {
		d.say("%s in %s", passwordsOf(len(logins)), flags.passwords)
	}
	return d.afterImport(ctx, drafts)
}

func (d *desk) sayDrafts(drafts []*draft) {
	for _, draft := range drafts {
		for _, line := range draft.differences() {
			d.say("%s", visible(line))
		}
	}
}

// tally says how many accounts were treated how, or would be.
func tally(drafts []*draft, unchanged int, would string) string {
	added := 0
	for _, draft := range drafts {
		if draft.before == nil {
			added++
		}
	}
	text := fmt.Sprintf("%s %sadded, %s changed", accountsOf(added), would, grouped(int64(len(drafts)-added)))
	if unchanged > 0 {
		text += fmt.Sprintf(", %s %s so already", grouped(int64(unchanged)), verb(int64(unchanged), "is", "are"))
	}
	return text
}

func loginsOf(n int) string { return grouped(int64(n)) + " " + verb(int64(n), "log-in", "log-ins") }

func passwordsOf(n int) string {
	return grouped(int64(n)) + " " + verb(int64(n), "password is", "passwords are")
}

// checkDrafts notes what else is in the way: former accounts, mail that is stored or waits, and what the MTA has.
func (d *desk) checkDrafts(ctx context.Context, f *csvFile, all *meter.Directory, drafts []*draft, flags importFlags) error {
	var names []string
	var fresh []meter.Transfer
	for _, draft := range drafts {
		if draft.before == nil {
			names = append(names, draft.name())
			fresh = append(fresh, meter.Transfer{Account: meter.Account{Name: draft.name()}})
		}
	}
	taken, err := d.ledger.NamesTaken(ctx, names)
	if err != nil {
		return err
	}
	f.checkNames(drafts, taken)
	if !flags.forced {
		f.checkContacts(drafts)
	}
	if err := d.checkRemovedMailboxes(f, all, drafts); err != nil {
		return err
	}
	if err := d.checkRemovedDomains(ctx, f, drafts); err != nil {
		return err
	}
	if err := d.checkConflicts(ctx, f, drafts); err != nil {
		return err
	}
	if len(f.faults) > 0 || flags.withMail { // what is stored may be of an account that is in the way
		return nil
	}
	return d.storedBefore(fresh)
}

// checkRemovedMailboxes notes mailboxes that have mail: what becomes of it has to be said for each.
func (d *desk) checkRemovedMailboxes(f *csvFile, all *meter.Directory, drafts []*draft) error {
	for _, draft := range drafts {
		for _, key := range draft.loses(mailboxesOf) {
			stored, err := d.store().StoredIn(draft.name(), all.Maildir(key))
			if err != nil {
				return d.unreadable(err)
			}
			if stored.Messages > 0 {
				f.fault(draft.row.at(mailboxesColumn).line, `mailboxes: %s stored for %s; "mailbag mailbox remove %s" asks what becomes of it`, isAmount(stored), meter.Written(key), draft.name())
			}
		}
	}
	return nil
}

// checkRemovedDomains notes domains for which mail waits, also where another account of the file gets them. The queue is
// looked through once for all of them, and where it has nothing once more, as by [desk.waiting].
func (d *desk) checkRemovedDomains(ctx context.Context, f *csvFile, drafts []*draft) error {
	s := scope{what: "the domains that are taken away"}
	waits := map[string]*meter.Waiting{}
	for _, draft := range drafts {
		if domains := draft.loses(domainsOf); len(domains) > 0 {
			s.domains = append(s.domains, domains...)
			s.accounts = append(s.accounts, &draft.before.Account)
			for _, domain := range domains {
				waits[domain] = new(meter.Waiting)
			}
		}
	}
	if len(s.domains) == 0 {
		return nil
	}
	found := false
	for range 2 {
		for e, err := range d.mta.Queue(ctx) {
			switch {
			case errors.Is(err, mta.ErrMissing):
				return d.emptyIndex(ctx, s)
			case err != nil:
				return fmt.Errorf("nothing was imported, because it cannot be seen whether mail waits for %s: %w", s.what, err)
			}
			for _, domain := range domainsIn(e) {
				if w := waits[domain]; w != nil {
					w.Messages, w.Bytes = w.Messages+1, w.Bytes+e.Size
					found = true
				}
			}
		}
		if found {
			break
		}
	}
	for _, draft := range drafts {
		for _, domain := range draft.loses(domainsOf) {
			if w := waits[domain]; w.Messages > 0 {
				f.fault(draft.row.at(domainsColumn).line, `domains: mail waits for %s (%s); have it delivered first, or return it by "mailbag domain remove %s %[1]s --return"`, domain, amount(w.Messages, w.Bytes), draft.name())
			}
		}
	}
	return nil
}

// checkConflicts notes domains that the MTA would deliver in another way.
func (d *desk) checkConflicts(ctx context.Context, f *csvFile, drafts []*draft) error {
	var domains []string
	lines := map[string]int{}
	for _, draft := range drafts {
		for _, domain := range draft.gains(domainsOf) {
			domains = append(domains, domain)
			lines[domain] = draft.row.at(domainsColumn).line
		}
	}
	if len(domains) == 0 {
		return nil
	}
	conflicts, err := d.conflicts(ctx, domains...)
	for _, c := range conflicts {
		f.fault(lines[c.Domain], "domains: %s; take it out of %s first", c, c.Parameter)
	}
	return err
}

// amend puts the drafts into force. The passwords are on the disk before: nobody could make them out later.
func (d *desk) amend(ctx context.Context, all *meter.Directory, drafts []*draft, logins []freshLogin, flags importFlags) error {
	amendments := make([]meter.Amendment, len(drafts))
	at := map[string]*meter.Amendment{}
	for i, draft := range drafts {
		amendments[i] = draft.amendment()
		at[draft.name()] = &amendments[i]
	}
	if len(logins) > 0 {
		if err := d.makePasswords(ctx, logins); err != nil {
			return notImported([]error{err})
		}
	}
	for _, login := range logins {
		at[login.account].Verifiers[login.key] = login.verifier
	}
	for _, draft := range drafts {
		if err := d.clearMailboxes(ctx, draft, flags); err != nil {
			return err
		}
	}
	written := false
	if len(logins) > 0 {
		var err error
		if written, err = d.writePasswords(flags.passwords, logins); err != nil {
			return notImported([]error{err})
		}
	}
	d.showProgress("%s being written", accountsOf(len(drafts)))
	err := d.ledger.Amend(ctx, all.Revision(), amendments)
	d.endProgress()
	if err == nil {
		return nil
	}
	if written { // which may have failed when all was done
		switch inForce, unseen := d.inForce(context.WithoutCancel(ctx), logins); {
		case unseen != nil:
			return fmt.Errorf("it cannot be seen whether anything was imported; if it was, the passwords are those in %s: %w", flags.passwords, err)
		case inForce:
			return nil
		}
		err = errors.Join(err, os.Remove(flags.passwords))
	}
	return notImported([]error{err})
}

// clearMailboxes sees to it that new mailboxes of an account that is there begin empty, as those of mailbox add.
func (d *desk) clearMailboxes(ctx context.Context, draft *draft, flags importFlags) error {
	if draft.before == nil || flags.withMail {
		return nil
	}
	for _, key := range draft.gains(mailboxesOf) {
		had, err := d.ledger.HadMailbox(ctx, draft.name(), meter.KeyAddress(key))
		if err == nil && !had {
			err = d.clear(draft.name(), key, "mailbox")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// afterImport says what the changes lead to that their author may not expect, and moves mail that waits to its new way.
func (d *desk) afterImport(ctx context.Context, drafts []*draft) error {
	var accounts []*meter.Account
	var mailboxes []meter.Address
	for _, draft := range drafts {
		accounts = append(accounts, &draft.after.Account)
		for _, key := range draft.gains(mailboxesOf) {
			mailboxes = append(mailboxes, meter.KeyAddress(key))
		}
	}
	d.pointOutSetup(ctx, accounts...)
	d.pointOutDeaf(mailboxes...)
	if err := d.warnOfDrafts(ctx, drafts); err != nil {
		return err
	}
	return d.moveDrafts(ctx, drafts)
}

// warnOfDrafts is [console.warn] of many accounts at once.
func (d *desk) warnOfDrafts(ctx context.Context, drafts []*draft) error {
	var open, unlisted, everywhere, unproven []string
	for _, draft := range drafts {
		if draft.became(func(a *meter.Account) bool { return a.Mode != meter.POP3 && a.Recipients == meter.AnyRecipient }) {
			open = append(open, draft.name())
		}
		if draft.became(func(a *meter.Account) bool { return a.Recipients == meter.ListedRecipient }) {
			n := 0
			if draft.before != nil {
				var err error
				if n, err = d.ledger.RecipientCount(ctx, draft.before.ID); err != nil {
					return err
				}
			}
			if n == 0 {
				unlisted = append(unlisted, draft.name())
			}
		}
		if draft.before != nil && draft.became(func(a *meter.Account) bool { return a.Mode == meter.ATRN && len(a.Networks) == 0 }) {
			everywhere = append(everywhere, draft.name())
		}
		if draft.before != nil && draft.became(func(a *meter.Account) bool { return hasLogin(a) && a.CRAMMD5 }) {
			v, err := d.ledger.Verifier(ctx, draft.name())
			if err != nil {
				return err
			}
			if v != nil && v.CRAMMD5 == nil {
				unproven = append(unproven, draft.name())
			}
		}
	}
	for _, warning := range []struct {
		names []string
		of    string
	}{
		{open, "%s: any recipient is accepted, so mail to unknown ones is returned to senders that are often forged (backscatter); a recipient list avoids that"},
		{unlisted, `%s: the recipient list is empty, so all mail is refused until "mailbag recipient import NAME FILE" fills it`},
		{everywhere, "%s: no network is left, so the log-in and ATRN are taken from everywhere"},
		{unproven, `%s: CRAM-MD5 works from the next password on, because only verifiers of the present one are kept; "mailbag passwd" gives one`},
	} {
		if len(warning.names) > 0 {
			d.note("warning: "+warning.of, few(warning.names))
		}
	}
	return nil
}

// moveDrafts takes mail that waits to its new way of delivery, of all accounts at once whose mail goes the same way. Before,
// the queue is looked through for whether they have something there.
func (d *desk) moveDrafts(ctx context.Context, drafts []*draft) error {
	owners := map[string]*meter.Account{}
	for _, draft := range drafts {
		if draft.before != nil && (draft.before.Mode != draft.after.Mode || draft.before.Suspended != draft.after.Suspended) {
			d.pointOutStored(ctx, &draft.before.Account, &draft.after.Account)
			for _, domain := range draft.after.Domains {
				owners[domain] = &draft.after.Account
			}
		}
	}
	if len(owners) == 0 {
		return nil
	}
	waits := map[*meter.Account]bool{}
	for e, err := range d.mta.Queue(ctx) {
		switch {
		case errors.Is(err, mta.ErrMissing):
			return nil
		case err != nil:
			return fmt.Errorf("the changes are made, but what waits could not be looked at; it moves to its new way at %s's next attempts: %w", d.mta.Words().Name, err)
		}
		for _, domain := range domainsIn(e) {
			if a := owners[domain]; a != nil {
				waits[a] = true
			}
		}
	}
	type way struct{ held, stored bool } // else it goes to the customer's server
	moved := map[way][]*meter.Account{}
	for _, draft := range drafts {
		if a := &draft.after.Account; waits[a] {
			to := way{a.Held(), !a.Held() && a.Mode == meter.POP3}
			moved[to] = append(moved[to], a)
		}
	}
	var failures error
	for _, to := range []way{{held: true}, {stored: true}, {}} {
		if accounts := moved[to]; len(accounts) > 0 {
			failures = errors.Join(failures, d.moveWaiting(ctx, accounts...))
		}
	}
	return failures
}

// domainsIn are the domains for which a message waits, without repeats.
func domainsIn(e mta.Entry) (domains []string) {
	for _, r := range e.Recipients {
		domain, err := meter.NormalizeDomain(r.Address[strings.LastIndexByte(r.Address, '@')+1:])
		if err == nil && !slices.Contains(domains, domain) {
			domains = append(domains, domain)
		}
	}
	return domains
}
