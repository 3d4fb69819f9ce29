package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"mailbag/cmd/internal/wholefile"
	"mailbag/meter"
)

func (c *console) databaseCommand() *cobra.Command {
	return group("database", "Back up, check and move the ledger",
		"The ledger is one SQLite file, or on nodes of rqlite; the key database in the settings says where.",
		&cobra.Command{
			Use:   "backup FILE",
			Short: "Write a whole copy of the ledger to a new file, while everything goes on",
			Long: `Write a whole and consistent copy of the ledger to a new file. The daemons go on meanwhile. The copy is
readable by its owner only, because it holds the verifiers of passwords. To restore it, stop the
daemons, put it in the place of the ledger, remove the ledger's -wal and -shm files if they are
there, and start the daemons.

The files of evidence that the ledger knows are copied into the directory evidence beside FILE, each
once for all copies that are there; those of days that the ledger has not had for two weeks are removed
from it. Restore them into the directory evidence beside the ledger; "mailbag database check" says which
lack. With - for FILE it is the ledger alone.

` + outputMeaning,
			Example: `  mailbag database backup /var/backups/mailbag-$(date +%F).db
  mailbag database backup - | ssh backup.example 'cat > mailbag.db'`,
			Args:              arguments("FILE"),
			ValidArgsFunction: completeFile,
			RunE: c.atLedger(func(ctx context.Context, d *desk, _ *cobra.Command, args []string) error {
				backup := func(name string) error { return d.ledger.Backup(ctx, name) }
				made, err := d.write(d.settings, args[0],
					func(w io.Writer) error { return copyOf(backup, w) },
					func() error { return wholefile.AddMade(args[0], backup) })
				if !made || err != nil {
					return err
				}
				if err := d.ledger.BackupEvidence(ctx, filepath.Join(filepath.Dir(args[0]), "evidence")); err != nil {
					return fmt.Errorf("the ledger was copied to %s, and not all of its evidence: %w", args[0], err)
				}
				d.say("the ledger was copied to %s", args[0])
				return nil
			}),
		},
		c.databaseCheckCommand(), c.databaseMigrateCommand())
}

// copyOf writes a file to w that can only be made under a name.
func copyOf(made func(name string) error, w io.Writer) error {
	dir, err := os.MkdirTemp("", "mailbag-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	name := filepath.Join(dir, "copy")
	if err := made(name); err != nil {
		return err
	}
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, f)
	return errors.Join(err, f.Close())
}

func (c *console) databaseCheckCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Look for damage in the ledger",
		Long: `Look for damage in the ledger: pages, references, files of evidence, and usage against its evidence.
Status 1 says that there is some. Of a ledger on nodes of rqlite it looks at a copy, which takes as
much room in the directory cluster.state meanwhile.`,
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
			if len(faults) > 0 && onlyEvidence(faults) {
				return errReported
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

// onlyEvidence reports whether all faults are of files beside a ledger that has none itself.
func onlyEvidence(faults []string) bool {
	return !slices.ContainsFunc(faults, func(fault string) bool { return !strings.HasPrefix(fault, meter.ErrEvidence.Error()) })
}
