package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"mailbag/cmd/internal/settings"
	"mailbag/meter"
)

func (c *console) databaseMigrateCommand() *cobra.Command {
	var to string
	var stay, asJSON bool
	cmd := &cobra.Command{
		Use:   "migrate {--to ADDRESS | --stay}",
		Short: "Move the ledger between a file and nodes of rqlite",
		Long: `Copy the ledger to another place, a new file or new nodes of rqlite, which are named as under the key database in the
settings; credentials and certificates are those of [cluster]. Stop the daemons before, with their sockets. Afterwards
change the key database, have systemd read its units again (mailbag's may reach other machines, and back up what is no
file, only where the settings name nodes), and start them. Mail for accounts waits at its senders meanwhile.

It refuses while a daemon of this host has the ledger open. The new ledger is there whole or not at all, and the rows of
each table are counted in both. Files of evidence stay where they are, or are copied to where the new ledger looks for
them: beside it, or in the directory of [cluster] state. The old one is kept and takes no writes any more, so that no
daemon that is left goes on with it; with --stay it does again, without what was written in the other one. After an error
the old one is used as before; where the machine went down meanwhile, run it again, to the same address. To nodes it takes
a minute or two for each million messages of which there is evidence, and longer on a busy machine.`,
		Example: `  systemctl stop 'mailbag-*.socket' 'mailbag-*.timer' 'mailbag-*.service'
  mailbag database migrate --to rqlite://127.0.0.1:4001,mx-b:4001,mx-c:4001
  systemctl daemon-reload && systemctl start sockets.target timers.target multi-user.target
  mailbag database migrate --to /var/lib/mailbag/mailbag-2.db
  mailbag database migrate --stay`,
		Args: arguments(),
	}
	cmd.Flags().StringVar(&to, "to", "", "`ADDRESS` of the new ledger: rqlite://HOST:PORT,…, or a path")
	cmd.Flags().BoolVar(&stay, "stay", false, "have the ledger take writes again that was moved, or was being moved")
	jsonFlag(cmd, &asJSON)
	if err := cmd.MarkFlagFilename("to", "db"); err != nil {
		panic(err) // only where the flag does not exist
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := together(cmd, "stay", "to", "json"); err != nil {
			return err
		}
		var address string
		var err error
		if !stay {
			if address, err = settings.ParseDatabase(to); err != nil {
				return wrongUsage(cmd, "--to: %w", err)
			}
		}
		return c.atLedger(func(ctx context.Context, d *desk, _ *cobra.Command, _ []string) error {
			if stay {
				return d.stay(ctx)
			}
			return d.migrate(ctx, address, asJSON)
		})(cmd, args)
	}
	return cmd
}

func (d *desk) stay(ctx context.Context) error {
	if err := d.ledger.Stay(ctx); err != nil {
		return err
	}
	d.say("the ledger %s takes writes", d.settings.Database)
	return nil
}

// movedTable is a table as it is in --json.
type movedTable struct {
	Table  string `json:"table"`
	Before int64  `json:"before"`
	After  int64  `json:"after"`
}

func (d *desk) migrate(ctx context.Context, address string, asJSON bool) error {
	there := *d.settings
	there.Database = address
	tables, err := d.ledger.Move(ctx, address, there.Ledger())
	if errors.Is(err, meter.ErrInUse) {
		return fmt.Errorf("%w: %s; stop the daemons with their sockets (systemctl stop 'mailbag-*.socket' 'mailbag-*.timer' 'mailbag-*.service'), and run it again", err, d.settings.Database)
	}
	if err := errors.Join(d.showMoved(tables, asJSON), err); err != nil {
		return err
	}
	d.note("the ledger is at %s now; change the key database in the settings, run systemctl daemon-reload, and start the daemons. %s stays as it is, and takes no writes", address, d.settings.Database)
	return nil
}

func (d *desk) showMoved(tables []meter.Moved, asJSON bool) error {
	all := []movedTable{}
	t := table{heads: []string{"TABLE", ">BEFORE", ">AFTER"}}
	for _, m := range tables {
		all = append(all, movedTable{m.Table, m.Before, m.Now})
		t.add(m.Table, grouped(m.Before), grouped(m.Now))
	}
	if asJSON {
		return d.json(all)
	}
	if len(tables) > 0 {
		d.table(&t)
	}
	return nil
}
