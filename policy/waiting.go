package policy

import (
	"context"
	"sync"
	"time"

	"mailbag/meter"
)

// A backlog is how much waits for an account that has a bound of it. It is counted seldom: what is let in since is added,
// so that it is too high at most, and is counted anew before anything is refused for it; but no sooner than after
// recountShare times what the counting took, a hundredth of the time, or recountSoonest. Once in recountLatest it is
// counted anyway, because mail comes by other ways too.
//
// Of an account whose mail is relayed the last pass over the queue is all that is known. What is let in is not added:
// most of it does not wait.
type backlog struct {
	mu       sync.Mutex
	waits    meter.Usage
	underway meter.Usage // let in, and in the ledger or not yet
	counted  time.Time
	took     time.Duration
	failed   time.Time // when it could last not be counted
}

const (
	recountShare   = 100
	recountSoonest = time.Second
	recountLatest  = time.Minute
)

// mayWait lets in what one more of a size has to wait for all of the accounts, or nothing where for one of them as much
// waits as may: the message that crosses a bound of octets is let in, and none after it. settle must be called
// once it is in the ledger or given up.
func (p *Policy) mayWait(ctx context.Context, accounts []*meter.Account, size int64) (d decision, settle func()) {
	this := meter.Usage{Messages: 1, Bytes: size}
	var entered []*backlog
	settle = func() {
		for _, b := range entered {
			b.settle(this)
		}
	}
	for _, a := range accounts {
		if !bounded(a) {
			continue
		}
		b, d := p.enter(ctx, a, this)
		if d != dunno {
			settle()
			return d, nil
		}
		entered = append(entered, b)
	}
	return dunno, settle
}

// withinBound is dunno while less waits for the account than may.
func (p *Policy) withinBound(ctx context.Context, a *meter.Account) decision {
	if !bounded(a) {
		return dunno
	}
	_, d := p.enter(ctx, a, meter.Usage{})
	return d
}

// bounded reports whether there is a bound of what may wait for the account. Of a pop3 account only what is not put into
// its mailboxes waits, for which there is the quota.
func bounded(a *meter.Account) bool {
	t := a.InForce()
	return a.Mode != meter.POP3 && (t.WaitingMessages > 0 || t.WaitingBytes > 0)
}

// enter adds to what waits for the account, unless as much waits as may.
func (p *Policy) enter(ctx context.Context, a *meter.Account, this meter.Usage) (*backlog, decision) {
	kept, found := p.backlogs.Load(a.ID)
	if !found {
		kept, _ = p.backlogs.LoadOrStore(a.ID, new(backlog))
	}
	b := kept.(*backlog)
	asked := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failed.After(asked) { // while others waited, one after another
		return b, unavailable
	}
	full := func() bool { return a.InForce().Full(b.waits.Messages, b.waits.Bytes) }
	pause := recountLatest
	if !a.Held() || full() {
		pause = recountSoonest
	}
	if now := p.now(); b.counted.IsZero() || now.Sub(b.counted) >= max(pause, recountShare*b.took) {
		w, err := p.waitingFor(ctx, a)
		if err != nil {
			b.failed = time.Now()
			if n, ok := p.unrecorded.Allow(); ok {
				p.log.Error("what waits for an account cannot be counted, its mail is deferred", "account", a.Name, "error", err, "more", n)
			}
			return b, unavailable
		}
		b.waits = meter.Usage{Messages: w.Messages, Bytes: w.Bytes}
		if a.Held() {
			b.waits = sum(b.waits, b.underway)
		}
		b.counted, b.took = now, p.now().Sub(now)
	}
	if full() {
		return b, waitsTooMuch
	}
	if a.Held() {
		b.waits = sum(b.waits, this)
	}
	b.underway = sum(b.underway, this)
	return b, dunno
}

func (p *Policy) waitingFor(ctx context.Context, a *meter.Account) (meter.Waiting, error) {
	if a.Held() {
		return p.cfg.Waiting.Waiting(ctx, a.ID)
	}
	return p.cfg.Waiting.Queued(ctx, a.ID)
}

func (b *backlog) settle(this meter.Usage) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.underway = sum(b.underway, meter.Usage{Messages: -this.Messages, Bytes: -this.Bytes})
}

func sum(a, b meter.Usage) meter.Usage {
	return meter.Usage{Messages: a.Messages + b.Messages, Bytes: a.Bytes + b.Bytes}
}
