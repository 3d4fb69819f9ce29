package meter

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// filling is the version of tables that do not have all their rows yet.
const filling = -1

// A page of rows has so many octets of values at the most, about, so that it is one entry of Raft's log that is soon everywhere.
const pageOctets = 1 << 20

// maxParameters is how many a statement of SQLite has at the most.
const maxParameters = 32766

// vacant reports whether the nodes have tables that a former process did not come to fill. That they have a ledger, or other
// tables, is an error.
func (e *rqlite) vacant(ctx context.Context) (begun bool, err error) {
	if e.invalid != nil {
		return false, e.invalid
	}
	var version, tables int
	err = e.query(ctx, current, query{statement{sql: "SELECT (SELECT user_version FROM pragma_user_version), (SELECT count(*) FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%')"},
		func(r scanner) error { return r.Scan(&version, &tables) }})
	switch {
	case err != nil:
		return false, err
	case version > 0:
		return false, fmt.Errorf("%s has a ledger already", e.nodes.urls[0])
	case version == 0 && tables > 0:
		return false, fmt.Errorf("%s has tables already that are no ledger's; name other nodes, which are new", e.nodes.urls[0])
	}
	return version == filling, nil
}

// fill makes the tables of a copy of a ledger. They are a ledger with the last step, which has the triggers that count in it: the
// rows are what they have come to.
func (e *rqlite) fill(ctx context.Context, from *sql.DB) error {
	begun, err := e.vacant(ctx)
	if err != nil {
		return err
	}
	if begun {
		if err := e.drop(ctx); err != nil {
			return err
		}
	}
	tables, triggers := []statement{{sql: fmt.Sprintf("PRAGMA user_version = %d", filling)}}, []statement{}
	err = readRows(ctx, from, query{statement{sql: "SELECT type, sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' ORDER BY type <> 'table', rowid"}, func(r scanner) error {
		var kind, text string
		err := r.Scan(&kind, &text)
		if kind == "trigger" {
			triggers = append(triggers, statement{sql: text})
		} else {
			tables = append(tables, statement{sql: text})
		}
		return err
	}})
	if err != nil {
		return err
	}
	if err := e.post(ctx, tables, writesWithin); err != nil {
		// Where the answer to the first attempt was lost the second one finds the tables there.
		if begun, again := e.vacant(ctx); again != nil || !begun {
			return err
		}
	}
	order, err := parentsFirst(func(q query) error { return readRows(ctx, from, q) })
	if err != nil {
		return err
	}
	for _, table := range order {
		if table == "applied" { // which the tokens of these batches are in
			continue
		}
		if err := e.fillTable(ctx, from, table); err != nil {
			return fmt.Errorf("the table %s: %w", table, err)
		}
	}
	last := append(triggers, statement{sql: "DELETE FROM sqlite_sequence"})
	err = readRows(ctx, from, query{statement{sql: "SELECT name, seq FROM sqlite_sequence ORDER BY name"}, func(r scanner) error {
		var name string
		var seq int64
		err := r.Scan(&name, &seq)
		last = append(last, statement{"INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", []any{name, seq}})
		return err
	}})
	if err != nil {
		return err
	}
	return e.once(ctx, newToken(), append(last, statement{sql: fmt.Sprintf("PRAGMA user_version = %d", len(migrations))}))
}

// fillTable writes the rows of a table page by page.
func (e *rqlite) fillTable(ctx context.Context, from *sql.DB, table string) error {
	rows, err := from.QueryContext(ctx, "/* all */ SELECT * FROM "+quoted(table))
	if err != nil {
		return told(err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return told(err)
	}
	values, into := make([]any, len(columns)), make([]any, len(columns))
	for i := range values {
		into[i] = &values[i]
	}
	var page []any
	octets := 0
	flush := func() error {
		if len(page) == 0 {
			return nil
		}
		row := "(?" + strings.Repeat(", ?", len(columns)-1) + ")"
		text := "INSERT INTO " + quoted(table) + " VALUES " + row + strings.Repeat(", "+row, len(page)/len(columns)-1)
		err := e.once(ctx, newToken(), []statement{{text, page}})
		page, octets = nil, 0
		return err
	}
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return told(err)
		}
		page = append(page, values...)
		for _, v := range values {
			octets += 8
			switch v := v.(type) {
			case string:
				octets += len(v)
			case []byte:
				octets += 4 * len(v)
			}
		}
		if octets >= pageOctets || len(page)+len(columns) > maxParameters {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return errors.Join(told(rows.Err()), flush())
}

// drop removes tables that are not full.
func (e *rqlite) drop(ctx context.Context) error {
	order, err := parentsFirst(func(q query) error { return e.query(ctx, current, q) })
	if err != nil {
		return err
	}
	batch := []statement{}
	err = e.query(ctx, current, query{statement{sql: "SELECT name FROM sqlite_schema WHERE type = 'view'"}, func(r scanner) error {
		var name string
		err := r.Scan(&name)
		batch = append(batch, statement{sql: "DROP VIEW IF EXISTS " + quoted(name)})
		return err
	}})
	slices.Reverse(order)
	for _, table := range order {
		batch = append(batch, statement{sql: "DROP TABLE IF EXISTS " + quoted(table)})
	}
	if err != nil {
		return err
	}
	return e.post(ctx, append(batch, statement{sql: "PRAGMA user_version = 0"}), migrationTakes)
}

// parentsFirst are the tables in an order in which no row lacks another one that it refers to.
func parentsFirst(read func(query) error) (order []string, err error) {
	parents := map[string][]string{}
	var names []string
	err = read(query{statement{sql: `SELECT t.name, coalesce(f."table", '') FROM sqlite_schema t LEFT JOIN pragma_foreign_key_list(t.name) f WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite_%' ORDER BY t.name, 2`}, func(r scanner) error {
		var name, parent string
		err := r.Scan(&name, &parent)
		if _, known := parents[name]; !known {
			names, parents[name] = append(names, name), nil
		}
		if parent != "" && parent != name {
			parents[name] = append(parents[name], parent)
		}
		return err
	}})
	if err != nil {
		return nil, err
	}
	for len(order) < len(names) {
		before := len(order)
		for _, name := range names {
			ready := !slices.Contains(order, name) && !slices.ContainsFunc(parents[name], func(p string) bool { return !slices.Contains(order, p) })
			if ready {
				order = append(order, name)
			}
		}
		if len(order) == before {
			return nil, fmt.Errorf("%w: its tables refer to each other in a circle", ErrUnavailable)
		}
	}
	return order, nil
}
