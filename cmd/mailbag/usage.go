package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"mailbag/cmd/internal/units"
	"mailbag/meter"
)

// usedMonth is an account's month in --json. Bytes are octets, the charge is in the currency's unit.
// Both numbers have the adjustments in them.
type usedMonth struct {
	Account  string           `json:"account"`
	Customer string           `json:"customer"`
	Plan     string           `json:"plan"` // empty: none
	Month    string           `json:"month"`
	Messages int64            `json:"messages"`
	Bytes    int64            `json:"bytes"`
	Tiers    int64            `json:"tiers"`
	Charge   string           `json:"charge"`
	Currency string           `json:"currency"`
	Deleted  bool             `json:"deleted"`
	Days     []meter.DayUsage `json:"days,omitzero"` // with --daily: those on which anything came

	Domains []meter.DomainUsage `json:"domains,omitzero"` // with --by-domain: without adjustments

	invoice meter.Invoice
}

func (c *console) usageCommand() *cobra.Command {
	var month monthFlag
	var daily, byDomain, evidence, asJSON bool
	cmd := &cobra.Command{
		Use:   "usage [NAME]",
		Short: "Show what the accounts used in a month, and what it costs",
		Long: `Show the messages and the size of what was accepted for each account in a month of the billing time
zone, its share of the first tier, the tiers begun and the charge. Accounts that were deleted since
are shown where they used anything.

With --by-domain the account's domains are listed with what was counted for each, also those that it had when that came and
has no more. A message for several domains of an account counts in each of them and once for the account, so they can
have more than the account together; or less, because what operators adjusted, and what was counted before the domains of
messages were kept, counts for the account alone.

With --daily a chart shows how the month came nearer to the limit: each day's bar goes on from that of the
day before, and a line marks the limit. With --messages-csv every message that was counted for the
account is listed, as far back as [retention] messages keeps them, with its time, queue ID, size and client.
The list is read as it is written, some messages at a time: what is counted meanwhile may be on it or not.`,
		Example: `  mailbag usage
  mailbag usage acme --daily
  mailbag usage acme --by-domain
  mailbag usage --month 2026-02 --json
  mailbag usage acme --month 2026-02 --messages-csv > acme-2026-02.csv`,
		Args:              arguments("[NAME]"),
		ValidArgsFunction: c.completeAccounts,
	}
	month.add(cmd)
	cmd.Flags().BoolVar(&daily, "daily", false, "draw each day and the limit")
	cmd.Flags().BoolVar(&byDomain, "by-domain", false, "list the domains of each account")
	cmd.Flags().BoolVar(&evidence, "messages-csv", false, "list the account's messages as CSV (RFC 4180)")
	jsonFlag(cmd, &asJSON)
	cmd.AddCommand(c.usageAdjustCommand())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := together(cmd, "messages-csv", "daily", "by-domain", "json"); err != nil {
			return err
		}
		if !asJSON {
			if err := together(cmd, "by-domain", "daily"); err != nil {
				return err
			}
		}
		if evidence && len(args) == 0 {
			return wrongUsage(cmd, "--messages-csv lists the messages of one account; name it")
		}
		return c.atLedger(func(ctx context.Context, d *desk, cmd *cobra.Command, args []string) error {
			m, err := month.orPresent(cmd, d)
			if err != nil {
				return err
			}
			used, err := d.used(ctx, m, daily, args...)
			if err == nil && byDomain {
				err = d.addDomains(ctx, used, m)
			}
			switch {
			case err != nil:
				return err
			case evidence:
				return d.evidence(ctx, used[0].invoice.ID, m)
			case asJSON:
				return d.json(used)
			case len(used) == 0:
				d.note(`there is no account in %s; "mailbag account add" adds one`, m)
			case daily:
				d.showDays(used, m)
			case byDomain:
				d.showDomains(used)
			default:
				d.showMonth(used)
			}
			return nil
		})(cmd, args)
	}
	return cmd
}

// used reads the usage of all accounts, or of the named one.
func (d *desk) used(ctx context.Context, month meter.Month, daily bool, names ...string) ([]usedMonth, error) {
	invoices, err := d.invoices(ctx, month, names...)
	if err != nil {
		return nil, err
	}
	all := []usedMonth{}
	for _, i := range invoices.Accounts {
		u := i.Usage()
		m := usedMonth{
			Account: i.Account, Customer: i.Customer, Plan: i.Plan, Month: month.String(), Messages: u.Messages, Bytes: u.Bytes,
			Tiers: i.Tiers(), Charge: i.Total().String(), Currency: i.Tariff.Currency,
			Deleted: i.Deleted, invoice: i,
		}
		if daily {
			if m.Days, err = d.ledger.DailyUsage(ctx, i.ID, month); err != nil {
				return nil, err
			}
		}
		all = append(all, m)
	}
	return all, nil
}

// shareBar is the width of the bar that shows the share of the first tier, in cells.
const shareBar = 20

func (d *desk) showMonth(used []usedMonth) {
	t := table{heads: []string{"ACCOUNT", "CUSTOMER", "MODE", ">MESSAGES", ">SIZE", "OF THE FIRST TIER", "", ">TIERS", ">CHARGE"}}
	for _, m := range used {
		// The limit that is nearer counts, whichever comes first.
		part, whole, _ := m.invoice.Tariff.Nearer(m.invoice.Usage())
		share := 100 * float64(part) / float64(whole)
		t.add(called(m.invoice), m.Customer, string(m.invoice.Mode), grouped(m.Messages), units.RoundSize(m.Bytes),
			"▕"+bar(part, whole, shareBar)+"▏", fmt.Sprintf("%5.0f%%", share),
			grouped(m.Tiers), money(m.invoice.Total())+" "+m.Currency)
	}
	t.dropEmpty("CUSTOMER")
	d.table(&t)
}

// called is the account's name in a listing.
func called(i meter.Invoice) string {
	if i.Deleted {
		return i.Account + " (deleted)"
	}
	return i.Account
}
