package trace

import (
	"bytes"
	"context"

	"mailbag/cmd/internal/mta"
)

// A collector is the second reading: all that is said of the messages that are wanted.
type collector struct {
	search   *Search
	criteria []criterion
	wanted   map[string]bool
	open     map[string]*Message // the latest of an instance and ID
	messages []*Message
}

// A told is an event with what its line shows.
type told struct {
	mta.Event
	fits bits
}

func (c *collector) run(ctx context.Context, _ *Found) error {
	since := c.search.Query.Since
	if !since.IsZero() {
		since = since.Add(-lookback)
	}
	return scan(ctx, c.search, since, c.read, func(events []told) {
		for _, e := range events {
			c.take(e)
		}
	})
}

func (c *collector) read(b block) (events []told) {
	for line := range b.lines() {
		id := c.search.Log.MessageID(line)
		if len(id) == 0 || !c.wanted[string(id)] {
			continue
		}
		if e, ok := c.search.Log.Event(line, b.now); ok {
			events = append(events, told{e, fitting(c.criteria, e, line)})
			continue
		}
		// What is of no interest to the tale may have the text that was asked for.
		if fits := fitting(c.criteria, mta.Event{}, line); fits != 0 {
			events = append(events, told{mta.Event{ID: string(bytes.Clone(id))}, fits})
		}
	}
	return events
}

// take adds an event to its message. After that is gone from the queue, the ID is another's.
func (c *collector) take(e told) {
	key := e.Instance + " " + e.ID
	m := c.open[key]
	if e.Kind == "" {
		if m != nil {
			m.fits |= e.fits
		}
		return
	}
	if m == nil || m.gone && e.Kind == mta.Came {
		m = &Message{Instance: e.Instance, ID: e.ID}
		c.open[key] = m
		c.messages = append(c.messages, m)
	}
	m.fits |= e.fits
	m.gone = m.gone || e.Kind == mta.Gone || e.Kind == mta.Deleted
	m.add(e.Event)
}
