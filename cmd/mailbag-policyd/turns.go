package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"mailbag/meter"
	"mailbag/policy"
	"mailbag/turnd/control"
	"mailbag/turnd/turn"
)

const (
	// openTime is how long a turn may take to be opened. mailbag-turnd dials for a minute at most, and
	// the MTA answers by itself when it heard nothing for 100 s.
	openTime = 90 * time.Second
	askTime  = 10 * time.Second
)

// turns are opened by mailbag-turnd.
type turns struct {
	control *control.Client
	log     *slog.Logger
}

func (t turns) OpenTurn(ctx context.Context, a *meter.Account, client string) error {
	ctx, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	err := t.control.Open(ctx, a.Name, client)
	switch {
	case errors.Is(err, turn.ErrOpen), errors.Is(err, turn.ErrNothingWaits):
		return nil
	case errors.Is(err, turn.ErrUnreachable), errors.Is(err, turn.ErrSelf), errors.Is(err, context.DeadlineExceeded):
		return unreachable{err}
	}
	return err
}

// unreachable is a policy.ErrUnreachable in mailbag-turnd's words.
type unreachable struct{ error }

func (e unreachable) Unwrap() []error { return []error{policy.ErrUnreachable, e.error} }

func (t turns) TurnOpen(ctx context.Context, a *meter.Account) bool {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	open, err := t.control.IsOpen(ctx, a.Name)
	if err != nil {
		t.log.Warn("it cannot be seen whether a turn is open", "account", a.Name, "error", err)
	}
	return open
}
