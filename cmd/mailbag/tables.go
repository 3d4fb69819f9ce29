package main

import (
	"context"
	"fmt"

	"mailbag/cmd/internal/postfix"
	"mailbag/cmd/internal/tables"
	"mailbag/policy/routes"
)

// makeTables makes what Postfix reads where it is missing; mailbag-policyd, whose it is, keeps it from then on.
func (d *desk) makeTables(ctx context.Context) error {
	dir := d.settings.Policy.Tables
	if postfix.Tables(dir).Complete() == nil {
		return nil
	}
	accounts, err := d.ledger.Load(ctx)
	if err != nil {
		return err
	}
	all, err := routes.Sockets{Turns: d.settings.Turn.Sockets, Deliver: d.settings.POP.Deliver.Address}.Tables(accounts)
	if err == nil {
		err = tables.Write(dir, all)
	}
	if err != nil {
		return fmt.Errorf("the tables that Postfix reads cannot be made: %w", err)
	}
	return nil
}
