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
	"mailbag/policy/routes"
)

// tables are what the MTA reads of the accounts.
func (d *desk) tables(ctx context.Context) ([]routes.Table, error) {
	accounts, err := d.ledger.Load(ctx)
	if err != nil {
		return nil, err
	}
	return d.mta.Tables(routes.Sockets{Turns: d.settings.Turn.Sockets, Deliver: d.settings.POP.Deliver.Address}, accounts)
}

// makeTables makes what the MTA reads where it is missing; mailbag-policyd, whose it is, keeps it from then on.
func (d *desk) makeTables(ctx context.Context) error {
	dir := d.settings.Policy.Tables
	all, err := d.tables(ctx)
	if err == nil && slices.ContainsFunc(all, func(t routes.Table) bool {
		_, err := os.Stat(filepath.Join(dir, t.Name))
		return errors.Is(err, fs.ErrNotExist)
	}) {
		err = tables.Write(dir, all)
	}
	if err != nil {
		return fmt.Errorf("the tables that %s reads cannot be made: %w", d.mta.Words().Name, err)
	}
	return nil
}
