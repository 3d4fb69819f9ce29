package main

import (
	"context"
	"path/filepath"
	"strings"
	"time"

	"mailbag/meter"
	"mailbag/policy/routes"
)

// lookupAgain is how long to wait until the next look into the table, while it is the old one.
const lookupAgain = 100 * time.Millisecond

// awaitDaemon waits until mailbag-policyd has told Postfix the account's present way of delivery, and
// reports whether it has.
func (d *desk) awaitDaemon(ctx context.Context, a *meter.Account) bool {
	if len(a.Domains) == 0 {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, inForceWithin)
	defer cancel()
	again := time.NewTicker(lookupAgain)
	defer again.Stop()
	for {
		way, _, err := routes.Lookup(filepath.Join(d.settings.Policy.Tables, routes.Routes), a.Domains[0])
		if err != nil {
			return false
		}
		if name, _, _ := strings.Cut(way, ":"); name == transport(a) {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-again.C:
		}
	}
}

// transport is the name in master.cf of the account's way of delivery.
func transport(a *meter.Account) string {
	switch {
	case a.Held():
		return "mailbag-turn"
	case a.Mode == meter.POP3:
		return "mailbag-pop"
	}
	return "relay"
}
