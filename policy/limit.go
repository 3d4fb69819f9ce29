package policy

import (
	"context"
	"sync"

	"mailbag/meter"
)

// A limit is where an account's mail is not accepted any more.
type limit struct {
	tariff meter.Tariff
	tiers  int64    // so many must not be exceeded
	above  decision // what is answered above them
}

// limitOf returns the account's limit, nil where it is billed without bound.
func (p *Policy) limitOf(a *meter.Account) *limit {
	others := p.cfg.Limits()
	t := meter.Tariff{Messages: others.Messages, Bytes: others.Bytes, OnLimit: others.OnLimit}.For(a)
	l := &limit{t, t.Bound(), limitDeferred}
	switch {
	case l.tiers == 0:
		return nil
	case t.OnLimit == meter.Reject:
		l.above = limitRejected
	}
	return l
}

// used is what the account used in this month. It is false when that cannot be read.
func (p *Policy) used(ctx context.Context, a *meter.Account) (meter.Usage, bool) {
	used, err := p.cfg.Usage.Usage(ctx, a.ID, meter.MonthOf(p.now(), p.cfg.Location))
	if err == nil {
		return used, true
	}
	if n, ok := p.unrecorded.Allow(); ok {
		p.log.Error("an account's usage cannot be read, its mail is deferred", "account", a.Name, "error", err, "more", n)
	}
	return used, false
}

// withinLimit is dunno while the account is below the limit beyond which it takes no mail.
func (p *Policy) withinLimit(ctx context.Context, a *meter.Account) decision {
	l := p.limitOf(a)
	if l == nil {
		return dunno
	}
	used, ok := p.used(ctx, a)
	switch {
	case !ok:
		return unavailable
	case l.tariff.Reached(used, l.tiers):
		return l.above
	}
	return dunno
}

// A gate keeps messages that are received at the same time from passing a limit together: all of them
// may have been below it at RCPT. The message that crosses a limit is accepted, and no other after it; it is the
// last one in the ledger too, because the bill looks for it there.
type gate struct {
	mu       sync.Mutex
	underway map[int64]meter.Usage // by account: what was let in, and may be in the ledger or not yet
	settled  chan struct{}         // closed and replaced whenever something of it is settled
}

func newGate() *gate {
	return &gate{underway: map[int64]meter.Usage{}, settled: make(chan struct{})}
}

// admit decides over a message at its end. With dunno it is let in, and settle must be called once it is
// in the ledger or given up. It is refused for good only where that is true for all: where there are others among its
// recipients, or an account with room, it is good for them, and sent again, each recipient has an answer of its own.
func (p *Policy) admit(ctx context.Context, accounts []*meter.Account, size int64, others bool) (d decision, settle func()) {
	limited := map[*meter.Account]*limit{}
	for _, a := range accounts {
		if l := p.limitOf(a); l != nil {
			limited[a] = l
		}
	}
	if len(limited) == 0 {
		return dunno, func() {}
	}
	others = others || len(limited) < len(accounts)
	g, this := p.gate, meter.Usage{Messages: 1, Bytes: size}
	for {
		g.mu.Lock()
		d, uncertain := p.passes(ctx, limited, this, others)
		if d != dunno || !uncertain {
			if d == dunno {
				g.add(limited, this)
			}
			g.mu.Unlock()
			return d, func() { g.settle(limited, this) }
		}
		settled := g.settled
		g.mu.Unlock()
		select {
		case <-settled:
		case <-ctx.Done():
			return unavailable, nil
		}
	}
}

// passes decides with the gate locked. It is uncertain when it depends on messages under way, of which
// the ledger has some already, and others never, if they fail.
func (p *Policy) passes(ctx context.Context, limited map[*meter.Account]*limit, this meter.Usage, others bool) (d decision, uncertain bool) {
	rejecting, reached := 0, false
	for a, l := range limited {
		used, ok := p.used(ctx, a)
		if !ok {
			return unavailable, false
		}
		if l.tariff.Reached(used, l.tiers) {
			reached = true
			if l.above == limitRejected {
				rejecting++
			}
			continue
		}
		if more := p.gate.underway[a.ID]; more.Messages > 0 {
			uncertain = uncertain || l.tariff.Reached(sum(used, sum(more, this)), l.tiers)
		}
	}
	switch {
	case reached && !others && rejecting == len(limited):
		return limitRejected, false
	case reached:
		return limitDeferred, false
	}
	return dunno, uncertain
}

func (g *gate) add(limited map[*meter.Account]*limit, u meter.Usage) {
	for a := range limited {
		if with := sum(g.underway[a.ID], u); with.Messages == 0 {
			delete(g.underway, a.ID)
		} else {
			g.underway[a.ID] = with
		}
	}
}

func sum(a, b meter.Usage) meter.Usage {
	return meter.Usage{Messages: a.Messages + b.Messages, Bytes: a.Bytes + b.Bytes}
}

func (g *gate) settle(limited map[*meter.Account]*limit, u meter.Usage) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.add(limited, meter.Usage{Messages: -u.Messages, Bytes: -u.Bytes})
	close(g.settled)
	g.settled = make(chan struct{})
}
