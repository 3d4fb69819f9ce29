package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"mailbag/cmd/internal/mta"
	"mailbag/cmd/internal/settings"
	"mailbag/turnd/release"
	"mailbag/turnd/turn"
)

// A neighbour is the MTA beside which we run, as far as turns need to know it. Where it is not installed, or
// while its configuration is broken, it is one with the usual ports.
type neighbour struct {
	mta mta.System
	log *slog.Logger
	own []uint16 // ports on which we listen ourselves

	mu       sync.Mutex
	read     time.Time
	identity mta.Identity
}

// identityAge is how long what was read of the MTA is believed.
const identityAge = time.Minute

// usualIdentity is that of an MTA that cannot be asked.
var usualIdentity = mta.Identity{Ports: []uint16{25, 465, 587}}

// current is what the MTA is now.
func (m *neighbour) current(ctx context.Context) mta.Identity {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.read.IsZero() && time.Since(m.read) < identityAge {
		return m.identity
	}
	id, err := m.mta.Identity(ctx)
	switch {
	case err == nil:
		m.identity = id
	case m.read.IsZero():
		m.identity = usualIdentity
		if !errors.Is(err, mta.ErrMissing) {
			m.log.Warn("who the MTA is cannot be seen; it is taken for a usual one", "mta", m.mta.Words().Name, "error", err)
		}
	}
	m.read = time.Now()
	return m.identity
}

// releaser is how held mail is released, by the setting turn.release.
func (m *neighbour) releaser(setting string) (turn.Releaser, error) {
	if setting == settings.ByMTA {
		return m.mta, nil
	}
	return release.ParseCommand(setting)
}

// missing is how it is seen what the queue has, where that can be seen. The queue of an MTA that is not wired, as the one of
// another configuration, tells nothing.
func (m *neighbour) missing(setting string) func(context.Context, []string) ([]string, error) {
	if setting != settings.ByMTA {
		return nil
	}
	return func(ctx context.Context, ids []string) ([]string, error) {
		if !m.current(ctx).Holds {
			w := m.mta.Words()
			return nil, fmt.Errorf("the %s of this machine's default configuration does not hold mail for mailbag (mailbag %s check)", w.Name, w.Command)
		}
		return m.mta.Missing(ctx, ids)
	}
}

// A trial tries what turns do with the MTA, without touching a message. It is control's MTA.
type trial struct {
	mta     mta.System
	setting string // turn.release
}

// Try does nothing where a command releases: that would fail at a message that is not there.
func (t trial) Try(ctx context.Context) error {
	if t.setting != settings.ByMTA {
		return nil
	}
	return t.mta.Try(ctx)
}

// askTime bounds what is asked of the MTA when a turn is dialled.
const askTime = 10 * time.Second

// isSelf reports whether an address is the MTA's own, where a turn would bring mail back to the
// queue that it came from.
func (m *neighbour) isSelf(at netip.AddrPort) bool {
	ctx, cancel := context.WithTimeout(context.Background(), askTime)
	defer cancel()
	id := m.current(ctx)
	if !slices.Contains(id.Ports, at.Port()) && !slices.Contains(m.own, at.Port()) {
		return false
	}
	addr := at.Addr().Unmap()
	return addr.IsLoopback() || addr.IsUnspecified() || slices.Contains(id.Addresses, addr) || isOurs(addr)
}

// isOurs reports whether an interface of this machine has the address.
func isOurs(addr netip.Addr) bool {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	return slices.ContainsFunc(all, func(a net.Addr) bool {
		prefix, err := netip.ParsePrefix(a.String())
		return err == nil && prefix.Addr() == addr.WithZone("")
	})
}

// ports are those of TCP sockets.
func ports(listeners []net.Listener) []uint16 {
	var ports []uint16
	for _, l := range listeners {
		if at, ok := l.Addr().(*net.TCPAddr); ok {
			ports = append(ports, at.AddrPort().Port())
		}
	}
	return ports
}
