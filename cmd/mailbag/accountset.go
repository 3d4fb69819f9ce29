package main

import (
	"context"
	"path/filepath"

	"github.com/spf13/cobra"

	"mailbag/meter"
)

func (c *console) accountSetCommand() *cobra.Command {
	var given meter.Account
	var forced bool
	cmd := &cobra.Command{
		Use:   "set NAME [flags]",
		Short: "Change an account",
		Long: `Change what the flags name, and nothing else. An empty text or 0 brings back the default where the
flag says so. With another --mode, what waits in the MTA's queue moves to the new way of delivery.

` + termsMeaning + `

The mail of a customer whose server is gone can be read while it waits: with --mode pop3 it goes into the
account's catch-all, to be fetched with the account's own log-in, which "mailbag passwd" gives a password; an account that has
its server asked about recipients needs --recipients any too. Back with the former --mode, mail goes to the server again. What
was stored in between goes nowhere by itself: have it fetched first, by fetchmail(1) into the server, say. What is left is
kept, and can be fetched after --mode pop3 again.

Domains, networks and passwords have commands of their own: mailbag domain, network and passwd.

` + tlsMeaning,
		Example: `  mailbag account set acme --bytes 5GB --on-limit defer
  mailbag account set acme --bytes 0
  mailbag account set acme --mode pop3 --recipients any
  mailbag account set acme --plan gold --customer K-4711 --note 'invoices to the parent company'`,
		Args:              arguments("NAME"),
		ValidArgsFunction: c.completeAccounts,
	}
	cmd.Flags().SortFlags = false
	addFields(cmd, fields, &given)
	forceFlag(cmd, &forced)
	c.completeAccountFields(cmd)
	cmd.RunE = c.atLedger(func(ctx context.Context, d *desk, cmd *cobra.Command, args []string) error {
		return d.setAccount(ctx, cmd, args[0], &given, forced)
	})
	return cmd
}

func (d *desk) setAccount(ctx context.Context, cmd *cobra.Command, name string, given *meter.Account, forced bool) error {
	if !anyGiven(cmd, fields) {
		return wrongUsage(cmd, "nothing is given that %s should be changed to", name)
	}
	before, after, err := d.ledger.EditAccount(ctx, name, "account set", func(a *meter.Account) error {
		turned := *a
		copyFields(cmd, fields, &turned, given)
		if turned.Mode != a.Mode && turned.Mode == meter.ATRN && !cmd.Flags().Changed("cram-md5") {
			turned.CRAMMD5 = true // the default of the mode, as when it is added
		}
		if err := checkFields(cmd, turned.Mode); err != nil {
			return err
		}
		if cmd.Flags().Changed("contact") {
			if err := checkContact(cmd, &turned, forced); err != nil {
				return err
			}
		}
		if err := turned.Validate(); err != nil {
			return usageError{cmd.CommandPath(), err}
		}
		*a = turned
		return nil
	})
	if err != nil {
		return err
	}
	if before == after {
		d.say("%s is so already", name)
	} else {
		d.say("changed %s", name)
	}
	listed, err := d.ledger.RecipientCount(ctx, after.ID)
	if err != nil {
		return err
	}
	d.warn(before, after, listed)
	if err := d.pointOutPassword(ctx, after); err != nil {
		return err
	}
	d.pointOutSetup(ctx, after)
	if w := d.mta.Words(); w.Lingers != "" && after.Mode == meter.Backup && after.TLS != before.TLS {
		d.note(`%s go on with what they know of the TLS of %s until they end; "%s" puts the change into force at once`, w.Lingers, name, w.Reload)
	}
	d.pointOutStored(ctx, before, after)
	if before.Mode != meter.POP3 && hasLogin(after) && after.Mode == meter.POP3 {
		d.note(`mail of %s is fetched by POP3 now; "mailbag account sheet %s" has what its customer sets up`, name, name)
	}
	if before.Mode == after.Mode {
		return nil
	}
	return d.moveWaiting(ctx, after)
}

