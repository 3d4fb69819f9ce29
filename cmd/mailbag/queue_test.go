package main

import (
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"mailbag/cmd/internal/mta"
)

// A message that moves while the queue is listed may be missing from the listing.
func TestOneLookAtTheQueueDeletesNothing(t *testing.T) {
	t.Parallel()
	moving := slices.Values([]mta.Entry{})
	there := slices.Values([]mta.Entry{waitingEntry("MOVES", time.Hour, "a@acme.example")})
	q := &aQueue{passes: []iter.Seq[mta.Entry]{moving, there}}
	w := newWorkplace(t, q)
	w.must("account", "add", "acme", "--mode", "atrn", "--domain", "acme.example", "--domain", "acme.test", "--generate-password")
	for _, command := range [][]string{{"account", "delete", "acme"}, {"domain", "remove", "acme", "acme.example"}} {
		q.seen = 0
		if status, _, errs := w.run(command...); status != failed || !strings.Contains(errs, "mail waits for") {
			t.Errorf("%q ended with status %d: %s", command, status, errs)
		}
	}
	q.passes, q.seen = []iter.Seq[mta.Entry]{there, moving, there, moving}, 0
	w.must("account", "delete", "acme", "--return")
	if !slices.Equal(q.expired, []string{"MOVES"}) {
		t.Errorf("returned %q", q.expired)
	}
}
