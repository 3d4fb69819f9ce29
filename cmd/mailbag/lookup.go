package main

import (
	"bytes"
	"context"
	"path/filepath"
	"time"

	"mailbag/meter"
	"mailbag/policy/routes"
)

// lookupAgain is how long to wait until the next look into the table, while it is the old one.
const lookupAgain = 100 * time.Millisecond

// way is what the table of ways has for the account's first domain, when it is that of the accounts; empty: there is none.
func (d *desk) way(ctx context.Context, a *meter.Account) (string, error) {
	alone, err := d.ledger.LoadSome(ctx, a.ID)
	if err != nil || len(a.Domains) == 0 {
		return "", err
	}
	for _, table := range d.tables(alone) {
		if table.Name != routes.Routes {
			continue
		}
		content, err := table.Content()
		if err != nil {
			return "", err
		}
		way, _, err := routes.Find(bytes.NewReader(content), a.Domains[0])
		return way, err
	}
	return "", nil
}

// awaitDaemon waits until mailbag-policyd has told the MTA the account's present way of delivery, and
// reports whether it has.
func (d *desk) awaitDaemon(ctx context.Context, a *meter.Account) bool {
	ctx, cancel := context.WithTimeout(ctx, inForceWithin)
	defer cancel()
	want, err := d.way(ctx, a)
	if err != nil || want == "" {
		return false
	}
	again := time.NewTicker(lookupAgain)
	defer again.Stop()
	for {
		way, _, err := routes.Lookup(filepath.Join(d.settings.Policy.Tables, routes.Routes), a.Domains[0])
		if err != nil {
			return false
		}
		if way == want {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-again.C:
		}
	}
}
