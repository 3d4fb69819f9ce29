package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"mailbag/cmd/internal/units"
	"mailbag/meter"
)

func (c *console) planCommand() *cobra.Command {
	return group("plan", "Keep limits and prices under a name, for many accounts",
		`A price plan is limits and prices under a name. "mailbag account set NAME --plan PLAN" gives it to an account.
`+termsMeaning+`
Names are 1 to 32 of a-z, 0-9 and hyphen.`,
		c.planAddCommand(), c.planSetCommand(), c.planListCommand(), c.planShowCommand(), c.planRemoveCommand())
}

func (c *console) planAddCommand() *cobra.Command {
	var given meter.Terms
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Add a price plan",
		Long:  "Add a price plan, which no account has yet. What it leaves out is as the settings say.",
		Example: `  mailbag plan add gold --messages 500000 --bytes 5GB --base-price 40.00
  mailbag plan add small --bytes 200MB --on-limit defer --waiting-bytes 500MB`,
		Args: arguments("NAME"),
	}
	cmd.Flags().SortFlags = false
	addFields(cmd, termFields, &given)
	completeFields(cmd, termFields)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		plan := meter.Plan{Name: args[0], Terms: given}
		if err := plan.Validate(); err != nil {
			return usageError{cmd.CommandPath(), err}
		}
		return c.atNewLedger(func(ctx context.Context, d *desk, _ *cobra.Command, _ []string) error {
			if err := d.ledger.AddPlan(ctx, plan); err != nil {
				return err
			}
			d.say("added the plan %s", plan.Name)
			return nil
		})(cmd, args)
	}
	return cmd
}

func (c *console) planSetCommand() *cobra.Command {
	var given meter.Terms
	cmd := &cobra.Command{
		Use:   "set NAME [flags]",
		Short: "Change a price plan for all its accounts",
		Long: `Change what the flags name, and nothing else, for all accounts of the plan at once: within a second mail is judged by it,
and months that are not closed are billed by it.`,
		Example:           "  mailbag plan set gold --base-price 45.00\n  mailbag plan set small --on-limit ''",
		Args:              arguments("NAME"),
		ValidArgsFunction: c.completePlan,
	}
	cmd.Flags().SortFlags = false
	addFields(cmd, termFields, &given)
	completeFields(cmd, termFields)
	cmd.RunE = c.atLedger(func(ctx context.Context, d *desk, cmd *cobra.Command, args []string) error {
		if !anyGiven(cmd, termFields) {
			return wrongUsage(cmd, "nothing is given that %s should be changed to", args[0])
		}
		before, after, err := d.ledger.EditPlan(ctx, args[0], func(t *meter.Terms) error {
			copyFields(cmd, termFields, t, &given)
			return nil
		})
		switch {
		case err != nil:
			return err
		case before == after:
			d.say("%s is so already", args[0])
			return nil
		}
		plan, err := d.plan(ctx, args[0])
		if err != nil {
			return err
		}
		d.say("changed %s, which %s", args[0], hadBy(plan.Accounts))
		return nil
	})
	return cmd
}

// hadBy is how many accounts have a plan.
func hadBy(accounts int64) string {
	if accounts == 0 {
		return "no account has"
	}
	return accountsOf(int(accounts)) + " " + verb(accounts, "has", "have")
}

// plan reads one plan.
func (d *desk) plan(ctx context.Context, name string) (meter.PlanUse, error) {
	plans, err := d.ledger.Plans(ctx)
	if err != nil {
		return meter.PlanUse{}, err
	}
	for _, p := range plans {
		if p.Name == name {
			return p, nil
		}
	}
	return meter.PlanUse{}, fmt.Errorf("%s: %w", name, meter.ErrNoPlan)
}

// listedPlan is a plan in --json, with its own terms.
type listedPlan struct {
	Name     string `json:"name"`
	Accounts int64  `json:"accounts"`
	termsDocument
	Effective effectiveTerms `json:"effective"`
}

func (d *desk) planDocument(p meter.PlanUse) listedPlan {
	return listedPlan{p.Name, p.Accounts, documentOf(p.Terms), d.effective(ofPlan(p))}
}

// ofPlan is an account of the plan with no terms of its own.
func ofPlan(p meter.PlanUse) *meter.Account { return &meter.Account{Plan: p.Name, PlanTerms: &p.Terms} }

