package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"mailbag/cmd/internal/mta"
	"mailbag/cmd/internal/settings"
	"mailbag/meter"
)

// A desk is what a command works at: the console, the settings, the MTA and the open ledger.
type desk struct {
	*console
	settings *settings.Settings
	mta      mta.System
	ledger   *meter.Ledger
}

// task is the work of a command at an open ledger.
type task func(ctx context.Context, d *desk, cmd *cobra.Command, args []string) error

// atLedger runs a task with the ledger that is there.
func (c *console) atLedger(t task) func(*cobra.Command, []string) error { return c.at(t, false) }

// atNewLedger makes the ledger where it is missing. Only commands that put a service up do: an empty
// ledger made by mistake would have the daemons refuse everybody's mail.
func (c *console) atNewLedger(t task) func(*cobra.Command, []string) error { return c.at(t, true) }

func (c *console) at(t task, create bool) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		d, err := c.open(cmd.Context(), create)
		if err != nil {
			return err
		}
		defer d.ledger.Close()
		return lacking(d.settings.Database, t(cmd.Context(), d, cmd, args))
	}
}

func (c *console) open(ctx context.Context, create bool) (*desk, error) {
	s, system, err := c.load(c.config)
	if err != nil {
		return nil, err
	}
	if dir := filepath.Dir(s.Beside()); create {
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("the directory %s of the ledger does not exist; make it, owned by the user that the daemons run as, or change the key database in the settings", dir)
		}
	}
	opt := s.Ledger()
	opt.Create, opt.Actor, opt.Now = create, actor(), c.now
	l, err := meter.Open(ctx, s.Database, opt)
	if err != nil {
		return nil, lacking(s.Database, err)
	}
	return &desk{console: c, settings: s, mta: system, ledger: l}, nil
}

// actor is who changes things, for the history: the person behind sudo rather than root.
func actor() string {
	if name := os.Getenv("SUDO_USER"); name != "" {
		return name
	}
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username
	}
	return strconv.Itoa(os.Getuid())
}

// account reads an account, and a directory in which it is alone.
func (d *desk) account(ctx context.Context, name string) (*meter.Directory, *meter.Account, error) {
	return d.ledger.LoadAccount(ctx, name)
}

// say tells on stdout what was done.
func (c *console) say(format string, args ...any) { fmt.Fprintf(c.out, format+"\n", args...) }

// note tells on stderr what the operator should know besides.
func (c *console) note(format string, args ...any) {
	fmt.Fprintf(c.err, "mailbag: "+format+"\n", args...)
}

// thisMonth is the present month in the billing time zone.
func (d *desk) thisMonth() meter.Month { return meter.MonthOf(d.now(), d.settings.Billing.Location) }

// tariff is what the settings say that a month costs.
func (d *desk) tariff() meter.Tariff {
	return meter.Tariff{
		Messages:  d.settings.Limits.Messages,
		Bytes:     d.settings.Limits.Bytes,
		BasePrice: meter.Cents(d.settings.Billing.BasePrice),
		TierPrice: meter.Cents(d.settings.Billing.TierPrice),
		Currency:  d.settings.Billing.Currency,
		OnLimit:   d.settings.Limits.OnLimit,
		Prorate:   d.settings.Billing.Prorate,
	}
}
