package turn

import (
	"crypto/sha256"
	"fmt"
	"sync"

	"mailbag/turnd/relay"
)

// maxConfirmed bounds what is remembered of all turns, in recipients of messages: some 5 MB.
const maxConfirmed = 50_000

// confirmed is what customers' servers have taken. A message that the MTA brings again, in the same turn or in another,
// because it went away before it heard the answer, is not sent again to those who have it.
type confirmed struct {
	mu       sync.Mutex
	changed  sync.Cond
	underWay map[letterKey]bool
	taken    map[letterKey]bool
	order    []letterKey // taken ones, a ring once it is full
	oldest   int
}

// A letterKey stands for a message and one of its recipients.
type letterKey [sha256.Size]byte

var takenBefore = relay.Reply{Code: 250, Text: "2.0.0 The customer's server has taken it before"}

func newConfirmed() *confirmed {
	c := &confirmed{underWay: map[letterKey]bool{}, taken: map[letterKey]bool{}}
	c.changed.L = &c.mu
	return c
}

// letterKeys are the keys of a message's recipients in an account. The MTA's own Received field tells the message from another that is
// given the same queue ID later: there is a time in it. Without that field, nothing is remembered.
func letterKeys(account int64, id, trace, from string, to []string) []letterKey {
	if id == "" || traceID(trace) != id {
		return nil
	}
	keys := make([]letterKey, len(to))
	for i, path := range to {
		keys[i] = sha256.Sum256(fmt.Append(nil, account, "\n", trace, "\n", from, "\n", path))
	}
	return keys
}

// begin returns a reply for each of n recipients who have the message already, and the zero Reply for the others, whose
// keys are under way until end. It waits for those that are under way already. Keys may be none.
func (c *confirmed) begin(keys []letterKey, n int) []relay.Reply {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.anyUnderWay(keys) {
		c.changed.Wait()
	}
	replies := make([]relay.Reply, n)
	for i, key := range keys {
		if c.taken[key] {
			replies[i] = takenBefore
		} else {
			c.underWay[key] = true
		}
	}
	return replies
}

func (c *confirmed) anyUnderWay(keys []letterKey) bool {
	for _, key := range keys {
		if c.underWay[key] {
			return true
		}
	}
	return false
}

// end remembers for which of the keys the reply says that the message was taken.
func (c *confirmed) end(keys []letterKey, replies []relay.Reply) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, key := range keys {
		delete(c.underWay, key)
		if replies[i].Positive() {
			c.remember(key)
		}
	}
	c.changed.Broadcast()
}

// remember adds a key in place of the oldest. c.mu is held.
func (c *confirmed) remember(key letterKey) {
	switch {
	case c.taken[key]:
		return
	case len(c.order) < maxConfirmed:
		c.order = append(c.order, key)
	default:
		delete(c.taken, c.order[c.oldest])
		c.order[c.oldest] = key
		c.oldest = (c.oldest + 1) % maxConfirmed
	}
	c.taken[key] = true
}
