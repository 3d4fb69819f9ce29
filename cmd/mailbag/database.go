package main

import (
	"context"

	"github.com/spf13/cobra"
)

func (c *console) databaseCommand() *cobra.Command {
	return group("database", "Back up and check the ledger",
		"The ledger is one SQLite file; the key database in the settings says where.",
		&cobra.Command{
			Use:   "backup FILE",
			Short: "Write a whole copy of the ledger to a new file, while everything goes on",
			Long: `Write a whole and consistent copy of the ledger to a new file. The daemons go on meanwhile. The copy is
readable by its owner only, because it holds the verifiers of passwords. To restore it, stop the
daemons, put it in the place of the ledger, remove the ledger's -wal and -shm files if they are
there, and start the daemons.`,
			Example:           "  mailbag database backup /var/backups/mailbag-$(date +%F).db",
			Args:              arguments("FILE"),
			ValidArgsFunction: completeFile,
			RunE: c.atLedger(func(ctx context.Context, d *desk, _ *cobra.Command, args []string) error {
				if err := d.ledger.Backup(ctx, args[0]); err != nil {
					return err
				}
				d.say("the ledger was copied to %s", args[0])
				return nil
			}),
		},
		c.databaseCheckCommand())
}

func (c *console) databaseCheckCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "check",
		Short:   "Look for damage in the ledger",
		Long:    "Look for damage in the ledger: pages, references, and usage against its evidence. Status 1 says that there is some.",
		Example: "  mailbag database check",
		Args:    arguments(),
		RunE: c.atLedger(func(ctx context.Context, d *desk, _ *cobra.Command, _ []string) error {
			faults, err := d.ledger.Check(ctx)
			if err != nil {
				return err
			}
			if asJSON {
				if err := d.json(append([]string{}, faults...)); err != nil {
					return err
				}
			} else if len(faults) == 0 {
				d.say("the ledger is sound")
			}
			for _, fault := range faults {
				d.note("%s", fault)
			}
			if len(faults) > 0 {
				d.note("the ledger has faults; stop the daemons, keep a copy of the file, and restore the latest backup that is sound")
				return errReported
			}
			return nil
		}),
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}
