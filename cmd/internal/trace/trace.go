// Package trace finds in an MTA's logs what became of messages.
//
// It reads the logs twice: for the queue IDs of the messages that are asked for, then for all that is said under these. So
// what it keeps is bounded by how many messages it is to tell of, whatever the logs have, and lines that tell of none of them are
// looked at as octets only. How lines are read is the MTA's part ([mta.Log]).
//
// Security: lines are what strangers have written a part of. None is longer than [maxLine] to it, one that cannot be read is
// passed over, and what it returns of them has still to be made visible where a terminal shows it.
package trace

import (
	"context"
	"slices"
	"time"

	"mailbag/cmd/internal/mta"
)

// Bounds of what is kept.
const (
	maxFound  = 500_000 // queue IDs that fit a part of what is asked for
	maxEvents = 2_000   // of one message, without those that are like the one before
)

// lookback is how long before what is asked for a message may have come that is told of from its arrival on.
const lookback = 7 * 24 * time.Hour

// A Search is what to tell of, and where to look.
type Search struct {
	Log     mta.Log
	Sources []Source // what was written first comes first
	Query   Query
	Limit   int // messages, the latest ones

	// Queued are messages of the queue that the query fits, by their queue IDs: the log of an MTA need not name the
	// recipients of a message before it delivers it.
	Queued map[string]bool

	// Progress is told how much of all there is to read was read, in octets; nil: nobody is.
	Progress func(read int64)

	read int64
}

// Found is what a search found.
type Found struct {
	Messages []*Message // in the order of their arrival
	More     bool       // there are earlier ones
	Skipped  int64      // lines that are too long
}

// A Message is one that came, or was refused before it had a queue ID.
type Message struct {
	Instance  string
	ID        string
	Events    []Event // in the order of the log
	Truncated bool    // there are more

	fits bits
	gone bool
}

// An Event is one that may have come several times in succession.
type Event struct {
	mta.Event
	Times int       // at least 1
	Last  time.Time // of them
}

// Run searches. Errors are those of reading, of ctx, and nothing else.
func (s *Search) Run(ctx context.Context) (*Found, error) {
	criteria := s.Query.criteria()
	first := finder{search: s, criteria: criteria, ids: map[string]*hit{}}
	for id := range s.Queued {
		first.note(id, all(criteria))
	}
	if id := s.Query.queueID(); id != "" {
		first.note(id, all(criteria))
	}
	found := &Found{}
	if len(criteria) > 0 {
		if err := first.run(ctx, found); err != nil {
			return nil, err
		}
	}
	wanted := first.wanted()
	second := collector{search: s, criteria: criteria, wanted: wanted, open: map[string]*Message{}}
	if len(wanted) > 0 {
		if err := second.run(ctx, found); err != nil {
			return nil, err
		}
	}
	found.Messages = slices.DeleteFunc(append(second.messages, first.refusals()...), func(m *Message) bool { return !s.shows(m, all(criteria)) })
	slices.SortStableFunc(found.Messages, func(a, b *Message) int { return a.Came().Compare(b.Came()) })
	if n := len(found.Messages); n > s.Limit {
		found.Messages = found.Messages[n-s.Limit:]
		found.More = true
	}
	found.More = found.More || first.more
	return found, nil
}

// shows reports whether a message is one that is asked for: another may have had its queue ID before or after it.
func (s *Search) shows(m *Message, want bits) bool {
	if m.ID != "" && (s.Queued[m.ID] || m.ID == s.Query.queueID()) {
		return s.Query.within(m)
	}
	return m.fits == want && s.Query.within(m)
}

// Came is when the message is first told of.
func (m *Message) Came() time.Time {
	if len(m.Events) == 0 {
		return time.Time{}
	}
	return m.Events[0].At
}

// Over reports whether the message is gone from the queue.
func (m *Message) Over() bool { return m.gone }

// add takes what happened next.
func (m *Message) add(e mta.Event) {
	// The same is said of each recipient in turn, attempt after attempt.
	for i := len(m.Events) - 1; i >= 0 && repeats(e.Kind); i-- {
		last := &m.Events[i]
		if last.Recipient != e.Recipient {
			continue
		}
		like := last.Event
		like.At = e.At
		if like != e {
			break
		}
		last.Times++
		last.Last = e.At
		return
	}
	if len(m.Events) >= maxEvents {
		m.Truncated = true
		return
	}
	m.Events = append(m.Events, Event{e, 1, e.At})
}

func repeats(k mta.EventKind) bool { return k == mta.Deferred || k == mta.Refused || k == mta.Came }
