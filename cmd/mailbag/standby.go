package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"mailbag/cmd/internal/mta"
)

func (f *fitter) standByCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "stand-by",
		Short:   "Step aside and in again by itself",
		Long:    f.standBy,
		Example: fmt.Sprintf("  mailbag %s stand-by", f.command),
		Args:    arguments(),
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		system, err := f.atHand()
		if err != nil {
			return err
		}
		w := standBy{
			answers: func(ctx context.Context) error { return policydAnswers(ctx, system) },
			aside:   func(ctx context.Context) (mta.Plan, error) { return system.PlanAside(ctx, f.now()) },
			in:      system.PlanIn,
			lock:    system.Lock,
			apply:   func(ctx context.Context, p mta.Plan) error { f.showPlan(p); return f.apply(ctx, p) },
			note:    f.note,
		}
		if err := w.watch(cmd.Context()); !errors.Is(err, context.Canceled) {
			return err
		}
		return nil // whoever ends it by a signal has no failure to look into
	}
	return cmd
}

// standBy watches mailbag-policyd.
type standBy struct {
	answers func(context.Context) error
	aside   func(context.Context) (mta.Plan, error)
	in      func(context.Context) (mta.Plan, error)
	lock    func(context.Context) (unlock func(), err error)
	apply   func(context.Context, mta.Plan) error
	note    func(format string, args ...any)
}

const (
	askEvery  = time.Second
	asideFrom = 25 * time.Second // without ten in which it answers; to have changed the MTA takes seconds too
	wellFrom  = 10 * time.Second
)

// watch returns nil when mailbag-policyd is well and the MTA asks it, or when the MTA does not know of it.
func (w standBy) watch(ctx context.Context) error {
	begun := time.Now()
	well := begun // since when it answers
	aside := false
	said := ""
	for {
		err := w.answers(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		now := time.Now()
		if err != nil {
			well = now
			if err.Error() != said {
				said = err.Error()
				w.note("%v", err)
			}
		}
		switch {
		case now.Sub(well) >= wellFrom:
			return known(w.step(ctx, w.in))
		case !aside && err != nil && now.Sub(begun) >= asideFrom:
			switch err := w.step(ctx, w.aside); {
			case err == nil:
				aside = true
			case known(err) == nil:
				return nil
			default:
				w.note("cannot step aside: %v", err) // and is tried again
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(askEvery):
		}
	}
}

// step makes the changes of a plan, if there are any.
func (w standBy) step(ctx context.Context, plan func(context.Context) (mta.Plan, error)) error {
	unlock, err := w.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	p, err := plan(ctx)
	if err != nil || p.Empty() {
		return err
	}
	return w.apply(ctx, p)
}

// known is the error, or nil where it says that there is no MTA that knows of us.
func known(err error) error {
	if errors.Is(err, mta.ErrNotWired) || errors.Is(err, mta.ErrMissing) {
		return nil
	}
	return err
}

// policydTime is what mailbag-policyd has to answer as the MTA has it.
const policydTime = 5 * time.Second

func policydAnswers(ctx context.Context, system mta.System) error {
	ctx, cancel := context.WithTimeout(ctx, policydTime)
	defer cancel()
	return system.Answers(ctx, mta.Needs{})
}
