package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"mailbag/cmd/internal/postfix"
)

func (c *console) postfixStepAsideCommand(in *postfix.Instance) *cobra.Command {
	return c.stanceCommand(in, &cobra.Command{
		Use:   "step-aside",
		Short: "Let others' mail go on without mailbag-policyd",
		Long: `Where mailbag-policyd cannot be had for long, let Postfix do without it: it accepts and delivers others'
mail as if mailbag were not there, puts off new mail for the accounts' domains (451) and turns (458), and delivers what
it has for them. The ledger is not needed. Nothing is accepted for the accounts unmetered but what programs on
this host send by sendmail(1).

"mailbag postfix setup" leaves it so, and "mailbag postfix check" names it as a fault.`,
		Example: "  mailbag postfix step-aside",
	}, func(ctx context.Context, _ bool) (*postfix.Plan, error) { return in.PlanAside(ctx, c.now()) })
}

func (c *console) postfixStepInCommand(in *postfix.Instance) *cobra.Command {
	var force bool
	cmd := c.stanceCommand(in, &cobra.Command{
		Use:   "step-in",
		Short: "End a step-aside",
		Long: `Wire mailbag-policyd in again as it was before "mailbag postfix step-aside". It has to answer at the sockets
at which Postfix will ask it; else nothing is changed.`,
		Example: "  mailbag postfix step-in",
	}, func(ctx context.Context, dryRun bool) (*postfix.Plan, error) {
		p, err := in.PlanIn(ctx)
		if err != nil || p.Empty() {
			return p, err
		}
		return p, c.answering(ctx, in, force, dryRun)
	})
	unansweredFlag(cmd, &force)
	return cmd
}

func (c *console) stanceCommand(in *postfix.Instance, cmd *cobra.Command, plan func(ctx context.Context, dryRun bool) (*postfix.Plan, error)) *cobra.Command {
	var dryRun bool
	cmd.Args = arguments()
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "show the changes, make none")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		unlock, err := in.Lock(cmd.Context())
		if err != nil {
			return err
		}
		defer unlock()
		p, err := plan(cmd.Context(), dryRun)
		if err != nil {
			return err
		}
		c.showPlan(p)
		if dryRun {
			return nil
		}
		return c.apply(cmd.Context(), p)
	}
	return cmd
}

// showAside says that mailbag stands aside when a plan has been applied.
func (c *console) showAside(p *postfix.Plan) {
	if !p.Aside.IsZero() {
		c.say(`mailbag stands aside since %s; "mailbag postfix step-in" ends that`, p.Aside.Format(time.RFC3339))
	}
}
