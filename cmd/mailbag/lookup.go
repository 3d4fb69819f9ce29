package main

import (
	"bytes"
	"context"
	"path/filepath"
	"slices"
	"time"

	"mailbag/meter"
	"mailbag/policy/routes"
)

// lookupAgain is how long to wait until the next look into the table, while it is the old one.
const lookupAgain = 100 * time.Millisecond

// awaitDaemon waits until mailbag-policyd has told the MTA the account's present way of delivery, and
// reports whether it has.
func (d *desk) awaitDaemon(ctx context.Context, a *meter.Account) bool {
	ctx, cancel := context.WithTimeout(ctx, inForceWithin)
	defer cancel()
	all, err := d.tables(ctx)
	i := slices.IndexFunc(all, func(t routes.Table) bool { return t.Name == routes.Routes })
	if len(a.Domains) == 0 || err != nil || i < 0 {
		return false
	}
	want, _, err := routes.Find(bytes.NewReader(all[i].Content), a.Domains[0])
	if err != nil {
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
