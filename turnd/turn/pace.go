package turn

import (
	"sync"
	"time"

	"mailbag/turnd/relay"
)

// What a line needs: usualWindow messages are enough where a server is near, and where the line is narrow. Where messages
// take little longer than they took when the line was empty, more of them fit on it.
const (
	usualWindow = 50
	widenBelow  = 1.5                    // times the least time that a message took
	narrowAbove = 2.5                    // likewise
	nearTime    = 5 * time.Millisecond   // under which it is the machines and not the line that take time
	paceEvery   = 100 * time.Millisecond // or as long as a message takes, if that is longer
)

// A pace is how many messages a turn's line needs to be under way.
type pace struct {
	mu      sync.Mutex
	channel *relay.Channel
	size    int
	next    time.Time // when it is looked at again
}

// watch begins anew with another channel, from the size that the last one needed.
func (p *pace) watch(c *relay.Channel) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.channel, p.next = c, time.Time{}
	p.size = max(p.size, usualWindow)
}

// window returns how many messages are to be released at a time.
func (p *pace) window(now time.Time) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.size == 0 {
		p.size = usualWindow
	}
	if p.channel == nil || now.Before(p.next) {
		return p.size
	}
	least, mean := p.channel.Pace()
	switch {
	case mean < nearTime:
		p.size = usualWindow
	case float64(mean) < widenBelow*float64(least):
		p.size = min(maxWindow, p.size+p.size/4)
	case float64(mean) > narrowAbove*float64(least):
		p.size = max(usualWindow, p.size-p.size/8)
	}
	p.next = now.Add(max(paceEvery, mean))
	return p.size
}