func (c *console) planListCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the price plans, with how many accounts each has",
		Long:    "List the price plans, with how many accounts each has. What is empty is as the settings say.",
		Example: "  mailbag plan list\n  mailbag plan list --json",
		Args:    arguments(),
	}
	jsonFlag(cmd, &asJSON)
	cmd.RunE = c.atLedger(func(ctx context.Context, d *desk, _ *cobra.Command, _ []string) error {
		plans, err := d.ledger.Plans(ctx)
		if err != nil {
			return err
		}
		documents := []listedPlan{}
		t := table{heads: []string{"PLAN", ">ACCOUNTS", ">MESSAGES", ">SIZE", "ABOVE IT", ">TIERS", ">BASE", ">TIER PRICE", "MAY WAIT"}}
		for _, p := range plans {
			documents = append(documents, d.planDocument(p))
			t.add(p.Name, grouped(p.Accounts), limitCell(p.Messages, grouped), limitCell(p.Bytes, units.FormatSize), string(p.OnLimit),
				limitCell(p.MaxTiers, grouped), priceCell(p.BasePrice), priceCell(p.TierPrice), mayWait(p.Terms))
		}
		if asJSON {
			return d.json(documents)
		}
		if len(plans) == 0 {
			d.note(`there is no plan yet; "mailbag plan add" adds one`)
			return nil
		}
		t.dropEmpty("MAY WAIT")
		d.table(&t)
		return nil
	})
	return cmd
}

// mayWait is how much may wait by the terms, where they bound it.
func mayWait(t meter.Terms) string {
	var bounds []string
	if t.WaitingMessages > 0 {
		bounds = append(bounds, grouped(t.WaitingMessages))
	}
	if t.WaitingBytes > 0 {
		bounds = append(bounds, units.FormatSize(t.WaitingBytes))
	}
	return strings.Join(bounds, " or ")
}

func limitCell(n int64, format func(int64) string) string {
	if n == 0 {
		return ""
	}
	return format(n)
}

func priceCell(p meter.Price) string {
	if !p.Set {
		return ""
	}
	return money(p.Cents)
}

func (c *console) planShowCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:               "show NAME",
		Short:             "Show a price plan with what is in force, and how many accounts have it",
		Example:           "  mailbag plan show gold",
		Args:              arguments("NAME"),
		ValidArgsFunction: c.completePlan,
	}
	jsonFlag(cmd, &asJSON)
	cmd.RunE = c.atLedger(func(ctx context.Context, d *desk, _ *cobra.Command, args []string) error {
		p, err := d.plan(ctx, args[0])
		if err != nil {
			return err
		}
		if asJSON {
			return d.json(d.planDocument(p))
		}
		t := table{heads: []string{"", ""}}
		t.add("accounts", grouped(p.Accounts))
		d.showTerms(&t, ofPlan(p))
		d.say("%s", p.Name)
		d.table(&t)
		return nil
	})
	return cmd
}

func (c *console) planRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "remove NAME",
		Short: "Remove a price plan that no account has",
		Long: `Remove a price plan that no account has. Deleted accounts that had it are billed by its terms for the months that are
not closed, as if they were their own.`,
		Example:           "  mailbag plan remove gold",
		Args:              arguments("NAME"),
		ValidArgsFunction: c.completePlan,
		RunE: c.atLedger(func(ctx context.Context, d *desk, _ *cobra.Command, args []string) error {
			if err := d.ledger.RemovePlan(ctx, args[0]); err != nil {
				return err
			}
			d.say("removed the plan %s", args[0])
			return nil
		}),
	}
}

// completePlan completes the one argument that is a plan's name.
func (c *console) completePlan(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return c.completePlans(cmd, args, prefix)
}

// completePlans completes the value of --plan.
func (c *console) completePlans(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	const none = cobra.ShellCompDirectiveNoFileComp
	d, err := c.open(cmd.Context(), false)
	if err != nil {
		return nil, none
	}
	defer d.ledger.Close()
	plans, err := d.ledger.Plans(cmd.Context())
	if err != nil {
		return nil, none
	}
	var names []string
	for _, p := range plans {
		if strings.HasPrefix(p.Name, prefix) {
			names = append(names, p.Name)
		}
	}
	return names, none
}
