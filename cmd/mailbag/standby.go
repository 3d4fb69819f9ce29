package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/spf13/cobra"

	"mailbag/cmd/internal/postfix"
	"mailbag/cmd/internal/settings"
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
		s, err := settings.Load(c.config)
		if err != nil {
			return err
		}
		w := standBy{
			answers: func(ctx context.Context) error { return policydAnswers(ctx, s.Policy) },
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
				w.note("mailbag-policyd does not answer: %v", err)
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

const policydTime = 5 * time.Second

// policydAnswers asks mailbag-policyd on both of its sockets, as Postfix does.
func policydAnswers(ctx context.Context, at settings.Policy) error {
	ctx, cancel := context.WithTimeout(ctx, policydTime)
	defer cancel()
	const request = "request=smtpd_access_policy\nprotocol_state=CONNECT\n\n"
	if err := answersWith(ctx, at.Listen, []byte(request), "action="); err != nil {
		return err
	}
	// What a milter client offers at first: version 6, no actions, no steps.
	offer := binary.BigEndian.AppendUint32(nil, 13)
	offer = append(binary.BigEndian.AppendUint32(append(offer, 'O'), 6), make([]byte, 8)...)
	return answersWith(ctx, at.Milter, offer, "\x00\x00\x00\x0dO")
}

func answersWith(ctx context.Context, at settings.Address, question []byte, answer string) error {
	conn, err := new(net.Dialer).DialContext(ctx, at.Network, at.Address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if until, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(until); err != nil {
			return err
		}
	}
	if _, err := conn.Write(question); err != nil {
		return err
	}
	got := make([]byte, len(answer))
	if _, err := io.ReadFull(conn, got); err != nil {
		return fmt.Errorf("%s: %w", at.Address, err)
	}
	if string(got) != answer {
		return fmt.Errorf("%s answers %q", at.Address, got)
	}
	return nil
}
