package door

import (
	"sync"
	"time"
)

// logInterval is how often one kind of event is logged at most, so that a broken or hostile peer
// does not fill the disk.
const logInterval = time.Second

// A Throttle lets one log line of a kind through a second and counts the others. Its zero value works.
type Throttle struct {
	mu         sync.Mutex
	last       time.Time
	suppressed int
}

// Allow reports whether to log now, and how many events were passed over since the last line.
func (t *Throttle) Allow() (suppressed int, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if !t.last.IsZero() && now.Sub(t.last) < logInterval {
		t.suppressed++
		return 0, false
	}
	suppressed, t.suppressed, t.last = t.suppressed, 0, now
	return suppressed, true
}
