package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"mailbag/cmd/internal/tables"
	"mailbag/meter"
	"mailbag/policy/routes"
)

// tables are what the MTA reads of accounts.
func (d *desk) tables(accounts *meter.Directory) []routes.Table {
	return d.mta.Tables(routes.Sockets{Turns: d.settings.Turn.Sockets, Deliver: d.settings.POP.Deliver.Address}, accounts)
}

// makeTables makes what the MTA reads where it is missing; mailbag-policyd, whose it is, keeps it from then on.
func (d *desk) makeTables(ctx context.Context) error {
	dir := d.settings.Policy.Tables
	accounts, err := d.ledger.Load(ctx)
	if err == nil && slices.ContainsFunc(d.tables(accounts), func(t routes.Table) bool {
		_, err := os.Stat(filepath.Join(dir, t.Name))
		return errors.Is(err, fs.ErrNotExist)
	}) {
		err = tables.Write(dir, d.tables(accounts))
	}
	if err != nil {
		return fmt.Errorf("the tables that %s reads cannot be made: %w", d.mta.Words().Name, err)
	}
	return nil
}
