package postfix

import (
	"context"
	"fmt"
	"strings"
	"time"

	"mailbag/cmd/internal/mta"
)

const (
	reroutedWithin = 50 * time.Second // trivial-rewrite(8) looks at its tables every 10 s, and qmgr(8) remembers the way of the latest address for 30 s
	rerouteLook    = 500 * time.Millisecond
	reroutePause   = 4 * time.Second
)

// Reroute has Postfix try the messages now, and again those that still took the way on which they were held: qmgr(8)
// remembers where the latest address went for a while.
func (in Instance) Reroute(ctx context.Context, r mta.Reroute, left func(messages int)) ([]string, error) {
	ids, ours := r.IDs, mta.NewDomains(r.Domains...)
	pause := rerouteLook
	for deadline := time.Now().Add(reroutedWithin); ; pause = min(2*pause, reroutePause) {
		if err := in.Release(ctx, ids...); err != nil {
			return ids, fmt.Errorf("%d messages cannot be released: %w", len(ids), err)
		}
		select {
		case <-ctx.Done():
			return ids, ctx.Err()
		case <-time.After(pause):
		}
		var still []string
		for e, err := range in.Queue(ctx) {
			if err != nil {
				return ids, err
			}
			if e.Queue == "deferred" && tookFormerWay(e, ours, r.Former) {
				still = append(still, e.ID)
			}
		}
		if ids = still; len(ids) == 0 || time.Now().After(deadline) {
			return ids, nil
		}
		left(len(ids))
	}
}

// tookFormerWay reports whether the message waits for one of the domains because of defer_transports, or of a socket that
// nobody listens on for it any more.
func tookFormerWay(e mta.Entry, ours mta.Domains, sockets []string) bool {
	for _, r := range e.Recipients {
		former := strings.Contains(r.Reason, "deferred transport")
		for _, socket := range sockets {
			former = former || strings.Contains(r.Reason, "["+socket+"]")
		}
		if former && ours.Has(r.Address) {
			return true
		}
	}
	return false
}
