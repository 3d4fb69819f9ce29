package policy

import (
	"context"

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

// withinLimit is dunno while the account is below the limit beyond which it takes no mail, as far as is known near: the commit that
// counts a message knows better. Nothing is refused for what is only near.
func (p *Policy) withinLimit(ctx context.Context, a *meter.Account) decision {
	l := p.limitOf(a)
	if l == nil {
		return dunno
	}
	used, err := p.cfg.Usage.NearUsage(ctx, a.ID, meter.MonthOf(p.now(), p.cfg.Location))
	if err == nil && !l.tariff.Reached(used, l.tiers) {
		return dunno
	}
	return p.atLimit(ctx, a, l)
}

// atLimit is what is answered above a limit, if the account has reached it.
func (p *Policy) atLimit(ctx context.Context, a *meter.Account, l *limit) decision {
	used, ok := p.used(ctx, a)
	switch {
	case !ok:
		return unavailable
	case l.tariff.Reached(used, l.tiers):
		return l.above
	}
	return dunno
}

// limitsOf are those of the accounts that have one.
func (p *Policy) limitsOf(accounts []*meter.Account) map[int64]meter.Usage {
	var limits map[int64]meter.Usage
	for _, a := range accounts {
		if l := p.limitOf(a); l != nil {
			if limits == nil {
				limits = map[int64]meter.Usage{}
			}
			limits[a.ID] = l.tariff.Full(l.tiers)
		}
	}
	return limits
}

// aboveLimit is what is answered to a message that was not counted because an account is at its limit. It is refused for good
// only where that is true for all: where there are others among its recipients, or an account with room, it is good for
// them, and sent again, each recipient has an answer of its own.
func (p *Policy) aboveLimit(accounts []*meter.Account, others bool) decision {
	if others {
		return limitDeferred
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, a := range accounts {
		l := p.limitOf(a)
		if l == nil {
			return limitDeferred
		}
		switch d := p.atLimit(ctx, a, l); d {
		case limitRejected:
		case unavailable:
			return d
		default:
			return limitDeferred
		}
	}
	return limitRejected
}