// pointOutPassword says what the account's log-in lacks. A verifier alone cannot be made into what
// CRAM-MD5 needs: that takes the password itself.
func (d *desk) pointOutPassword(ctx context.Context, a *meter.Account) error {
	if !hasLogin(a) {
		return nil
	}
	v, err := d.ledger.Verifier(ctx, a.Name)
	switch {
	case err != nil:
		return err
	case v == nil:
		d.note(`%s has no password yet; "mailbag passwd %s" gives it one`, a.Name, a.Name)
	case a.CRAMMD5 && v.CRAMMD5 == nil:
		d.note(`CRAM-MD5 works for %s from its next password on, because only verifiers of the present one are kept; run "mailbag passwd %s"`, a.Name, a.Name)
	}
	return nil
}

func (c *console) suspendCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "suspend NAME",
		Short: "Defer an account's new mail and hold what waits",
		Long: `Suspend an account: new mail for it is deferred (4.2.1), and what waits is held whatever the mode,
until "mailbag account resume" or until its hold time is over.`,
		Example:           "  mailbag account suspend acme",
		Args:              arguments("NAME"),
		ValidArgsFunction: c.completeAccounts,
		RunE: c.atLedger(func(ctx context.Context, d *desk, _ *cobra.Command, args []string) error {
			return d.suspend(ctx, args[0], true)
		}),
	}
}

func (c *console) resumeCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "resume NAME",
		Short:             "Put a suspended account back into service",
		Long:              "Put a suspended account back into service. What was held for a backup or pop3 account is delivered now.",
		Example:           "  mailbag account resume acme",
		Args:              arguments("NAME"),
		ValidArgsFunction: c.completeAccounts,
		RunE: c.atLedger(func(ctx context.Context, d *desk, _ *cobra.Command, args []string) error {
			return d.suspend(ctx, args[0], false)
		}),
	}
}

func (d *desk) suspend(ctx context.Context, name string, suspended bool) error {
	action := map[bool]string{true: "suspend", false: "resume"}[suspended]
	before, after, err := d.ledger.EditAccount(ctx, name, "account "+action, func(a *meter.Account) error {
		a.Suspended = suspended
		return nil
	})
	if err != nil {
		return err
	}
	state := map[bool]string{true: "suspended", false: "in service"}[suspended]
	if before == after {
		d.say("%s is %s already", name, state)
	} else {
		d.say("%s is %s", name, state)
	}
	return d.moveWaiting(ctx, after)
}

func (c *console) accountDeleteCommand() *cobra.Command {
	var back bool
	var mail keepOrPurge
	cmd := &cobra.Command{
		Use:   "delete NAME",
		Short: "Take an account out of service for good",
		Long: `Take an account out of service with all that is its own. Its usage and history stay, it is billed for
the months in which it was used, and its name is not used again. Refused while mail waits for it in
the MTA's queue: have it delivered first, or return it to the senders.

` + keepOrPurgeMeaning,
		Example: `  mailbag account delete acme
  mailbag account delete acme --return
  mailbag account delete dent --purge-mail`,
		Args:              arguments("NAME"),
		ValidArgsFunction: c.completeAccounts,
	}
	returnFlag(cmd, &back)
	mail.flags(cmd)
	cmd.RunE = c.atLedger(func(ctx context.Context, d *desk, cmd *cobra.Command, args []string) error {
		if err := together(cmd, "keep-mail", "purge-mail"); err != nil {
			return err
		}
		_, a, err := d.account(ctx, args[0])
		if err != nil {
			return err
		}
		stored, err := d.store().Stored(a.Name)
		if err != nil {
			return d.unreadable(err)
		}
		if err := mail.settle(stored, a.Name); err != nil {
			return err
		}
		if err := d.emptyQueue(ctx, accountScope(a), back); err != nil {
			return err
		}
		if err := d.ledger.DeleteAccount(ctx, a.Name); err != nil {
			return err
		}
		d.say("deleted %s", a.Name)
		return d.settled(stored, mail, a.Name, filepath.Join(d.settings.POP.Maildirs, a.Name), func() error { return d.store().Purge(a.Name) })
	})
	return cmd
}

func returnFlag(cmd *cobra.Command, to *bool) {
	cmd.Flags().BoolVar(to, "return", false, "return waiting mail to its senders first")
}
