package door

import (
	"container/list"
	"maps"
	"net/netip"
	"slices"
	"time"

	"mailbag/meter"
)

// A crowd is who is inside.
type crowd struct {
	stays   map[Guest]*stay
	from    map[netip.Prefix]int
	unknown list.List // guests that have not settled in, those who came first in front
	leaving int       // guests that had to make room and are not gone yet
}

type stay struct {
	networks []netip.Prefix
	began    time.Time
	unknown  *list.Element // nil: it has settled in
	leaving  bool
}

func newCrowd() crowd { return crowd{stays: map[Guest]*stay{}, from: map[netip.Prefix]int{}} }

// enter lets a guest in, which has to leave; a late one also when Shutdown has begun. Otherwise the error is ErrClosing,
// ErrFull or ErrCrowded.
func (d *Door) enter(g Guest, client netip.Addr, late bool) error {
	networks := meter.Networks(client)
	d.mu.Lock()
	limit, err := 0, ErrClosing
	if late || !d.Closing() {
		limit, err = d.room(networks)
	}
	var evicted Guest
	if err == ErrFull {
		if evicted = d.evict(); evicted != nil {
			err = nil
		}
	}
	if err == nil {
		s := &stay{networks: networks, began: time.Now()}
		s.unknown = d.inside.unknown.PushBack(g)
		d.inside.stays[g] = s
		for _, n := range networks {
			d.inside.from[n]++
		}
		d.wait.Add(1)
	}
	d.mu.Unlock()
	if err == nil {
		d.cfg.Inside.Inc()
	}
	switch {
	case evicted != nil:
		evicted.Close()
		d.refused("too many connections, one that had not logged in was closed for a new one", client, limit)
	case limit > 0:
		d.refused("too many connections, a new one was closed", client, limit)
	}
	return err
}

// room says why there is none, and which limit is reached.
func (d *Door) room(networks []netip.Prefix) (limit int, err error) {
	for i, n := range networks {
		if limit := d.cfg.PerNetwork << i; limit > 0 && d.inside.from[n] >= limit {
			return limit, ErrCrowded
		}
	}
	if len(d.inside.stays)-d.inside.leaving >= d.cfg.Most {
		return d.cfg.Most, ErrFull
	}
	return 0, nil
}

// evict returns a guest that makes room: of those that have not settled in the one that came first, if it has had time. Its
// place is free now.
func (d *Door) evict() Guest {
	first := d.inside.unknown.Front()
	if first == nil || d.cfg.Grace == 0 {
		return nil
	}
	g := first.Value.(Guest)
	s := d.inside.stays[g]
	if time.Since(s.began) < d.cfg.Grace {
		return nil
	}
	d.inside.settle(s)
	s.leaving = true
	d.inside.leaving++
	return g
}

func (d *Door) refused(message string, client netip.Addr, limit int) {
	d.cfg.Refused.Inc()
	if n, ok := d.told.Allow(); ok {
		d.cfg.Logger.Warn(message, "socket", d.cfg.Socket, "client", client, "limit", limit, "more", n)
	}
}

// Settle says that a guest has logged in, and so keeps its place.
func (d *Door) Settle(g Guest) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.inside.stays[g]; s != nil {
		d.inside.settle(s)
	}
}

func (c *crowd) settle(s *stay) {
	if s.unknown != nil {
		c.unknown.Remove(s.unknown)
		s.unknown = nil
	}
}

// leave is the end of a guest's stay.
func (d *Door) leave(g Guest) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.inside.stays[g]
	delete(d.inside.stays, g)
	d.inside.settle(s)
	if s.leaving {
		d.inside.leaving--
	}
	for _, n := range s.networks {
		if d.inside.from[n]--; d.inside.from[n] == 0 {
			delete(d.inside.from, n)
		}
	}
	d.cfg.Inside.Dec()
	d.wait.Done()
}

// Guests are the connections that are inside.
func (d *Door) Guests() []Guest {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Collect(maps.Keys(d.inside.stays))
}
