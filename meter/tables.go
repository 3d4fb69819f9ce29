package meter

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
)

// check sees to it that the tables are of this program's version.
func (e *rqlite) check(ctx context.Context) error {
	e.mu.Lock()
	checked := e.checked
	e.mu.Unlock()
	if checked || e.invalid != nil {
		return e.invalid
	}
	var lost error                     // why the tables could not be made
	for how := near; ; how = current { // what is near may be of before
		version := 0
		err := e.query(ctx, how, query{statement{sql: "SELECT user_version FROM pragma_user_version"}, func(r scanner) error { return r.Scan(&version) }})
		switch {
		case err != nil:
			return err
		case version == len(migrations):
			e.mu.Lock()
			e.checked = true
			e.mu.Unlock()
			return nil
		case how == near:
			continue
		case version == filling:
			return fmt.Errorf("%w: %s has a ledger that was not moved there whole; run it again: mailbag database migrate", ErrNoLedger, e.nodes.urls[0])
		case version > len(migrations):
			return otherVersion(version)
		case lost != nil: // and nobody else has made them
			return fmt.Errorf("%w: %s has tables of its own in the place of a ledger's: %w; name nodes that are new", ErrUnavailable, e.nodes.urls[0], lost)
		case version == 0 && !e.opt.Create:
			return fmt.Errorf("%w on %s; to bring another one there: mailbag database migrate", ErrNoLedger, e.nodes.urls[0])
		}
		var batch []statement
		if version == 0 {
			batch, err = newTables(ctx)
		} else {
			batch = []statement{{sql: strings.Join(migrations[version:], "")}}
		}
		if err != nil {
			return err
		}
		batch = append(batch, statement{sql: fmt.Sprintf("PRAGMA user_version = %d", len(migrations))})
		// Whoever loses a race against others finds a table there, or the token, and looks again.
		err = e.migrate(ctx, version, batch)
		if err != nil && !strings.Contains(err.Error(), "already exists") && !isDone(err) {
			return err
		}
		lost = err
	}
}

// migrate writes the statements that lead from a version to this program's.
func (e *rqlite) migrate(ctx context.Context, from int, batch []statement) error {
	if from > 0 {
		batch = append([]statement{{"INSERT INTO applied (token) VALUES (?)", []any{fmt.Sprintf("schema-%d", from)}}}, batch...)
	}
	return e.post(ctx, batch, migrationTakes)
}

// newTables makes the statements for the tables of a new ledger: what an empty file of SQLite becomes by all migrations, one of
// which calls a function of this program, and one of which makes something at random.
func newTables(ctx context.Context) (batch []statement, err error) {
	db, err := sql.Open(driverName, ":memory:")
	if err != nil {
		return nil, unavailable(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	if err := migrate(ctx, db, true); err != nil {
		return nil, told(err)
	}
	key := []byte{}
	err = errors.Join(
		readRows(ctx, db, query{statement{sql: "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' ORDER BY type <> 'table', rowid"}, func(r scanner) error {
			var text string
			err := r.Scan(&text)
			batch = append(batch, statement{sql: text})
			return err
		}}),
		readRows(ctx, db, query{statement{sql: "SELECT key FROM decoy"}, func(r scanner) error { return r.Scan(&key) }}))
	return append(batch, statement{"INSERT INTO decoy (key) VALUES (?)", []any{key}}, statement{sql: "INSERT INTO host (id, name) VALUES (1, '')"}), err
}
