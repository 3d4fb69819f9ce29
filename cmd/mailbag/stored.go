package main

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"mailbag/cmd/internal/units"
	"mailbag/meter"
	"mailbag/popd"
)

// store is where mailbag-popd keeps mail.
func (d *desk) store() *popd.Store { return popd.NewStore(d.settings.POP.Maildirs, time.Now) }

// keepOrPurge is what to do with the stored mail of what is taken away.
type keepOrPurge struct{ keep, purge bool }

const keepOrPurgeMeaning = `Refused while mail is stored, unless one of --keep-mail and --purge-mail says what becomes of it. What is kept
belongs to nobody from then on, whoever gets the address next; "mailbag mailbox list --orphaned" shows it.`

func (k *keepOrPurge) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&k.keep, "keep-mail", false, "leave stored mail where it is, for nobody to fetch")
	cmd.Flags().BoolVar(&k.purge, "purge-mail", false, "remove stored mail for good")
}

// settle refuses to leave stored mail behind unless the operator has said what becomes of it.
func (k keepOrPurge) settle(stored popd.Stored, of string) error {
	if stored.Messages == 0 || k.keep || k.purge {
		return nil
	}
	return fmt.Errorf("%s stored for %s, nothing was changed; --keep-mail leaves it where it is, for nobody to fetch, --purge-mail removes it for good",
		isAmount(stored), of)
}

// settled does with the mail of what was taken away what was said.
func (d *desk) settled(stored popd.Stored, k keepOrPurge, of, path string, purge func() error) error {
	if k.purge {
		if err := purge(); err != nil {
			return fmt.Errorf("%s is taken away, but its mail in %s is not: %w", of, path, err)
		}
		if stored.Messages > 0 {
			d.say("removed %s", amount(stored.Messages, stored.Bytes))
		}
	} else if stored.Messages > 0 {
		d.note(`its mail stays in %s, for nobody to fetch; "mailbag mailbox list --orphaned" shows such mail`, path)
	}
	return nil
}

// isAmount is "1 message, 4.1 kB is".
func isAmount(s popd.Stored) string {
	return amount(s.Messages, s.Bytes) + " " + verb(s.Messages, "is", "are")
}

// unreadable is the error of whoever may not look at stored mail.
func (d *desk) unreadable(err error) error {
	return fmt.Errorf("%w; run mailbag as a user who may read %s", err, d.settings.POP.Maildirs)
}

// clear sees to it that an account, or a mailbox of it, begins empty: whatever lies there was somebody else's, in
// another ledger or before it.
func (d *desk) clear(account, mailbox, of string) error {
	path, was, err := d.store().SetAside(account, mailbox)
	if err != nil {
		return d.unreadable(err)
	}
	if was.Messages > 0 {
		d.note(`mail of an earlier %s was there (%s), and is set aside in %s, for nobody to fetch; "mailbag mailbox list --orphaned" shows such mail`,
			of, amount(was.Messages, was.Bytes), path)
	}
	return nil
}

// storedBefore says for which of the accounts that are to come there is mail already; nil: for none.
func (d *desk) storedBefore(transfers []meter.Transfer) error {
	var owners []string
	var all popd.Stored
	for _, t := range transfers {
		stored, err := d.store().Stored(t.Name)
		if err != nil {
			return d.unreadable(err)
		}
		if stored.Messages > 0 {
			owners = append(owners, t.Name)
			all.Messages += stored.Messages
			all.Bytes += stored.Bytes
		}
	}
	if len(owners) == 0 {
		return nil
	}
	return fmt.Errorf("%s in the Maildirs of %s in %s already; give --with-mail where that was copied for %s, else move it away",
		isAmount(all), few(owners), d.settings.POP.Maildirs, verb(int64(len(owners)), "this account", "these accounts"))
}

// pointOutStored says what a change of the mode or the catch-all means for mail that is stored: it stays the account's.
func (d *desk) pointOutStored(ctx context.Context, before, after *meter.Account) {
	had, has := before.Mode == meter.POP3, after.Mode == meter.POP3
	stored, err := d.fetchable(ctx, after)
	of, out, again := "the Maildirs of "+after.Name, "the account is not a pop3 account", "--mode pop3"
	if had && has {
		if before.CatchAll == after.CatchAll {
			return
		}
		had, has = before.CatchAll, after.CatchAll
		stored, err = d.store().StoredIn(after.Name, "")
		of, out, again = "the catch-all of "+after.Name, "the account has none", "--catch-all yes"
	}
	switch {
	case err != nil || stored.Messages == 0 || had == has:
	case had:
		d.note(`%s %s in %s, and nobody can fetch it while %s; "mailbag account set %s %s" lets it be fetched again`,
			amount(stored.Messages, stored.Bytes), verb(stored.Messages, "stays", "stay"), of, out, after.Name, again)
	default:
		d.note("%s in %s from before, and can be fetched again", isAmount(stored), of)
	}
}

// fetchable is what is stored in the mailboxes that an account has, in its catch-all too where it has one.
func (d *desk) fetchable(ctx context.Context, a *meter.Account) (popd.Stored, error) {
	var sum popd.Stored
	all, a, err := d.account(ctx, a.Name)
	if err != nil {
		return sum, err
	}
	holdings, err := d.store().Holdings(all, a)
	for _, h := range holdings {
		if h.Mailbox != "" || a.CatchAll {
			sum.Messages += h.Messages
			sum.Bytes += h.Bytes
		}
	}
	return sum, err
}

// showOrphans lists the mail that nobody can fetch any more, of all accounts or of one, also of such that are deleted.
func (d *desk) showOrphans(ctx context.Context, account string, asJSON bool) error {
	all, err := d.ledger.Load(ctx)
	if err != nil {
		return err
	}
	orphans, err := d.store().Orphans(all, account)
	if err != nil {
		return d.unreadable(err)
	}
	if len(orphans) == 0 && !asJSON {
		d.note("there is no orphaned mail")
		return nil
	}
	return d.showHoldings(orphans, asJSON)
}

// showStored lists where an account has its mail.
func (d *desk) showStored(ctx context.Context, account string, asJSON bool) error {
	all, a, err := d.account(ctx, account)
	if err != nil {
		return err
	}
	holdings, err := d.store().Holdings(all, a)
	if err != nil {
		return d.unreadable(err)
	}
	return d.showHoldings(holdings, asJSON)
}

func (d *desk) showHoldings(holdings []popd.Holding, asJSON bool) error {
	if asJSON {
		return d.json(append([]popd.Holding{}, holdings...))
	}
	t := table{heads: []string{"ACCOUNT", "MAILBOX", ">MESSAGES", ">SIZE", "PATH"}}
	for _, h := range holdings {
		t.add(h.Account, cmp.Or(h.Mailbox, "catch-all"), grouped(h.Messages), units.RoundSize(h.Bytes), h.Path)
	}
	d.table(&t)
	return nil
}
