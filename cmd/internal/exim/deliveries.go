package exim

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"mailbag/cmd/internal/mta"
)

const (
	maxProcesses = 400     // that deliver, for all accounts and destinations
	maxAsked     = 200_000 // messages that wait for their process, or are in the hands of one
)

var errTooMuch = errors.New("too many messages are to be released at a time; those before them are being delivered")

// deliveries are those that were asked for and that go on. An account has a lane of its own, so that one that is slow keeps no others
// waiting, and has no more processes for having more domains. So have accounts that have messages in common: Exim delivers
// to one after the other, and a slow one of them would fill the lanes of all. For mail of others each domain has one.
type deliveries struct {
	in    Instance
	log   *slog.Logger
	whose func(domain string) (account string) // empty: nobody's

	mu      sync.Mutex
	lanes   map[string]*lane
	turn    []*lane          // that have something to do, the next one first
	asked   map[string]stage // by ID
	running int
	closed  bool
	work    sync.WaitGroup
}

// A stage is what becomes of a message.
type stage int

const (
	waits    stage = iota
	delivers       // a process has it
	again          // and once that has ended, it waits once more
)

type lane struct {
	name, queue string
	waiting     []string
	running     int
}

func newDeliveries(in Instance, log *slog.Logger, whose func(domain string) (account string)) *deliveries {
	return &deliveries{in: in, log: log, whose: whose, lanes: map[string]*lane{}, asked: map[string]stage{}}
}

// add takes messages that wait. For one that waits already there is nothing to do; one that a process has got is
// tried once more, as it may have been tried by then.
func (d *deliveries) add(messages []mta.Entry) error {
	names := make([]string, len(messages))
	for i, e := range messages {
		names[i] = queueOf(e) + "/" + d.destination(e)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.asked)+len(messages) > maxAsked {
		return errTooMuch
	}
	for i, e := range messages {
		l := d.lane(names[i], queueOf(e))
		switch at, is := d.asked[e.ID]; {
		case !is:
			d.asked[e.ID] = waits
			l.waiting = append(l.waiting, e.ID)
		case at == delivers:
			d.asked[e.ID] = again
		}
	}
	d.start()
	return nil
}

// lane is the one of a name. d.mu is held.
func (d *deliveries) lane(name, queue string) *lane {
	l := d.lanes[name]
	if l == nil {
		l = &lane{name: name, queue: queue}
		d.lanes[name] = l
		d.turn = append(d.turn, l)
	}
	return l
}

// destination names the accounts that a message waits for, or else the domain of its first recipient.
func (d *deliveries) destination(e mta.Entry) string {
	var accounts []string
	before := ""
	for _, r := range e.Recipients {
		domain := strings.ToLower(domainOf(r.Address))
		if domain == before { // nearly always
			continue
		}
		before = domain
		if account := d.whose(domain); account != "" && !slices.Contains(accounts, account) {
			accounts = append(accounts, account)
		}
	}
	slices.Sort(accounts)
	return cmp.Or(strings.Join(accounts, "+"), "@"+strings.ToLower(domainOf(e.Recipients[0].Address))) // no account's name has either sign
}

// start starts as many processes as there may be, of each lane one after the other. d.mu is held.
func (d *deliveries) start() {
	for idle := 0; idle < len(d.turn) && d.running < maxProcesses && !d.closed; {
		l := d.turn[0]
		d.turn = append(d.turn[1:], l)
		if len(l.waiting) == 0 || l.running == sideBySide {
			idle++
			continue
		}
		idle = 0
		free := sideBySide - l.running
		n := min(max(fewest, (len(l.waiting)+free-1)/free), most, len(l.waiting))
		ids := slices.Clone(l.waiting[:n])
		l.waiting = l.waiting[n:]
		for _, id := range ids {
			d.asked[id] = delivers
		}
		l.running++
		d.running++
		d.work.Go(func() {
			d.deliver(l.queue, ids)
			d.ended(l, ids)
		})
	}
}

func (d *deliveries) deliver(queue string, ids []string) {
	cmd, err := d.in.delivery(queue, ids)
	if err == nil {
		err = cmd.Run()
	}
	if err != nil {
		d.log.Warn("Exim did not deliver messages that it was asked for", "messages", len(ids), "queue", queue, "error", err)
	}
}

// ended notes that a process is done with its messages.
func (d *deliveries) ended(l *lane, ids []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	l.running--
	d.running--
	for _, id := range ids {
		if d.asked[id] == again {
			d.asked[id] = waits
			l.waiting = append(l.waiting, id)
		} else {
			delete(d.asked, id)
		}
	}
	if l.running == 0 && len(l.waiting) == 0 {
		delete(d.lanes, l.name)
		d.turn = slices.DeleteFunc(d.turn, func(other *lane) bool { return other == l })
	}
	d.start()
}

// close starts nothing any more, and waits until ctx is over for what goes on. That is not ended: it is Exim's, and would be delivered twice.
func (d *deliveries) close(ctx context.Context) error {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	done := make(chan struct{})
	go func() {
		d.work.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
