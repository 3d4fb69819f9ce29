package main

import (
	"context"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"mailbag/meter"
)

func (c *console) recipientCommand() *cobra.Command {
	return group("recipient", "Keep the list of an account's recipients",
		`Mail for an account set to --recipients list is accepted for the addresses on its list only. An address
with an extension (user+x) is accepted where the one without is listed.`,
		c.recipientEditCommand("add", "Put addresses on an account's list", meter.ParseAddress, (*desk).addRecipients, c.completeAccounts),
		c.recipientEditCommand("remove", "Take addresses off an account's list",
			func(text string) (meter.Address, error) {
				return existing(text, func(meter.Address) bool { return true }) // what is not there is not taken off
			}, (*desk).removeRecipients, c.completeRecipients),
		c.recipientListCommand(), c.recipientImportCommand())
}

func (c *console) recipientEditCommand(verb, short string, read func(string) (meter.Address, error), edit func(*desk, context.Context, *meter.Account, []meter.Address) error,
	complete cobra.CompletionFunc) *cobra.Command {
	return &cobra.Command{
		Use:               verb + " NAME ADDRESS...",
		Short:             short,
		Example:           "  mailbag recipient " + verb + " acme info@acme.example sales@acme.example",
		Args:              arguments("NAME", "ADDRESS..."),
		ValidArgsFunction: complete,
		RunE: c.atLedger(func(ctx context.Context, d *desk, cmd *cobra.Command, args []string) error {
			_, a, err := d.account(ctx, args[0])
			if err != nil {
				return err
			}
			var addresses []meter.Address
			for _, text := range args[1:] {
				address, err := read(text)
				if err != nil {
					return wrongUsage(cmd, "%w", err)
				}
				addresses = append(addresses, address)
			}
			return edit(d, ctx, a, addresses)
		}),
	}
}

func (d *desk) addRecipients(ctx context.Context, a *meter.Account, addresses []meter.Address) error {
	keys := map[string]bool{} // one address may be given in two spellings
	for _, address := range addresses {
		if !slices.Contains(a.Domains, address.Domain) {
			return fmt.Errorf("%s is in none of the domains of %s, nothing was changed: %w", address, a.Name, meter.ErrNoDomain)
		}
		keys[address.Key()] = true
	}
	if err := d.ledger.AddRecipients(ctx, a.Name, addresses...); err != nil {
		return err
	}
	d.say("%d on the list of %s", len(keys), a.Name)
	d.pointOutDeaf(addresses...)
	d.pointOutList(a)
	return nil
}

func (d *desk) removeRecipients(ctx context.Context, a *meter.Account, addresses []meter.Address) error {
	listed, err := d.ledger.RemoveRecipients(ctx, a.Name, addresses...)
	if err != nil {
		return err
	}
	d.say("%d taken off the list of %s", listed, a.Name)
	if missing := len(addresses) - listed; missing > 0 {
		d.note("not on the list: %d", missing)
	}
	return nil
}

// pointOutList says that the list which was just changed is not in use.
func (c *console) pointOutList(a *meter.Account) {
	if a.Recipients != meter.ListedRecipient {
		c.note(`%s does not use its list (recipients: %s); "mailbag account set %s --recipients list" makes it`, a.Name, a.Recipients, a.Name)
	}
}

func (c *console) recipientListCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:               "list NAME",
		Short:             "List an account's recipients, one a line",
		Example:           "  mailbag recipient list acme > acme.txt",
		Args:              arguments("NAME"),
		ValidArgsFunction: c.completeAccounts,
	}
	jsonFlag(cmd, &asJSON)
	cmd.RunE = c.atLedger(func(ctx context.Context, d *desk, _ *cobra.Command, args []string) error {
		_, a, err := d.account(ctx, args[0])
		if err != nil {
			return err
		}
		addresses := []string{}
		for address, err := range d.ledger.Recipients(ctx, a.ID) {
			if err != nil {
				return err
			}
			if asJSON {
				addresses = append(addresses, meter.Written(address))
			} else {
				d.say("%s", meter.Written(address))
			}
		}
		if asJSON {
			return d.json(addresses)
		}
		return nil
	})
	return cmd
}

func (c *console) recipientImportCommand() *cobra.Command {
	var replace bool
	cmd := &cobra.Command{
		Use:   "import NAME FILE",
		Short: "Add a file of addresses to an account's list, or replace the list with it",
		Long: `Add the addresses of a file (- is stdin) to an account's list, or replace the list with them: one address
a line; empty lines and lines that begin with # are passed over. The new list comes into force at
one moment. A line that is no address, or one outside the account's domains, changes nothing. What is added
or removed meanwhile stays so; an import that adds to a list which another one replaced meanwhile is
refused.`,
		Example: "  mailbag recipient import acme acme.txt\n  ldap-export | mailbag recipient import acme - --replace",
		Args:    arguments("NAME", "FILE"),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 1 {
				return nil, cobra.ShellCompDirectiveDefault
			}
			return c.completeAccounts(cmd, args, prefix)
		},
	}
	cmd.Flags().BoolVar(&replace, "replace", false, "take addresses that the file lacks off the list; an empty file is refused")
	cmd.RunE = c.atLedger(func(ctx context.Context, d *desk, _ *cobra.Command, args []string) error {
		_, a, err := d.account(ctx, args[0])
		if err != nil {
			return err
		}
		file, name := d.in, "stdin"
		if args[1] != "-" {
			f, err := os.Open(args[1])
			if err != nil {
				return fmt.Errorf("the list cannot be read: %w", err)
			}
			defer f.Close()
			file, name = f, args[1]
		}
		return d.importRecipients(ctx, a, file, name, replace)
	})
	return cmd
}

func (d *desk) importRecipients(ctx context.Context, a *meter.Account, file io.Reader, name string, replace bool) error {
	var deaf []meter.Address
	done, err := d.ledger.ImportRecipients(ctx, a.Name, replace, d.noting(&deaf, within(a, readAddresses(file, name))),
		func(staged int) { d.showProgress("%s addresses read", grouped(int64(staged))) })
	d.endProgress()
	if err != nil {
		return fmt.Errorf("%w; the list of %s is as it was", err, a.Name)
	}
	d.say("%s listed in %s: %s added, %s removed", grouped(int64(done.Listed)), name, grouped(int64(done.Added)), grouped(int64(done.Removed)))
	d.pointOutDeaf(deaf...)
	d.pointOutList(a)
	return nil
}

// within yields the addresses of a list up to the first that is outside the account's domains.
func within(a *meter.Account, lines iter.Seq2[listLine, error]) iter.Seq2[meter.Address, error] {
	return func(yield func(meter.Address, error) bool) {
		for line, err := range lines {
			if _, ours := slices.BinarySearch(a.Domains, line.address.Domain); err == nil && !ours {
				err = fmt.Errorf("%s: %s is in none of the domains of %s", line.place, line.address, a.Name)
			}
			if !yield(line.address, err) || err != nil {
				return
			}
		}
	}
}
