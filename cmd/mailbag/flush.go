package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"mailbag/meter"
	"mailbag/turnd/control"
	"mailbag/turnd/turn"
)

func (c *console) flushCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "flush NAME",
		Short: "Have an account's mail delivered now",
		Long: `Have what waits for an account delivered now, as if it had asked by ETRN: mailbag-turnd connects to the
host of an etrn account and opens a turn, Postfix tries the mail of a backup account again. The mail
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

// flushable reports whether an account's mail is delivered to a host of its own on request.
func flushable(a *meter.Account) bool {
	return a.Mode == meter.Backup || a.Mode == meter.ETRN || a.Mode == meter.ATRN && a.Host != ""
}

func (d *desk) flush(ctx context.Context, a *meter.Account) error {
	switch {
	case a.Suspended:
		return fmt.Errorf(`%s is suspended and its mail is held; "mailbag account resume %s" lets it go`, a.Name, a.Name)
	case a.Mode == meter.POP3:
		return fmt.Errorf("mail for %s does not wait: it is put into mailboxes as it comes", a.Name)
	case !flushable(a):
		return fmt.Errorf("mail for %s waits for its own server to ask by ATRN; nobody else can ask for it", a.Name)
	case a.Mode == meter.Backup:
		for _, domain := range a.Domains {
			if err := d.mta.Flush(ctx, domain); err != nil {
				return err
			}
		}
		d.say("Postfix tries the mail for %s now", a.Name)
		return nil
	}
	return d.openTurn(ctx, a)
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
