package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"mailbag/cmd/internal/postfix"
	"mailbag/cmd/internal/wholefile"
	"mailbag/policy/routes"
)

// makeTables makes what Postfix reads where it is missing; mailbag-policyd, whose it is, keeps it from then on.
func (d *desk) makeTables(ctx context.Context) error {
	dir := d.settings.Policy.Tables
	if postfix.Tables(dir).Complete() == nil {
		return nil
	}
	all, err := d.ledger.Load(ctx)
	if err != nil {
		return err
	}
	tables, err := routes.Sockets{Turns: d.settings.Turn.Sockets, Deliver: d.settings.POP.Deliver.Address}.Tables(all)
	if err != nil {
		return err
	}
	err = os.Mkdir(dir, 0o755)
	switch {
	case err == nil:
		err = giveAway(dir)
	case errors.Is(err, fs.ErrExist):
		err = nil
	}
	for _, t := range tables {
		path := filepath.Join(dir, t.Name)
		if err == nil {
			err = wholefile.Replace(path, t.Content, 0o644)
		}
		if err == nil {
			err = giveAway(path)
		}
	}
	if err != nil {
		return fmt.Errorf("the tables that Postfix reads cannot be made: %w", err)
	}
	return nil
}

// giveAway makes what root made belong to the owner of its directory, who is the user that the daemons run as.
func giveAway(path string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	dir, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return err
	}
	owner := dir.Sys().(*syscall.Stat_t)
	return os.Chown(path, int(owner.Uid), int(owner.Gid))
}
