package meter

import (
	"context"
	"fmt"
	"strings"
	"time"
)

const (
	maxAdjustment = 1e15 // messages or octets
	maxReason     = 500  // octets
)

// AdjustUsage adds to what an account used in a month, or takes from it, for a reason that its bill
// shows. Limits see the new number at once. Deleted accounts can be adjusted too. Errors: [ErrNoAccount],
// [ErrMonthClosed], [ErrInvalid].
func (l *Ledger) AdjustUsage(ctx context.Context, name string, month Month, by Usage, reason string) error {
	if err := l.checkAdjustment(ctx, name, month, by, reason); err != nil {
		return err
	}
	const account = "(SELECT id FROM account WHERE name = ?)"
	now := l.opt.Now().UnixMilli()
	action := fmt.Sprintf("usage adjust %s by %+d messages, %+d octets: %s", month, by.Messages, by.Bytes, reason)
	err := l.batch(ctx,
		statement{`
			INSERT INTO change (at, who, account, action, before)
			VALUES (?, ?, ` + account + `, ?, (SELECT document FROM account_document WHERE name = ?))`,
			[]any{now, l.opt.Actor, name, action, name}},
		statement{`
			INSERT INTO adjustment (account, month, messages, bytes, reason, at, who)
			VALUES (` + account + `, ?, ?, ?, ?, ?, ?)`,
			[]any{name, month.String(), by.Messages, by.Bytes, reason, now, l.opt.Actor}},
		historyAfter)
	switch {
	case ofNothing(err):
		return fmt.Errorf("%s: %w", name, ErrNoAccount)
	case violates(err, ErrMonthClosed.Error()):
		return fmt.Errorf("%s: %w", month, ErrMonthClosed)
	}
	return err
}

// firstCreated is when the account of that name was added, or the first of all without a name, deleted ones
// included; the zero time where there is none.
func (l *Ledger) firstCreated(ctx context.Context, name string) (time.Time, error) {
	var at int64
	err := l.row(ctx, "SELECT coalesce(min(created), 0) FROM account WHERE name = ?1 OR ?1 = ''", name).Scan(&at)
	if err != nil || at == 0 {
		return time.Time{}, err
	}
	return time.UnixMilli(at), nil
}

func (l *Ledger) checkAdjustment(ctx context.Context, name string, month Month, by Usage, reason string) error {
	switch {
	case by == Usage{}:
		return invalid("an adjustment of nothing changes nothing")
	case max(by.Messages, -by.Messages, by.Bytes, -by.Bytes) > maxAdjustment:
		return invalid("an adjustment by more than %d is refused as a mistake", int64(maxAdjustment))
	case strings.TrimSpace(reason) == "":
		return invalid("an adjustment needs a reason, which the bill shows")
	case MonthOf(l.opt.Now(), l.opt.Location).Before(month):
		return invalid("%s has not begun", month)
	}
	if err := checkLine("reason", reason, maxReason); err != nil {
		return err
	}
	created, err := l.firstCreated(ctx, name)
	switch {
	case err != nil:
		return err
	case created.IsZero():
		return fmt.Errorf("%s: %w", name, ErrNoAccount)
	case !created.Before(month.Next().Start(l.opt.Location)):
		return invalid("%s was added on %s; %s was over then", name, created.In(l.opt.Location).Format(time.DateOnly), month)
	}
	invoices, err := l.Invoices(ctx, month, Tariff{}, name)
	if err != nil {
		return err
	}
	var used Usage
	for _, i := range invoices.Accounts {
		used = i.Usage()
	}
	if used.Messages+by.Messages < 0 || used.Bytes+by.Bytes < 0 {
		return invalid("%s used %d messages and %d octets in %s; no more than that can be taken away", name, used.Messages, used.Bytes, month)
	}
	return nil
}
