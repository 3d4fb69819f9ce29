package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"mailbag/cmd/internal/units"
	"mailbag/meter"
)

// usedMonth is an account's month in --json. Bytes are octets, the charge is in the currency's unit.
type usedMonth struct {
	Account  string           `json:"account"`
	Month    string           `json:"month"`
	Messages int64            `json:"messages"`
	Bytes    int64            `json:"bytes"`
	Tiers    int64            `json:"tiers"`
	Charge   string           `json:"charge"`
	Currency string           `json:"currency"`
	Deleted  bool             `json:"deleted"`
	Days     []meter.DayUsage `json:"days,omitzero"` // with --daily: those on which anything came

	mode   meter.Mode
	tariff meter.Tariff
}

func (c *console) usageCommand() *cobra.Command {
	var monthText string
	var daily, asJSON bool
	cmd := &cobra.Command{
		Use:   "usage [NAME]",
		Short: "Show what the accounts used in a month, and what it costs",
		Long: `Show the messages and the size of what was accepted for each account in a month of the billing time
zone, its share of the first tier, the tiers begun and the charge. Accounts that were deleted since
are shown where they used anything. With --daily the bars compare the days with the busiest one.`,
		Example: `  mailbag usage
  mailbag usage acme --daily
  mailbag usage --month 2026-02 --json`,
		Args:              arguments("[NAME]"),
		ValidArgsFunction: c.completeAccounts,
	}
	cmd.Flags().StringVar(&monthText, "month", "", "`MONTH` as YYYY-MM (default: the present one)")
	cmd.Flags().BoolVar(&daily, "daily", false, "show each day")
	jsonFlag(cmd, &asJSON)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var month meter.Month
		if cmd.Flags().Changed("month") {
			var err error
			if month, err = meter.ParseMonth(monthText); err != nil {
				return wrongUsage(cmd, "--month: %w", err)
			}
		}
		return c.atLedger(func(ctx context.Context, d *desk, _ *cobra.Command, args []string) error {
			if month == (meter.Month{}) {
				month = meter.MonthOf(time.Now(), d.settings.Billing.Location)
			}
			used, err := d.used(ctx, month, daily, args...)
			switch {
			case err != nil:
				return err
			case asJSON:
				return d.json(used)
			case len(used) == 0:
				d.note(`there is no account yet; "mailbag account add" adds one`)
			case daily:
				d.showDays(used, month)
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
	list, err := d.ledger.MonthUsage(ctx, month)
	if err != nil {
		return nil, err
	}
	all := []usedMonth{}
	for _, u := range list {
		if len(names) > 0 && u.Account.Name != names[0] {
			continue
		}
		t := d.tariff().For(u.Account)
		m := usedMonth{
			Account: u.Account.Name, Month: month.String(), Messages: u.Messages, Bytes: u.Bytes,
			Tiers: t.Tiers(u.Usage), Charge: t.Charge(u.Usage).String(), Currency: t.Currency,
			Deleted: u.Deleted, mode: u.Account.Mode, tariff: t,
		}
		if daily {
			if m.Days, err = d.ledger.DailyUsage(ctx, u.Account.ID, month); err != nil {
				return nil, err
			}
		}
		all = append(all, m)
	}
	if len(names) > 0 && len(all) == 0 {
		return nil, fmt.Errorf("%s: %w, or it was deleted and not used in %s", names[0], meter.ErrNoAccount, month)
	}
	return all, nil
}

// Widths of bars, in cells.
const (
	shareBar = 20
	dayBar   = 40
)

func (d *desk) showMonth(used []usedMonth) {
	t := table{heads: []string{"ACCOUNT", "MODE", ">MESSAGES", ">SIZE", "OF THE FIRST TIER", "", ">TIERS", ">CHARGE"}}
	for _, m := range used {
		name := m.Account
		if m.Deleted {
			name += " (deleted)"
		}
		// The limit that is nearer counts, whichever comes first.
		part, whole := m.Messages, m.tariff.Messages
		if float64(m.Bytes)/float64(m.tariff.Bytes) > float64(part)/float64(whole) {
			part, whole = m.Bytes, m.tariff.Bytes
		}
		share := 100 * float64(part) / float64(whole)
		t.add(name, string(m.mode), grouped(m.Messages), units.RoundSize(m.Bytes),
			"▕"+bar(part, whole, shareBar)+"▏", fmt.Sprintf("%5.0f%%", share),
			grouped(m.Tiers), m.Charge+" "+m.Currency)
	}
	d.table(&t)
}

func (d *desk) showDays(used []usedMonth, month meter.Month) {
	for i, m := range used {
		if i > 0 {
			d.say("")
		}
		d.say("%s %s: %s, charge %s %s", m.Account, month, amount(m.Messages, m.Bytes), m.Charge, m.Currency)
		if len(m.Days) == 0 {
			continue
		}
		byDay, busiest := map[string]meter.Usage{}, int64(0)
		for _, day := range m.Days {
			byDay[day.Day] = day.Usage
			busiest = max(busiest, day.Messages)
		}
		t := table{heads: []string{"DAY", "", ">MESSAGES", ">SIZE"}}
		for n := 1; n <= month.Days(); n++ {
			day := fmt.Sprintf("%s-%02d", month, n)
			u := byDay[day]
			t.add(day, bar(u.Messages, busiest, dayBar), grouped(u.Messages), units.RoundSize(u.Bytes))
			if day == m.Days[len(m.Days)-1].Day {
				break
			}
		}
		d.table(&t)
	}
}
