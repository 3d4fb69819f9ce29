package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"mailbag/cmd/internal/mta"
	"mailbag/meter"
)

// A scope is whose mail a command asks about.
type scope struct {
	what     string // names it in messages
	domains  []string
	accounts []*meter.Account // that have the domains
}

func accountScope(a *meter.Account) scope { return scope{a.Name, a.Domains, []*meter.Account{a}} }

// waitingMail is what the MTA's queue holds for a scope.
type waitingMail struct {
	messages, bytes int64
	own             []string // IDs of messages that nobody else waits for
	shared          int64    // messages that others wait for too
	onHold          int64    // messages that the operator put on hold
	unholds         []string // the commands that take these off hold, before their queue IDs, without repeats
}

func (w waitingMail) unhold() string { return strings.Join(w.unholds, " or ") }

// waiting reads all of the MTA's queue, and where it finds nothing once more: a listing of a queue in motion can miss a
// message that moves just then.
func (d *desk) waiting(ctx context.Context, s scope) (waitingMail, error) {
	w, err := d.look(ctx, s)
	if err == nil && w.messages == 0 {
		return d.look(ctx, s)
	}
	return w, err
}

// look is one look at the queue.
func (d *desk) look(ctx context.Context, s scope) (waitingMail, error) {
	var w waitingMail
	ours := mta.NewDomains(s.domains...)
	for e, err := range d.mta.Queue(ctx) {
		if err != nil {
			return waitingMail{}, err
		}
		n := ours.Count(e)
		if n == 0 {
			continue
		}
		w.messages++
		w.bytes += e.Size
		if n < len(e.Recipients) {
			w.shared++
		} else {
			w.own = append(w.own, e.ID)
		}
		if e.OnHold {
			w.onHold++
			if command := d.mta.Words().Unhold(e); !slices.Contains(w.unholds, command) {
				w.unholds = append(w.unholds, command)
			}
		}
	}
	return w, nil
}

// emptyQueue lets a command go on that takes a scope out of service: it returns nil when no mail
// waits for it, after having returned that mail to its senders where back says so.
func (d *desk) emptyQueue(ctx context.Context, s scope, back bool) error {
	w, err := d.waiting(ctx, s)
	switch {
	case errors.Is(err, mta.ErrMissing):
		return d.emptyIndex(ctx, s)
	case err != nil:
		return fmt.Errorf("nothing was changed, because it cannot be seen whether mail waits for %s: %w", s.what, err)
	case w.messages == 0:
		return nil
	case !back:
		return fmt.Errorf("mail waits for %s (%s), nothing was changed; have it delivered first, or return it to the senders with --return",
			s.what, amount(w.messages, w.bytes))
	}
	return d.returnWaiting(ctx, s)
}

// emptyIndex asks the ledger where no MTA can be asked.
func (d *desk) emptyIndex(ctx context.Context, s scope) error {
	for _, a := range s.accounts {
		w, err := d.ledger.Waiting(ctx, a.ID, s.domains...)
		if err != nil {
			return err
		}
		if w.Messages > 0 {
			name := d.mta.Words().Name
			return fmt.Errorf("mail waits for %s (%s by the ledger; %s, which would know more, is not installed here), nothing was changed; have it delivered first, or run this where %[3]s is",
				a.Name, amount(w.Messages, w.Bytes), name)
		}
	}
	return nil
}

const (
	returnPatience = 2 * time.Minute  // without any message leaving the queue
	returnAgain    = 10 * time.Second // when the MTA is asked once more for those that linger
	returnLook     = 500 * time.Millisecond
)

// returnWaiting returns the scope's mail to its senders and ends when the queue has none of it.
func (d *desk) returnWaiting(ctx context.Context, s scope) error {
	expired := map[string]bool{}
	left, since, asked := int64(-1), time.Now(), time.Time{}
	unchanged := "nothing was changed"
	look := time.NewTicker(returnLook)
	defer look.Stop()
	defer d.endProgress()
	for {
		w, err := d.waiting(ctx, s)
		switch {
		case err != nil:
			return fmt.Errorf("mail for %s is being returned, but the queue cannot be read any more, so nothing else was changed; run this again: %w", s.what, err)
		case w.messages == 0:
			d.say("%s returned to the senders", amountOf(len(expired)))
			return nil
		case w.shared > 0:
			return fmt.Errorf("%s for %s also %s for recipients elsewhere, and a message is returned for all or none, so %s; deliver first",
				amountOf(int(w.shared)), s.what, verb(w.shared, "waits", "wait"), unchanged)
		case w.onHold > 0:
			words := d.mta.Words()
			return fmt.Errorf("%s for %s %s on hold in %s's queue, so %s; %s takes off the hold",
				amountOf(int(w.onHold)), s.what, verb(w.onHold, "is", "are"), words.Name, unchanged, w.unhold())
		}
		var fresh []string
		for _, id := range w.own {
			if !expired[id] {
				expired[id] = true
				fresh = append(fresh, id)
			}
		}
		if time.Since(asked) > returnAgain {
			asked, fresh = time.Now(), w.own
		}
		if err := d.mta.Return(ctx, fresh...); err != nil {
			return fmt.Errorf("mail for %s cannot be returned now, so %s; run this again: %w", s.what, unchanged, err)
		}
		unchanged = "nothing was changed but that some is returned"
		if w.messages != left {
			left, since = w.messages, time.Now()
			d.showProgress("%s still in the queue", amountOf(int(left)))
		} else if time.Since(since) > returnPatience {
			return fmt.Errorf("%s for %s %s in the queue, so nothing else was changed; see that %s runs and what its log says, and run this again",
				amountOf(int(left)), s.what, verb(left, "stays", "stay"), d.mta.Words().Name)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("interrupted; mail for %s goes on being returned, nothing else was changed", s.what)
		case <-look.C:
		}
	}
}
