package login

import (
	"cmp"
	"container/list"
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"mailbag/meter"
)

// A Guard slows down who guesses passwords. Its zero value is ready.
//
// Failures are counted for the log-in that was tried, whether or not it exists, and for the client's address (IPv6: for
// its /64, and by halves for its /56 and by quarters for its /48, as [meter.Networks] has it). After three of them
// an answer waits, right or wrong, for 1 s, then for twice as long each time, up to 30 s for those of the client and up to 4 s
// for those of the log-in; each failure is forgotten after a minute. A client that comes to fifty failures gets
// [ErrThrottled] instead, and so does one that has eight answers waiting (16 from a /56, 32 from a /48). So an hour has
// 110 guesses for an IPv4 address or a /64, 220 for a /56 and 440 for a /48.
//
// Answers about one log-in wait in one queue of eight: from however many addresses they come, an hour has some 7,200
// guesses at it. Where the queue is full, the client in it that failed most often makes room for one that failed
// less often. So the log-in's owner, who gives the right password at once, is answered within 4 s wherever he comes from, as long
// as those who guess have fewer than two addresses a second from which they have not failed yet.
//
// Where a log-in succeeded from an address, this pair is known from then on and counted by itself:
// guesses from elsewhere do not slow down its owner, nor do other people's forgotten passwords in the
// same office.
//
// 16,384 networks, log-ins and known pairs are remembered; the ones that were not seen for the longest
// time are forgotten first. Nothing outlives the process.
type Guard struct {
	Now  func() time.Time                                 // nil: time.Now
	Wait func(ctx context.Context, d time.Duration) error // nil: for as long, or until ctx is done

	mu      sync.Mutex
	clients table // by network
	logins  table // by login
	pairs   table // by address (IPv6: its /64) and login: who logged in from there before
}

const (
	freeFailures = 3  // without delay
	maxFailures  = 50 // of a network before it is refused
	mostFailures = 60 // that are counted for a network: ten minutes after the last it may try again
	maxWaiting   = 8  // answers of a network, a log-in or a known pair
	forgetAfter  = time.Minute
	firstDelay   = time.Second
	longestDelay = 30 * time.Second
	maxEntries   = 16384 // of each kind

	// Those of a pair and of a log-in are counted hardly further than to the longest delay, so that it is soon over.
	maxPairFailures  = freeFailures + 5
	maxLoginFailures = freeFailures + 3

	longestLoginDelay = 4 * time.Second
)

// begin says at once whether a log-in may be tried at all. Its error is [ErrThrottled].
func (g *Guard) begin(addr netip.Addr, login string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	networks := meter.Networks(addr)
	if g.known(networks, login) != nil {
		return nil
	}
	for _, n := range networks {
		if e := g.clients.find(key{client: n}); e != nil && e.failures(g.now()) >= maxFailures {
			return ErrThrottled
		}
	}
	return nil
}

// known is the entry of who logged in from there before, nil if nobody did.
func (g *Guard) known(networks []netip.Prefix, login string) *entry {
	if networks == nil {
		return nil
	}
	return g.pairs.find(key{networks[0], login})
}

// end takes what came out and returns when it may be told. Errors are [ErrThrottled], which is told
// instead, and the context's. An empty login stands for none.
func (g *Guard) end(ctx context.Context, addr netip.Addr, login string, right bool) error {
	networks := meter.Networks(addr)
	a := &answer{}
	ctx, a.yield = context.WithCancelCause(ctx)
	defer a.yield(nil)
	if err := g.place(a, networks, login, right); err != nil {
		return err
	}
	var err error
	if a.delay > 0 {
		if err = g.wait(ctx, a.delay); ctx.Err() != nil {
			err = context.Cause(ctx)
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	a.leave()
	if right && networks != nil && err == nil {
		g.pairs.get(key{networks[0], login})
	}
	return err
}

// place counts the result where it belongs, and puts the answer into the queues in which it has to wait. The
// delay is that of the failures before this one: a right answer waits as long as a wrong one.
func (g *Guard) place(a *answer, networks []netip.Prefix, login string, right bool) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	if pair := g.known(networks, login); pair != nil {
		a.delay = pair.delay(now, longestDelay)
		if !right {
			pair.fail(now, 1, maxPairFailures)
		}
		return a.queue(pair)
	}
	var queues []*entry
	throttled := false
	for i, n := range networks {
		e := g.clients.get(key{client: n})
		e.room = maxWaiting << i
		a.failures = max(a.failures, e.failures(now))
		a.delay = max(a.delay, e.delay(now, longestDelay))
		throttled = throttled || e.failures(now) >= maxFailures
		if !right {
			e.fail(now, 1/float64(int(1)<<i), mostFailures)
		}
		queues = append(queues, e)
	}
	if login != "" {
		e := g.logins.get(key{login: login})
		a.delay = max(a.delay, e.delay(now, longestLoginDelay))
		if !right {
			e.fail(now, 1, maxLoginFailures)
		}
		queues = append(queues, e)
	}
	if throttled {
		return ErrThrottled
	}
	return a.queue(queues...)
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

// An entry is what is remembered of a network, a log-in, or a pair of an address and a log-in.
type entry struct {
	key     key
	level   float64 // failures that were not forgotten at the time below
	at      time.Time
	room    int // for answers that wait
	waiting []*answer
}

func (e *entry) failures(now time.Time) float64 {
	return max(0, e.level-max(0, float64(now.Sub(e.at)))/float64(forgetAfter))
}

func (e *entry) fail(now time.Time, weight, most float64) {
	e.level, e.at = min(e.failures(now)+weight, most), now
}

func (e *entry) delay(now time.Time, longest time.Duration) time.Duration {
	doublings := int(e.failures(now)) - freeFailures
	if doublings < 0 {
		return 0
	}
	return min(firstDelay<<min(doublings, 10), longest)
}

// worst is the answer that makes room, if any has to.
func (e *entry) worst() *answer {
	return slices.MaxFunc(e.waiting, func(a, b *answer) int { return cmp.Compare(a.failures, b.failures) })
}

// An answer is told when its delay is over, unless another takes its place in a queue.
type answer struct {
	failures float64 // of its client
	delay    time.Duration
	queues   []*entry
	yield    context.CancelCauseFunc
}

// queue has the answer wait, if there is room for it in all of the queues, or can be made.
func (a *answer) queue(queues ...*entry) error {
	if a.delay == 0 {
		return nil
	}
	for _, q := range queues {
		if len(q.waiting) >= q.room && q.worst().failures <= a.failures {
			return ErrThrottled
		}
	}
	for _, q := range queues {
		if len(q.waiting) >= q.room {
			worst := q.worst()
			worst.leave()
			worst.yield(ErrThrottled)
		}
		q.waiting = append(q.waiting, a)
	}
	a.queues = queues
	return nil
}

func (a *answer) leave() {
	for _, q := range a.queues {
		q.waiting = slices.DeleteFunc(q.waiting, func(b *answer) bool { return a == b })
	}
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
	e := &entry{key: k, room: maxWaiting}
	t.entries[k] = t.recent.PushFront(e)
	return e
}
