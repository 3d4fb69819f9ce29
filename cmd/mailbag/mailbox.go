package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"mailbag/meter"
)

func (c *console) mailboxCommand() *cobra.Command {
	return group("mailbox", "Add, remove and list the mailboxes of a pop3 account",
		`A mailbox takes the mail of one address, and has a log-in of its own: the address. What needs quotes has them
everywhere, in commands as in SMTP: "two words"@dent.example.`,
		c.mailboxAddCommand(),
		c.mailboxRemoveCommand(),
		c.mailboxListCommand())
}

func (c *console) mailboxAddCommand() *cobra.Command {
	var flags passwordFlags
	cmd := &cobra.Command{
		Use:   "add NAME ADDRESS",
		Short: "Add a mailbox with its own log-in",
		Long: `Add a mailbox with its own log-in to a pop3 account. Its password is asked for at the terminal, twice
and without echo, unless a flag gives another way. It begins empty, whoever had the address before.`,
		Example:           "  mailbag mailbox add dent info@dent.example --generate-password",
		Args:              arguments("NAME", "ADDRESS"),
		ValidArgsFunction: c.completeAccounts,
	}
	flags.add(cmd)
	cmd.RunE = c.atLedger(func(ctx context.Context, d *desk, cmd *cobra.Command, args []string) error {
		address, err := meter.ParseAddress(args[1])
		if err != nil {
			return wrongUsage(cmd, "%w", err)
		}
		all, a, err := d.account(ctx, args[0])
		switch {
		// The ledger says all of this too, but not before a password was asked for.
		case err != nil:
			return err
		case a.Mode != meter.POP3:
			return wrongUsage(cmd, "%s is an account of the mode %s; only pop3 accounts have mailboxes", a.Name, a.Mode)
		case all.Domain(address.Domain) != a:
			return fmt.Errorf("%s: %w", address.Domain, meter.ErrNoDomain)
		case all.Mailbox(address) != nil:
			return fmt.Errorf("%s: %w", address, meter.ErrMailboxTaken)
		}
		p, err := d.password(cmd, flags, meter.Written(address.Key()))
		if err != nil {
			return err
		}
		v, err := p.verifier(a.CRAMMD5)
		if err != nil {
			return err
		}
		if err := d.addMailbox(ctx, a.Name, address, v); err != nil {
			return err
		}
		login := meter.Written(address.Key())
		d.say("%s has the mailbox %s", a.Name, login)
		d.pointOutDeaf(address)
		return d.show(p, login)
	})
	return cmd
}

// addMailbox makes a mailbox that begins empty. Mail of a former one has another Maildir where the ledger knows that there
// was one, and is set aside where it does not.
func (d *desk) addMailbox(ctx context.Context, name string, address meter.Address, v *meter.Verifier) error {
	all, _, err := d.account(ctx, name)
	if err != nil {
		return err
	}
	if all.Mailbox(address) != nil { // made while the password was asked for: its mail is not set aside
		return fmt.Errorf("%s: %w", address, meter.ErrMailboxTaken)
	}
	had, err := d.ledger.HadMailbox(ctx, name, address)
	if err == nil && !had {
		err = d.clear(name, address.Key(), "mailbox")
	}
	if err != nil {
		return err
	}
	return d.ledger.AddMailbox(ctx, name, address, v)
}

func (c *console) mailboxRemoveCommand() *cobra.Command {
	var mail keepOrPurge
	cmd := &cobra.Command{
		Use:   "remove NAME ADDRESS",
		Short: "Take a mailbox and its log-in away",
		Long:  "Take a mailbox and its log-in away.\n\n" + keepOrPurgeMeaning,
		Example: `  mailbag mailbox remove dent info@dent.example --keep-mail
  mailbag mailbox remove dent '"two words"@dent.example' --purge-mail`,
		Args:              arguments("NAME", "ADDRESS"),
		ValidArgsFunction: c.completeMailboxes,
	}
	mail.flags(cmd)
	cmd.RunE = c.atLedger(func(ctx context.Context, d *desk, cmd *cobra.Command, args []string) error {
		if err := together(cmd, "keep-mail", "purge-mail"); err != nil {
			return err
		}
		return d.removeMailbox(ctx, cmd, args[0], args[1], mail)
	})
	return cmd
}

