package main

import (
	"context"
	"encoding/csv"
	"errors"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"mailbag/cmd/internal/units"
	"mailbag/meter"
)

// evidence lists the messages that a bill rests on, one at a time: there may be millions.
func (d *desk) evidence(ctx context.Context, account int64, month meter.Month) error {
	if kept := d.now().Add(-d.settings.Retention.Messages); month.Start(d.settings.Billing.Location).Before(kept) {
		d.note("messages from before %s are not kept any more ([retention] messages is %s); the days' sums are, see --daily",
			d.local(kept).Format(time.DateOnly), units.FormatDuration(d.settings.Retention.Messages))
	}
	w := csv.NewWriter(d.out)
	w.UseCRLF = true // RFC 4180, section 2
	if err := w.Write([]string{"time", "queue_id", "bytes", "client", "instance"}); err != nil {
		return outputError(err)
	}
	lacks := false
	for m, err := range d.ledger.Evidence(ctx, account, month) {
		if errors.Is(err, meter.ErrEvidence) {
			d.note("%v", err)
			lacks = true
			continue
		}
		if err != nil {
			return err
		}
		if err := w.Write([]string{d.local(m.At).Format("2006-01-02T15:04:05.000Z07:00"), m.QueueID,
			strconv.FormatInt(m.Size, 10), m.Client, m.Instance}); err != nil {
			return outputError(err)
		}
	}
	w.Flush()
	if err := outputError(w.Error()); err != nil || !lacks {
		return err
	}
	return errReported
}

func (c *console) usageAdjustCommand() *cobra.Command {
	var month monthFlag
	var messages, bytes changeFlag
	var reason string
	cmd := &cobra.Command{
		Use:   "adjust NAME --month MONTH [--messages ±N] [--bytes ±SIZE] --reason TEXT",
		Short: "Add to what an account used in a month, or take from it",
		Long: `Add to what an account used in a month that is not closed, or take from it. The adjustment counts at once,
for the bill, where it has a line of its own with the reason, and for the account's limits. The account's
history keeps it, and nothing takes it away again but another adjustment.`,
		Example:           `  mailbag usage adjust acme --month 2026-02 --messages -1200 --bytes -3.5MB --reason "mail loop on our side"`,
		Args:              arguments("NAME"),
		ValidArgsFunction: c.completeAccounts,
	}
	cmd.Flags().SortFlags = false
	month.add(cmd)
	messages.parse, bytes.parse = count, units.ParseSize
	cmd.Flags().Var(&messages, "messages", "so many more (+) or fewer (-)")
	cmd.Flags().Var(&bytes, "bytes", "so much more (+) or less (-), such as -5MB")
	cmd.Flags().StringVar(&reason, "reason", "", "`TEXT` that the bill shows")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case month.text == "":
			return wrongUsage(cmd, "--month is missing")
		case messages.n == 0 && bytes.n == 0:
			return wrongUsage(cmd, "--messages or --bytes must say by how much")
		case reason == "":
			return wrongUsage(cmd, "--reason is missing; the bill shows it")
		}
		return c.atLedger(func(ctx context.Context, d *desk, cmd *cobra.Command, args []string) error {
			m, err := month.orPresent(cmd, d)
			if err != nil {
				return err
			}
			if err := d.ledger.AdjustUsage(ctx, args[0], m, meter.Usage{Messages: messages.n, Bytes: bytes.n}, reason); err != nil {
				return err
			}
			used, err := d.used(ctx, m, false, args[0])
			if err != nil {
				return err
			}
			d.say("%s has used %s in %s now, charge %s %s", args[0], amount(used[0].Messages, used[0].Bytes), m, money(used[0].invoice.Total()), used[0].Currency)
			return nil
		})(cmd, args)
	}
	return cmd
}

// changeFlag is a flag for a number with a sign.
type changeFlag struct {
	n     int64
	text  string
	parse func(string) (int64, error)
}

func (d *changeFlag) String() string { return d.text }
func (d *changeFlag) Type() string   { return "±N" }

func (d *changeFlag) Set(s string) error {
	n, err := units.ParseDifference(s, d.parse)
	d.n, d.text = n, s
	return err
}
