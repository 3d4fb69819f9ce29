package login

import (
	"container/list"
	"context"
	"net/netip"
	"sync"
	"time"

	"mailbag/meter/door"
)

// A Guard slows down who guesses passwords. Its zero value is ready.
//
// Failures are counted for the client's address (IPv6: its /64) and for the log-in that was tried,
// whether or not it exists. After three of them an answer waits, right or wrong, for 1 s, then for twice
// as long each time up to 30 s; each failure is forgotten after a minute. An address that comes to fifty
// failures, or that has eight answers waiting, gets [ErrThrottled] instead. A log-in is never refused for
// what others did to it, only slowed down.
//
// Where a log-in succeeded from an address, this pair is known from then on and counted by itself:
// guesses from elsewhere do not slow down its owner, nor do other people's forgotten passwords in the
// same office.
//
// Clients on this machine may be anybody, behind a proxy or a tunnel: for them only the log-in counts.
//
// 16,384 addresses, log-ins and known pairs are remembered; the ones that were not seen for the longest
// time are forgotten first. Nothing outlives the process.
type Guard struct {
	Now  func() time.Time                                 // nil: time.Now
	Wait func(ctx context.Context, d time.Duration) error // nil: for as long, or until ctx is done

	mu      sync.Mutex
	clients table // by address
	logins  table // by login
	pairs   table // by both: who logged in from there before
}

const (
	freeFailures = 3  // without delay
	maxFailures  = 50 // of an address before it is refused
	mostFailures = 60 // that are counted for an address: ten minutes after the last it may try again
	maxWaiting   = 8  // answers of an address or a known pair
	forgetAfter  = time.Minute
	firstDelay   = time.Second
	longestDelay = 30 * time.Second
	maxEntries   = 16384 // of each kind

	// Those of a log-in are counted no further than to the longest delay, so that it is soon over.
	maxLoginFailures = freeFailures + 5
)

// begin says at once whether a log-in may be tried at all. Its error is [ErrThrottled].
func (g *Guard) begin(addr netip.Addr, login string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	client, isClient := clientOf(addr)
	if !isClient || g.pairs.find(key{client, login}) != nil {
		return nil
	}
	if e := g.clients.find(key{client: client}); e != nil && e.failures(g.now()) >= maxFailures {
		return ErrThrottled
	}
	return nil
}

// end takes what came out and returns when it may be told. Errors are [ErrThrottled], which is told
// instead, and the context's. An empty login stands for none.
func (g *Guard) end(ctx context.Context, addr netip.Addr, login string, right bool) error {
	place, delay, err := g.place(addr, login, right)
	if err != nil {
		return err
	}
	if delay > 0 {
		err = g.wait(ctx, delay)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if place != nil {
		place.waiting--
	}
	if client, isClient := clientOf(addr); right && isClient && err == nil {
		g.pairs.get(key{client, login})
	}
	return err
}

// place counts the result where it belongs, and returns how long it has to wait and in whose queue. The
// delay is that of the failures before this one: a right answer waits as long as a wrong one.
func (g *Guard) place(addr netip.Addr, login string, right bool) (*entry, time.Duration, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	client, isClient := clientOf(addr)
	if isClient {
		if pair := g.pairs.find(key{client, login}); pair != nil {
			delay := pair.delay(now)
			if !right {
				pair.fail(now, maxLoginFailures)
			}
			return pair.queue(delay)
		}
	}
	var delay time.Duration
	if login != "" {
		e := g.logins.get(key{login: login})
		delay = e.delay(now)
		if !right {
			e.fail(now, maxLoginFailures)
		}
	}
	if !isClient {
		return nil, delay, nil
	}
	e := g.clients.get(key{client: client})
	delay = max(delay, e.delay(now))
	tooMany := e.failures(now) >= maxFailures
	if !right {
		e.fail(now, mostFailures)
	}
	if tooMany {
		return nil, 0, ErrThrottled
	}
	return e.queue(delay)
}

// clientOf returns what failures of an address count for, unless it is this machine.
func clientOf(addr netip.Addr) (netip.Prefix, bool) {
	if addr.Unmap().IsLoopback() {
		return netip.Prefix{}, false
	}
	p := door.Network(addr)
	return p, p.IsValid()
}

func (g *Guard) now() time.Time {
	if g.Now != nil {
		return g.Now()
	}
	return time.Now()
}

func (g *Guard) wait(ctx context.Context, d time.Duration) error {
	if g.Wait != nil {
		return g.Wait(ctx, d)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

type key struct {
	client netip.Prefix
	login  string
}

// An entry is what is remembered of a client, a log-in or a pair of both.
type entry struct {
	key     key
	level   float64 // failures that were not forgotten at the time below
	at      time.Time
	waiting int
}

func (e *entry) failures(now time.Time) float64 {
	return max(0, e.level-max(0, float64(now.Sub(e.at)))/float64(forgetAfter))
}

func (e *entry) fail(now time.Time, most float64) {
	e.level, e.at = min(e.failures(now)+1, most), now
}

func (e *entry) delay(now time.Time) time.Duration {
	doublings := int(e.failures(now)) - freeFailures
	if doublings < 0 {
		return 0
	}
	return min(firstDelay<<min(doublings, 10), longestDelay)
}

// queue lets an answer wait at the entry, if there is room.
func (e *entry) queue(delay time.Duration) (*entry, time.Duration, error) {
	if delay > 0 && e.waiting >= maxWaiting {
		return nil, 0, ErrThrottled
	}
	e.waiting++
	return e, delay, nil
}

// A table holds the entries that were used last.
type table struct {
	entries map[key]*list.Element
	recent  list.List // of *entry, the latest first
}

func (t *table) find(k key) *entry {
	element := t.entries[k]
	if element == nil {
		return nil
	}
	t.recent.MoveToFront(element)
	return element.Value.(*entry)
}

func (t *table) get(k key) *entry {
	if e := t.find(k); e != nil {
		return e
	}
	if t.entries == nil {
		t.entries = map[key]*list.Element{}
	}
	if len(t.entries) >= maxEntries {
		last := t.recent.Back()
		delete(t.entries, t.recent.Remove(last).(*entry).key)
	}
	e := &entry{key: k}
	t.entries[k] = t.recent.PushFront(e)
	return e
}
