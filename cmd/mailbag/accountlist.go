package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"mailbag/cmd/internal/units"
	"mailbag/meter"
)

// accountInList is an account in the --json of account list.
type accountInList struct {
	listedAccount
	activity
}

// activity is what there is of an account's mail, in --json.
type activity struct {
	Month       string        `json:"month"`
	Usage       meter.Usage   `json:"usage"` // of the month
	Waiting     meter.Waiting `json:"waiting"`
	LastFetched time.Time     `json:"last_fetched,omitzero"` // mail
	LastCalled  time.Time     `json:"last_called,omitzero"`  // and there was mail, or none
}

func activityOf(month meter.Month, a meter.Listed) activity {
	return activity{month.String(), a.Usage, a.Waiting, a.Fetched, a.Called}
}

func (c *console) accountListCommand() *cobra.Command {
	var asJSON bool
	var of meter.Selection
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the accounts, or those of them that are so",
		Long: `List the accounts, or those to which all that is given applies, with their usage of the month, what waits for them,
and when they last fetched mail. What waits for the server of a backup account is what the MTA's queue had when
mailbag-policyd last looked, which is at most 5 minutes ago; mailbag queue looks now.

--over-limit has those that used up the first tier of the month, so that the next message is above it. --silent has
those in service whose customers neither fetched nor asked for mail for longer than that.`,
		Example: `  mailbag account list --mode etrn --waiting --sort oldest
  mailbag account list --silent 7d --sort fetched --limit 20
  mailbag account list --over-limit --plan small --json`,
		Args: arguments(),
	}
	flag := cmd.Flags()
	flag.SortFlags = false
	modes := flag.StringSlice("mode", nil, "of this `MODE`; give it again for each")
	flag.BoolVar(&of.Suspended, "suspended", false, "that are suspended")
	domain := flag.String("domain", "", "with this `DOMAIN`, or one under it")
	flag.StringVar(&of.Customer, "customer", "", "of this customer `NUMBER`")
	flag.StringVar(&of.Plan, "plan", "", "with this price `PLAN`")
	flag.BoolVar(&of.OverLimit, "over-limit", false, "whose first tier of the month is used up")
	flag.BoolVar(&of.Waiting, "waiting", false, "for which mail waits")
	flag.Var(&parsed[time.Duration]{to: &of.Silent, parse: silentFor, kind: "DURATION"}, "silent", "not heard of for longer than this, such as 7d")
	flag.Var(&parsed[meter.SortKey]{to: &of.Sort, parse: choice(meter.SortKeys...), kind: "KEY"}, "sort", "in the order of "+list(meter.SortKeys))
	flag.IntVar(&of.Limit, "limit", 0, "this `NUMBER` at most; 0: all")
	jsonFlag(cmd, &asJSON)
	c.completeSelection(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		for _, text := range *modes {
			mode, err := choice(meter.Modes...)(text)
			if err != nil {
				return wrongUsage(cmd, "--mode %s: %w", text, err)
			}
			of.Modes = append(of.Modes, mode)
		}
		if of.Limit < 0 {
			return wrongUsage(cmd, "--limit: %d is less than 0", of.Limit)
		}
		if *domain != "" {
			var err error
			if of.Domain, err = meter.NormalizeDomain(*domain); err != nil {
				return wrongUsage(cmd, "--domain: %w", err)
			}
		}
		return c.atLedger(func(ctx context.Context, d *desk, cmd *cobra.Command, _ []string) error {
			of.Month, of.Tariff = d.thisMonth(), d.tariff()
			if of.Plan != "" {
				if _, err := d.plan(ctx, of.Plan); err != nil {
					return err
				}
			}
			accounts, err := d.ledger.Select(ctx, of)
			switch {
			case err != nil:
				return err
			case asJSON:
				return d.listAsJSON(ctx, of.Month, accounts)
			case len(accounts) == 0 && cmd.Flags().NFlag() > 0:
				d.note("no account is so")
			case len(accounts) == 0:
				d.note(`there is no account yet; "mailbag account add" adds one`)
			default:
				d.listAccounts(accounts)
			}
			return nil
		})(cmd, args)
	}
	return cmd
}

// silentFor reads how long nothing was heard.
func silentFor(s string) (time.Duration, error) {
	d, err := units.ParseDuration(s)
	if err == nil && d == 0 {
		err = errors.New("it is no time")
	}
	return d, err
}

func (d *desk) listAccounts(accounts []meter.Listed) {
	customers := slices.ContainsFunc(accounts, func(a meter.Listed) bool { return a.Customer != "" })
	t := table{heads: []string{"ACCOUNT", "MODE", "DOMAINS", ">MESSAGES", ">SIZE", ">WAITING", "LAST FETCHED"}}
	if customers {
		t.heads = slices.Insert(t.heads, 1, "CUSTOMER")
	}
	for _, a := range accounts {
		cells := []string{a.Name, modeOf(a.Mode, a.Suspended), firstOf(a), grouped(a.Usage.Messages), units.RoundSize(a.Usage.Bytes),
			waitingOf(a.Waiting), d.fetchedOn(a)}
		if customers {
			cells = slices.Insert(cells, 1, a.Customer)
		}
		t.add(cells...)
	}
	d.table(&t)
}

func modeOf(mode meter.Mode, suspended bool) string {
	if suspended {
		return string(mode) + ", suspended"
	}
	return string(mode)
}

// firstOf names the first of an account's domains and how many there are besides.
func firstOf(a meter.Listed) string {
	if a.Domains < 2 {
		return a.Domain
	}
	return fmt.Sprintf("%s +%d", a.Domain, a.Domains-1)
}

func waitingOf(w meter.Waiting) string {
	if w.Messages == 0 {
		return ""
	}
	return grouped(w.Messages)
}

// fetchedOn is the day when an account was last fetched from, of one that is fetched from.
func (d *desk) fetchedOn(a meter.Listed) string {
	switch {
	case a.Mode == meter.Backup:
		return ""
	case a.Fetched.IsZero():
		return "never"
	}
	return d.local(a.Fetched).Format(time.DateOnly)
}

// readAtOnce is how many accounts are in memory with all that is theirs.
const readAtOnce = 2000

func (d *desk) listAsJSON(ctx context.Context, month meter.Month, accounts []meter.Listed) error {
	out := jsonList{console: d.console}
	for some := range slices.Chunk(accounts, readAtOnce) {
		ids := make([]int64, len(some))
		for i, a := range some {
			ids[i] = a.ID
		}
		these, err := d.ledger.LoadSome(ctx, ids...)
		if err != nil {
			return err
		}
		for _, l := range some {
			a := these.AccountByID(l.ID)
			if a == nil {
				continue // it was deleted meanwhile
			}
			if err := out.add(accountInList{d.document(these, a), activityOf(month, l)}); err != nil {
				return err
			}
		}
	}
	return out.end()
}
