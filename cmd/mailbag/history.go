package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"mailbag/meter"
)

// shownChanges is how many changes of all are shown where nobody says how many.
const shownChanges = 100

func (c *console) historyCommand() *cobra.Command {
	var asJSON bool
	var since, until instantFlag
	var which meter.ChangeFilter
	cmd := &cobra.Command{
		Use:   "history [NAME]",
		Short: "Show who changed accounts and plans, when, and what",
		Long: fmt.Sprintf(`Show who changed an account, or all of them and the price plans, when, and what; the latest last. Deleted accounts
have a history too. Of all the latest %d are shown, and of one all; --limit says another number.

MOMENT is a day (2026-02-03), a time ("2026-02-03 10:00") in the billing time zone, or how long ago it was (2h, 7d).`, shownChanges),
		Example: `  mailbag account history acme
  mailbag account history --since 7d --who kim
  mailbag account history --action suspend --since 2026-01-01 --until 2026-02-01
  mailbag account history --domain second.example --json`,
		Args:              arguments("[NAME]"),
		ValidArgsFunction: c.completeAccounts,
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.Var(&since, "since", "changed at this `MOMENT` or after it")
	f.Var(&until, "until", "changed before this `MOMENT`")
	f.StringVar(&which.Who, "who", "", "changed by this `USER`")
	f.StringVar(&which.Action, "action", "", "with this `TEXT` in the action, such as suspend")
	f.StringVar(&which.Domain, "domain", "", "of the account that had this `DOMAIN` then")
	f.IntVar(&which.Limit, "limit", 0, "show the latest `NUMBER`")
	jsonFlag(cmd, &asJSON)
	suggest(cmd, "domain", c.completeFlag(meter.DomainNames))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if cmd.Flags().Changed("limit") && which.Limit < 1 {
			return wrongUsage(cmd, "--limit: %d is less than 1", which.Limit)
		}
		if which.Domain != "" {
			domain, err := meter.NormalizeDomain(which.Domain)
			if err != nil {
				return wrongUsage(cmd, "--domain: %w", err)
			}
			which.Domain = domain
		}
		return c.atLedger(func(ctx context.Context, d *desk, cmd *cobra.Command, args []string) (err error) {
			if which.Since, err = since.at(d); err != nil {
				return wrongUsage(cmd, "--since: %w", err)
			}
			if which.Until, err = until.at(d); err != nil {
				return wrongUsage(cmd, "--until: %w", err)
			}
			if len(args) > 0 {
				which.Account = args[0]
			} else if which.Limit == 0 {
				which.Limit = shownChanges
			}
			changes, err := d.changes(ctx, which)
			switch {
			case err != nil:
				return err
			case asJSON:
				return d.json(changes)
			case len(changes) == 0:
				d.note("nothing was changed of the kind")
			default:
				d.showChanges(changes, which.Account == "")
			}
			return nil
		})(cmd, args)
	}
	return cmd
}

// changes are those that are asked for, and an error where the account never was.
func (d *desk) changes(ctx context.Context, which meter.ChangeFilter) ([]meter.Change, error) {
	changes, err := d.ledger.Changes(ctx, which)
	if err == nil && len(changes) == 0 && which.Account != "" {
		_, err = d.ledger.History(ctx, which.Account)
	}
	return changes, err
}

func (d *desk) showChanges(changes []meter.Change, ofAll bool) {
	t := table{heads: []string{"WHEN", "WHO", "ACTION", "WHAT"}}
	if ofAll {
		t.heads = slices.Insert(t.heads, 2, "ACCOUNT")
	}
	for _, change := range changes {
		cells := []string{d.stamp(change.At), change.Who, change.Action, difference(change)}
		if ofAll {
			of := change.Account
			if change.Plan != "" {
				of = "plan " + change.Plan
			}
			cells = slices.Insert(cells, 2, of)
		}
		t.add(cells...)
	}
	d.table(&t)
}

// difference is what a change made of an account or a plan, key by key. A first line has nothing to differ from, nor has
// the last of a plan.
func difference(change meter.Change) string {
	var before, after map[string]json.RawMessage
	if change.Before == nil || json.Unmarshal(change.Before, &before) != nil || json.Unmarshal(change.After, &after) != nil {
		return ""
	}
	var texts []string
	for _, key := range slices.Sorted(maps.Keys(after)) {
		if was, is := plain(before[key]), plain(after[key]); was != is {
			texts = append(texts, fmt.Sprintf("%s %s -> %s", key, was, is))
		}
	}
	return strings.Join(texts, "; ")
}

// plain is a value in JSON as people write it: of a list its members, so that addresses can be given back.
func plain(value json.RawMessage) string {
	var members []string
	if json.Unmarshal(value, &members) != nil || members == nil {
		return string(value)
	}
	return "[" + strings.Join(members, ", ") + "]"
}
