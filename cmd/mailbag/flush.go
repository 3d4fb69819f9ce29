package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"

	"github.com/spf13/cobra"

	"mailbag/cmd/internal/units"
	"mailbag/meter"
	"mailbag/turnd/control"
	"mailbag/turnd/turn"
)

func (c *console) flushCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "flush NAME",
		Short: "Have an account's mail delivered now",
		Long: `Have what waits for an account delivered now, as if it had asked by ETRN: mailbag-turnd connects to the
host of an etrn account and opens a turn, the MTA tries the mail of a backup account again, and that of a pop3
account which it could not put into mailboxes, because mailbag-popd was away or the quota used up. The mail
of an atrn account waits for its own server to call.`,
		Example:           "  mailbag flush bolt",
		Args:              arguments("NAME"),
		ValidArgsFunction: c.completeFlushable,
		RunE: c.atLedger(func(ctx context.Context, d *desk, _ *cobra.Command, args []string) error {
			_, a, err := d.account(ctx, args[0])
			if err != nil {
				return err
			}
			return d.flush(ctx, a)
		}),
	}
}

// flushable reports whether an account's mail can be delivered without its own server asking.
func flushable(a *meter.Account) bool { return a.Mode != meter.ATRN || a.Host != "" }

func (d *desk) flush(ctx context.Context, a *meter.Account) error {
	switch {
	case a.Suspended:
		return fmt.Errorf(`%s is suspended and its mail is held; "mailbag account resume %s" lets it go`, a.Name, a.Name)
	case !flushable(a):
		return fmt.Errorf("mail for %s waits for its own server to ask by ATRN; nobody else can ask for it", a.Name)
	case a.Mode.Held():
		return d.openTurn(ctx, a)
	}
	return d.tryAgain(ctx, a)
}

// tryAgain has the MTA try what it could not deliver.
func (d *desk) tryAgain(ctx context.Context, a *meter.Account) error {
	words := d.mta.Words()
	w, err := d.waiting(ctx, accountScope(a))
	switch {
	case err != nil:
		return err
	case w.messages == 0:
		d.say("nothing waits for %s", a.Name)
		return nil
	case w.messages == w.onHold:
		return fmt.Errorf("%s for %s %s on hold in %s's queue; %s takes off the hold", amountOf(int(w.onHold)), a.Name, verb(w.onHold, "is", "are"), words.Name, w.unhold())
	}
	for _, domain := range a.Domains {
		if err := d.mta.Flush(ctx, domain); err != nil {
			return err
		}
	}
	d.say("%s tries the mail for %s now, %s", words.Name, a.Name, amount(w.messages, w.bytes))
	if a.Mode == meter.POP3 {
		d.pointOutFull(a, w)
	}
	return nil
}

// pointOutFull says why mail for mailboxes goes on waiting, where that can be seen.
func (d *desk) pointOutFull(a *meter.Account, w waitingMail) {
	at := d.settings.POP.Deliver
	conn, err := net.Dial(at.Network, at.Address)
	switch {
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED):
		d.note("mailbag-popd does not answer at %s, so it goes on waiting; start it, and run this again", at)
	case err == nil:
		conn.Close()
	}
	if stored, err := d.store().Stored(a.Name); err == nil && a.Quota > 0 && stored.Bytes+w.bytes > a.Quota {
		d.note("%s %s stored for %s, whose quota is %s, so what does not fit goes on waiting", amount(stored.Messages, stored.Bytes),
			verb(stored.Messages, "is", "are"), a.Name, units.FormatSize(a.Quota))
	}
}

// openTurn has mailbag-turnd connect to the account's host.
func (d *desk) openTurn(ctx context.Context, a *meter.Account) error {
	w, err := d.ledger.Waiting(ctx, a.ID)
	if err != nil {
		return err
	}
	d.showProgress("connecting to %s", a.Host)
	err = d.control().Open(ctx, a.Name, "")
	d.endProgress()
	switch {
	case errors.Is(err, turn.ErrNothingWaits):
		d.say("nothing waits for %s", a.Name)
	case errors.Is(err, turn.ErrOpen):
		d.say(`a turn to %s is open already; "mailbag turns %s" shows it`, a.Name, a.Name)
	case err != nil:
		return fmt.Errorf("no turn to %s was opened: %w", a.Name, err)
	default:
		d.say(`a turn to %s is open, %s; "mailbag turns %s" shows how it goes`, a.Name, amount(w.Messages, w.Bytes), a.Name)
	}
	return nil
}

// control is the way to mailbag-turnd.
func (d *desk) control() *control.Client { return control.NewClient(d.settings.Turn.Control.Address) }
