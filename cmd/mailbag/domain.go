package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"mailbag/meter"
)

func (c *console) domainCommand() *cobra.Command {
	var back bool
	remove := &cobra.Command{
		Use:   "remove NAME DOMAIN",
		Short: "Take a domain from an account",
		Long: `Take a domain from an account, with its listed recipients. Refused while mail waits for the domain in
the MTA's queue: have it delivered first, or return it to the senders.`,
		Example:           "  mailbag domain remove acme acme.test\n  mailbag domain remove acme acme.test --return",
		Args:              arguments("NAME", "DOMAIN"),
		ValidArgsFunction: c.completeDomains,
	}
	returnFlag(remove, &back)
	remove.RunE = c.atLedger(func(ctx context.Context, d *desk, cmd *cobra.Command, args []string) error {
		return d.removeDomain(ctx, cmd, args[0], args[1], back)
	})
	return group("domain", "Add and remove the domains of an account",
		`A domain belongs to one account at a time. It may be given in its own letters or as A-labels (xn--…). Commands show
A-labels, as the MTA's log does; what customers read, such as sheets and notices, has its own letters.`,
		&cobra.Command{
			Use:               "add NAME DOMAIN",
			Short:             "Give an account a domain",
			Long:              "Give an account a domain. Its mail is accepted within 15 seconds.",
			Example:           "  mailbag domain add acme acme.test\n  mailbag domain add acme bücher.example",
			Args:              arguments("NAME", "DOMAIN"),
			ValidArgsFunction: c.completeAccounts,
			RunE: c.atLedger(func(ctx context.Context, d *desk, cmd *cobra.Command, args []string) error {
				return d.addDomain(ctx, cmd, args[0], args[1])
			}),
		},
		remove)
}

func (d *desk) addDomain(ctx context.Context, cmd *cobra.Command, name, text string) error {
	domain, err := meter.NormalizeDomain(text)
	if err != nil {
		return wrongUsage(cmd, "%w", err)
	}
	_, a, err := d.account(ctx, name)
	if err != nil {
		return err
	}
	if err := d.refuseConflicts(ctx, domain); err != nil {
		return err
	}
	if err := d.ledger.AddDomain(ctx, name, domain); err != nil {
		return err
	}
	d.say("%s has the domain %s", name, domain)
	if contact, err := meter.ParseAddress(a.Contact); err == nil && contact.Domain == domain {
		d.note("warning: the contact %s is in it, so notices wait with the mail that they are about", a.Contact)
	}
	if a.Recipients == meter.ListedRecipient {
		d.note(`only listed recipients of %s are accepted; "mailbag recipient add %s ADDRESS..." lists those of %s`, name, name, domain)
	}
	return nil
}

func (d *desk) removeDomain(ctx context.Context, cmd *cobra.Command, name, text string, back bool) error {
	domain, err := meter.NormalizeDomain(text)
	if err != nil {
		return wrongUsage(cmd, "%w", err)
	}
	all, a, err := d.account(ctx, name)
	if err != nil {
		return err
	}
	if all.Domain(domain) != a {
		return fmt.Errorf("%s: %w", domain, meter.ErrNoDomain)
	}
	for _, mailbox := range all.Mailboxes(a) {
		// The ledger says so too, but not before mail was returned.
		if strings.HasSuffix(mailbox, "@"+domain) {
			return fmt.Errorf(`%s has mailboxes, %s for one; "mailbag mailbox remove" takes them away first`, domain, meter.Written(mailbox))
		}
	}
	if err := d.emptyQueue(ctx, scope{domain, []string{domain}, []*meter.Account{a}}, back); err != nil {
		return err
	}
	if err := d.ledger.RemoveDomain(ctx, name, domain); err != nil {
		return err
	}
	d.say("%s has no domain %s any more", name, domain)
	if len(a.Domains) == 1 {
		d.note(`%s has no domain left; "mailbag account delete %s" takes it out of service`, name, name)
	}
	return nil
}
