package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"mailbag/meter"
)

func (c *console) mailboxCommand() *cobra.Command {
	return group("mailbox", "Add, remove and list the mailboxes of a pop3 account",
		"A mailbox takes the mail of one address, and has a log-in of its own: the address.",
		c.mailboxAddCommand(),
		&cobra.Command{
			Use:               "remove NAME ADDRESS",
			Short:             "Take a mailbox and its log-in away",
			Long:              "Take a mailbox and its log-in away. The mail in its Maildir is not touched.",
			Example:           "  mailbag mailbox remove dent info@dent.example",
			Args:              arguments("NAME", "ADDRESS"),
			ValidArgsFunction: c.completeMailboxes,
			RunE: c.atLedger(func(ctx context.Context, d *desk, cmd *cobra.Command, args []string) error {
				address, err := meter.ParseAddress(args[1])
				if err != nil {
					return wrongUsage(cmd, "%w", err)
				}
				if err := d.ledger.RemoveMailbox(ctx, args[0], address); err != nil {
					return err
				}
				d.say("%s has no mailbox %s any more", args[0], address)
				return nil
			}),
		},
		c.mailboxListCommand())
}

func (c *console) mailboxAddCommand() *cobra.Command {
	var flags passwordFlags
	cmd := &cobra.Command{
		Use:   "add NAME ADDRESS",
		Short: "Add a mailbox with its own log-in",
		Long: `Add a mailbox with its own log-in to a pop3 account. Its password is asked for at the terminal, twice
and without echo, unless a flag gives another way.`,
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
		p, err := d.password(cmd, flags, address.Key())
		if err != nil {
			return err
		}
		v, err := p.verifier(a.CRAMMD5)
		if err != nil {
			return err
		}
		if err := d.ledger.AddMailbox(ctx, a.Name, address, v); err != nil {
			return err
		}
		d.say("%s has the mailbox %s", a.Name, address.Key())
		return d.show(p, address.Key())
	})
	return cmd
}

func (c *console) mailboxListCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:               "list NAME",
		Short:             "List the mailboxes of an account",
		Example:           "  mailbag mailbox list dent",
		Args:              arguments("NAME"),
		ValidArgsFunction: c.completeAccounts,
	}
	jsonFlag(cmd, &asJSON)
	cmd.RunE = c.atLedger(func(ctx context.Context, d *desk, _ *cobra.Command, args []string) error {
		all, a, err := d.account(ctx, args[0])
		if err != nil {
			return err
		}
		mailboxes := append([]string{}, all.Mailboxes(a)...)
		if asJSON {
			return d.json(mailboxes)
		}
		for _, mailbox := range mailboxes {
			d.say("%s", mailbox)
		}
		return nil
	})
	return cmd
}