func (d *desk) removeMailbox(ctx context.Context, cmd *cobra.Command, name, text string, mail keepOrPurge) error {
	all, a, err := d.account(ctx, name)
	if err != nil {
		return err
	}
	address, err := existing(text, func(address meter.Address) bool { return all.Mailbox(address) == a })
	if err != nil {
		return wrongUsage(cmd, "%w", err)
	}
	place := all.Maildir(address.Key())
	stored, err := d.store().StoredIn(name, place)
	if err != nil {
		return d.unreadable(err)
	}
	if all.Mailbox(address) == a {
		if err := mail.settle(stored, address.String()); err != nil {
			return err
		}
	}
	// The mail is nobody's from this on, whatever comes of the rest.
	if err := d.ledger.RemoveMailbox(ctx, name, address); err != nil {
		return err
	}
	d.say("%s has no mailbox %s any more", name, address)
	d.pointOutQueued(ctx, all, a, address)
	return d.settled(stored, mail, address.String(), d.store().Maildir(name, place).Path(),
		func() error { return d.store().PurgeMailbox(name, place) })
}

// pointOutQueued says that mail for a mailbox that was taken away is still on its way to the address.
func (d *desk) pointOutQueued(ctx context.Context, all *meter.Directory, a *meter.Account, gone meter.Address) {
	messages := int64(0)
	for e, err := range d.mta.Queue(ctx) {
		if err != nil {
			return // where there is no MTA nothing is on its way, and the mailbox is gone all the same
		}
		for _, r := range e.Recipients {
			to, err := existing(r.Address, func(meter.Address) bool { return true })
			if err == nil && all.Domain(to.Domain) == a && all.Delivery(a, to) == gone.Key() {
				messages++
				break
			}
		}
	}
	if messages > 0 {
		w := d.mta.Words()
		d.note("warning: %s for %s still %s in %s's queue, for whoever has the address when it is delivered; %s deletes mail from there",
			amountOf(int(messages)), gone, verb(messages, "waits", "wait"), w.Name, w.Delete)
	}
}

func (c *console) mailboxListCommand() *cobra.Command {
	var asJSON, stored, orphaned bool
	cmd := &cobra.Command{
		Use:   "list [NAME]",
		Short: "List the mailboxes of an account, what is stored, or mail that is nobody's",
		Long: `List the mailboxes of an account, with --stored also how much mail each has, and the catch-all, and where.

With --orphaned list the Maildirs with mail that belongs to no mailbox and no account any more, of all accounts or of
one, which may be deleted: what --keep-mail kept, and what was there before the ledger knew the account. Nobody can
fetch it. What lies in the folder of an account counts for its quota. To delete such mail, remove its directory. To give
it to a mailbox, move the files in its new and cur into new of that one's Maildir, which is made at its first log-in.`,
		Example: `  mailbag mailbox list dent
  mailbag mailbox list dent --stored
  mailbag mailbox list --orphaned`,
		Args:              arguments("[NAME]"),
		ValidArgsFunction: c.completeAccounts,
	}
	cmd.Flags().BoolVar(&stored, "stored", false, "show how much mail is stored, and where")
	cmd.Flags().BoolVar(&orphaned, "orphaned", false, "list mail that belongs to no mailbox and no account any more")
	jsonFlag(cmd, &asJSON)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := together(cmd, "stored", "orphaned"); err != nil {
			return err
		}
		if !orphaned && len(args) == 0 {
			return wrongUsage(cmd, "the argument NAME is missing, or --orphaned")
		}
		return c.atLedger(func(ctx context.Context, d *desk, _ *cobra.Command, args []string) error {
			if orphaned {
				return d.showOrphans(ctx, strings.Join(args, ""), asJSON)
			}
			if stored {
				return d.showStored(ctx, args[0], asJSON)
			}
			return d.listMailboxes(ctx, args[0], asJSON)
		})(cmd, args)
	}
	return cmd
}

func (d *desk) listMailboxes(ctx context.Context, name string, asJSON bool) error {
	all, a, err := d.account(ctx, name)
	if err != nil {
		return err
	}
	mailboxes := written(all.Mailboxes(a))
	if asJSON {
		return d.json(mailboxes)
	}
	for _, mailbox := range mailboxes {
		d.say("%s", mailbox)
	}
	return nil
}
