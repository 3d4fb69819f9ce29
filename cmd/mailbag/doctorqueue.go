package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"mailbag/cmd/internal/units"
	"mailbag/meter"
)

// examineCustomers names the accounts that have been silent for longest.
func (p *patient) examineCustomers(ctx context.Context) []diagnosis {
	if p.desk == nil || p.settings.Notices.Silent == 0 {
		return nil
	}
	silences, err := p.desk.silences(ctx)
	after := units.FormatDuration(p.settings.Notices.Silent)
	switch {
	case err != nil:
		return []diagnosis{p.ledgerAway(err)}
	case len(silences) == 0:
		return []diagnosis{{Part: "customers", Result: well, Text: "nobody who fetches mail has been away for " + after}}
	}
	var names []string
	for _, s := range silences[:min(len(silences), maxSilentNamed)] {
		name := s.Name + ", who never did"
		if !s.Fetched.IsZero() {
			name = s.Name + ", last on " + p.desk.stamp(s.Fetched)
		}
		names = append(names, name)
	}
	text := fmt.Sprintf("%s %s not asked for mail for %s: %s", accountsOf(len(silences)), verb(int64(len(silences)), "has", "have"), after, strings.Join(names, "; "))
	if more := len(silences) - len(names); more > 0 {
		text += fmt.Sprintf("; and %s more", grouped(int64(more)))
	}
	return []diagnosis{{Part: "customers", Result: doubt, Text: text, Remedy: "see what waits for them, and call them: mailbag account list --silent " + after}}
}

// maxSilentNamed is how many accounts the doctor names that are silent.
const maxSilentNamed = 3

// examineQueue names accounts whose mail waits for so long that it may soon go back to its senders.
func (p *patient) examineQueue(ctx context.Context) []diagnosis {
	if p.desk == nil || p.identity == nil {
		return nil
	}
	waiting := map[int64]meter.Waiting{}
	whole := true
	for e, err := range p.mta.Queue(ctx) {
		if err != nil && ctx.Err() == nil {
			return []diagnosis{{Part: "queue", Result: illness, Text: err.Error(), Remedy: fmt.Sprintf("see that %s runs, and its log", p.words.Name), after: []cause{noMTA}}}
		}
		if whole = err == nil; !whole {
			break
		}
		m := e.Waiting()
		accounts, _ := m.Accounts(p.accounts)
		for _, a := range accounts {
			waiting[a.ID] = add(waiting[a.ID], m)
		}
	}
	return p.tellWaiting(waiting, whole)
}

func (p *patient) tellWaiting(waiting map[int64]meter.Waiting, whole bool) []diagnosis {
	var found []diagnosis
	var messages int64
	var greatest float64
	for a := range p.accounts.Accounts() {
		w := waiting[a.ID]
		if w.Messages == 0 {
			continue
		}
		messages += w.Messages
		age := p.now().Sub(w.Oldest)
		greatest = max(greatest, float64(age)/float64(a.HoldTime()))
		if age > a.HoldTime()/2 {
			found = append(found, diagnosis{Part: "queue", Result: doubt, Text: fmt.Sprintf("%s for %s, the oldest for %s of the %s after which it goes back",
				amountOf(int(w.Messages)), a.Name, units.FormatDuration(age.Truncate(time.Hour)), units.FormatDuration(a.HoldTime())), Remedy: "tell the customer, and see what mailbag turns " + a.Name + " shows"})
		}
	}
	if !whole {
		found = append(found, diagnosis{Part: "queue", Result: doubt, Text: fmt.Sprintf("the queue is too long to be read in %v: %s so far", p.pace.all, amountOf(int(messages))), Remedy: "run: mailbag queue"})
	}
	if found == nil {
		found = []diagnosis{{Part: "queue", Result: well, Text: fmt.Sprintf("%s, none for long", amountOf(int(messages)))}}
	}
	found[0].readings = []reading{{"mailbag_waiting_oldest_ratio", nil, greatest}}
	return found
}
