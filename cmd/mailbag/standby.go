package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"mailbag/cmd/internal/postfix"
)

func (c *console) postfixStandByCommand(in *postfix.Instance) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "stand-by",
		Short: "Step aside and in again by itself",
		Long: `Watch mailbag-policyd until it has answered for ten seconds. Where it does not within half a minute, do
"mailbag postfix step-aside", and "mailbag postfix step-in" once it has. mailbag-standby.service does
this at the start of the machine and whenever mailbag-policyd has ended.`,
		Example: "  mailbag postfix stand-by",
		Args:    arguments(),
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		w := standBy{
			answers: func(ctx context.Context) error { return policydAnswers(ctx, in) },
			aside:   func(ctx context.Context) (*postfix.Plan, error) { return in.PlanAside(ctx, c.now()) },
			in:      in.PlanIn,
			lock:    in.Lock,
			apply:   func(ctx context.Context, p *postfix.Plan) error { c.showPlan(p); return c.apply(ctx, p) },
			note:    c.note,
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
	aside   func(context.Context) (*postfix.Plan, error)
	in      func(context.Context) (*postfix.Plan, error)
	lock    func(context.Context) (unlock func(), err error)
	apply   func(context.Context, *postfix.Plan) error
	note    func(format string, args ...any)
}

const (
	askEvery  = time.Second
	asideFrom = 25 * time.Second // without ten in which it answers; to have changed Postfix takes seconds too
	wellFrom  = 10 * time.Second
)

// watch returns nil when mailbag-policyd is well and Postfix asks it, or when Postfix does not know of it.
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
func (w standBy) step(ctx context.Context, plan func(context.Context) (*postfix.Plan, error)) error {
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

// known is the error, or nil where it says that there is no Postfix that knows of us.
func known(err error) error {
	if errors.Is(err, postfix.ErrNotWired) || errors.Is(err, postfix.ErrMissing) {
		return nil
	}
	return err
}

// policydTime is what mailbag-policyd has to answer as Postfix has it.
const policydTime = 5 * time.Second

func policydAnswers(ctx context.Context, in *postfix.Instance) error {
	ctx, cancel := context.WithTimeout(ctx, policydTime)
	defer cancel()
	return in.Answers(ctx)
}
