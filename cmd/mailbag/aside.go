package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"mailbag/cmd/internal/mta"
)

func (f *fitter) stepAsideCommand() *cobra.Command {
	return f.stanceCommand(&cobra.Command{
		Use:     "step-aside",
		Short:   "Let others' mail go on without mailbag-policyd",
		Long:    f.stepAside,
		Example: fmt.Sprintf("  mailbag %s step-aside", f.command),
	}, func(ctx context.Context, system mta.System, _ bool) (mta.Plan, error) {
		return system.PlanAside(ctx, f.now())
	})
}

func (f *fitter) stepInCommand() *cobra.Command {
	var force bool
	cmd := f.stanceCommand(&cobra.Command{
		Use:     "step-in",
		Short:   "End a step-aside",
		Long:    f.stepIn,
		Example: fmt.Sprintf("  mailbag %s step-in", f.command),
	}, func(ctx context.Context, system mta.System, dryRun bool) (mta.Plan, error) {
		p, err := system.PlanIn(ctx)
		if err != nil || p.Empty() {
			return p, err
		}
		return p, f.answering(ctx, system, mta.Needs{}, force, dryRun)
	})
	f.unansweredFlag(cmd, &force)
	return cmd
}

func (f *fitter) stanceCommand(cmd *cobra.Command, plan func(ctx context.Context, system mta.System, dryRun bool) (mta.Plan, error)) *cobra.Command {
	var dryRun bool
	cmd.Args = arguments()
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "show the changes, make none")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		system, err := f.atHand()
		if err != nil {
			return err
		}
		unlock, err := system.Lock(cmd.Context())
		if err != nil {
			return err
		}
		defer unlock()
		p, err := plan(cmd.Context(), system, dryRun)
		if err != nil {
			return err
		}
		f.showPlan(p)
		if dryRun {
			return nil
		}
		return f.apply(cmd.Context(), p)
	}
	return cmd
}
