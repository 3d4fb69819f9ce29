package main

import (
	"context"

	"github.com/spf13/cobra"

	"mailbag/meter"
)

func (c *console) networkCommand() *cobra.Command {
	return group("network", "Add and remove the networks of an account",
		`ETRN is taken from the networks of an etrn or backup account only; those of an atrn account, where it
has any, restrict its log-in and ATRN to them.`,
		&cobra.Command{
			Use:               "add NAME CIDR",
			Short:             "Let an account ask for its mail from a network",
			Long:              "Let an account ask for its mail from a network, such as 192.0.2.0/24 or 2001:db8::/48, or from one address.",
			Example:           "  mailbag network add bolt 192.0.2.0/24",
			Args:              arguments("NAME", "CIDR"),
			ValidArgsFunction: c.completeAccounts,
			RunE: c.atLedger(func(ctx context.Context, d *desk, cmd *cobra.Command, args []string) error {
				network, err := parseNetwork(args[1])
				if err != nil {
					return wrongUsage(cmd, "%w", err)
				}
				_, a, err := d.account(ctx, args[0])
				if err != nil {
					return err
				}
				if err := d.ledger.AddNetwork(ctx, a.Name, network); err != nil {
					return err
				}
				d.say("%s has the network %s", a.Name, network)
				if a.Mode == meter.POP3 {
					d.note("%s is a pop3 account, to which networks mean nothing until it has another mode", a.Name)
				}
				return nil
			}),
		},
		&cobra.Command{
			Use:               "remove NAME CIDR",
			Short:             "Take a network from an account",
			Example:           "  mailbag network remove bolt 192.0.2.0/24",
			Args:              arguments("NAME", "CIDR"),
			ValidArgsFunction: c.completeNetworks,
			RunE: c.atLedger(func(ctx context.Context, d *desk, cmd *cobra.Command, args []string) error {
				network, err := parseNetwork(args[1])
				if err != nil {
					return wrongUsage(cmd, "%w", err)
				}
				_, a, err := d.account(ctx, args[0])
				if err != nil {
					return err
				}
				if err := d.ledger.RemoveNetwork(ctx, a.Name, network); err != nil {
					return err
				}
				d.say("%s has no network %s any more", a.Name, network)
				if a.Mode == meter.ATRN && len(a.Networks) == 1 {
					d.note("warning: %s has no network left, so its log-in and ATRN are taken from everywhere", a.Name)
				}
				return nil
			}),
		})
}
