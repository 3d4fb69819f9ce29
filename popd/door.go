package popd

import (
	"net/netip"
	"sync"
	"time"
)

// A door is where connections of one kind come in: so many at a time, and so many from one address.
type door struct {
	name       string
	most       int
	perAddress int // 0: as many as there is room for
	server     *Server
	told       throttle

	mu        sync.Mutex
	guests    map[guest]netip.Prefix
	addresses map[netip.Prefix]int
}

// A guest is a connection.
type guest interface {
	drain() // ends what may end now
	Close() error
}

// enter lets a connection in, or says that there is no room.
func (d *door) enter(g guest, from netip.Prefix) bool {
	d.mu.Lock()
	full := len(d.guests) >= d.most
	tooMany := d.perAddress > 0 && d.addresses[from] >= d.perAddress
	if full || tooMany {
		d.mu.Unlock()
		d.server.metrics.turnedAway(d.name)
		if n, ok := d.told.allow(); ok {
			limit := d.most
			if !full {
				limit = d.perAddress
			}
			d.server.log.Warn("too many connections, a new one was closed", "socket", d.name, "client", from.Addr(),
				"limit", limit, "more", n)
		}
		return false
	}
	if d.guests == nil {
		d.guests, d.addresses = map[guest]netip.Prefix{}, map[netip.Prefix]int{}
	}
	d.guests[g] = from
	d.addresses[from]++
	d.mu.Unlock()
	d.server.metrics.connections[d.name].Inc()
	return true
}

// leave lets a connection out; the second time does nothing.
func (d *door) leave(g guest) {
	d.mu.Lock()
	defer d.mu.Unlock()
	from, inside := d.guests[g]
	if !inside {
		return
	}
	delete(d.guests, g)
	if d.addresses[from]--; d.addresses[from] == 0 {
		delete(d.addresses, from)
	}
	d.server.metrics.connections[d.name].Dec()
}

// all are the connections that are inside.
func (d *door) all() []guest {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := make([]guest, 0, len(d.guests))
	for g := range d.guests {
		all = append(all, g)
	}
	return all
}

// network is what counts as one address: of IPv6 the /64 that one customer has at least (RFC 6177).
func network(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits) // of the zero Addr it is the zero Prefix
	return p
}

// logInterval is how often one kind of event is logged at most, so that nobody fills the disk.
const logInterval = time.Second

// A throttle lets one log line of a kind through an interval and counts the others.
type throttle struct {
	mu         sync.Mutex
	last       time.Time
	suppressed int
}

// allow reports whether to log now, and how many events were passed over since the last line.
func (t *throttle) allow() (suppressed int, ok bool) {
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
