package meter

import (
	"context"
	"database/sql"
	_ "embed"
	"errors"
	"fmt"
)

//go:embed schema/1.sql
var schema1 string

//go:embed schema/2.sql
var schema2 string

//go:embed schema/3.sql
var schema3 string

//go:embed schema/4.sql
var schema4 string

//go:embed schema/5.sql
var schema5 string

//go:embed schema/6.sql
var schema6 string

//go:embed schema/7.sql
var schema7 string

//go:embed schema/8.sql
var schema8 string

//go:embed schema/9.sql
var schema9 string

//go:embed schema/10.sql
var schema10 string

//go:embed schema/11.sql
var schema11 string

//go:embed schema/12.sql
var schema12 string

//go:embed schema/13.sql
var schema13 string

// migrations lead from one PRAGMA user_version to the next: migrations[0] makes an empty file
// version 1. A migration that was published is never changed.
var migrations = []string{schema1, schema2, schema3, schema4, schema5, schema6, schema7, schema8, schema9, schema10, schema11, schema12, schema13}

// errOtherVersion is with an error that kept a ledger from being brought to this program's version.
var errOtherVersion = errors.New("it is of another version")

// migrate brings an open ledger to the version that this program writes. It is the one place where
// a transaction reads before it writes: two processes that start at once must not both migrate.
// An empty file becomes a ledger only where create says so.
func migrate(ctx context.Context, db *sql.DB, create bool) error {
	var version int
	if err := db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return err
	}
	if version == len(migrations) {
		return nil
	}
	tx, err := db.BeginTx(ctx, nil) // immediate: see dsn
	if err != nil {
		return fmt.Errorf("%w: %w", errOtherVersion, err)
	}
	defer tx.Rollback()
	if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return err
	}
	if version > len(migrations) {
		return otherVersion(version)
	}
	if version == 0 && !create {
		return fmt.Errorf("%w: the file is empty; restore it from a backup, or make a new ledger by adding an account", ErrDamaged)
	}
	for _, migration := range migrations[version:] {
		if _, err := tx.ExecContext(ctx, migration); err != nil {
			return err
		}
	}
	if _, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", len(migrations))); err != nil {
		return err
	}
	return tx.Commit()
}

// otherVersion is what is said of the ledger of a newer program.
func otherVersion(version int) error {
	return fmt.Errorf("%w: the ledger is of version %d and this mailbag knows up to %d; install the newer mailbag", ErrUnavailable, version, len(migrations))
}
