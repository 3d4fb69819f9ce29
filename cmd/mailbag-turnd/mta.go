package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"mailbag/cmd/internal/postfix"
	"mailbag/turnd/release"
	"mailbag/turnd/turn"
)

// An mta is the mail system beside which we run, as far as turns need to know it. Without Postfix, or
// while its configuration is broken, it is a mail system with the usual ports.
type mta struct {
	log *slog.Logger
	own []uint16 // ports on which we listen ourselves

	mu       sync.Mutex
	read     time.Time
	identity postfix.Identity
}

// identityAge is how long what was read of Postfix is believed.
const identityAge = time.Minute

// usualIdentity is that of a mail system that cannot be asked.
var usualIdentity = postfix.Identity{QueueDirectory: "/var/spool/postfix", Ports: []uint16{25, 465, 587}}

// current is what the mail system is now.
func (m *mta) current(ctx context.Context) postfix.Identity {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.read.IsZero() && time.Since(m.read) < identityAge {
		return m.identity
	}
	id, err := postfix.Instance{}.Identity(ctx)
	switch {
	case err == nil:
		m.identity = id
	case m.read.IsZero():
		m.identity = usualIdentity
		if !errors.Is(err, postfix.ErrMissing) {
			m.log.Warn("Postfix's configuration cannot be read; it is taken for the usual one", "error", err)
		}
	}
	m.read = time.Now()
	return m.identity
}

// releaser is how held mail is released, by the setting turn.release.
func (m *mta) releaser(ctx context.Context, setting string) (turn.Releaser, error) {
	if setting == "postfix" {
		socket := filepath.Join(m.current(ctx).QueueDirectory, "public", "flush")
		return release.Postfix{Socket: socket, Otherwise: postfix.Instance{}}, nil
	}
	return release.ParseCommand(setting)
}

// errOtherPostfix: the queue that can be listed is not the one from which mail is released.
var errOtherPostfix = errors.New("the Postfix of this machine's default configuration does not hold mail for mailbag (mailbag postfix check)")

// missing is how it is seen what the queue has, where that can be seen. The queue of a Postfix that is not wired tells
// nothing.
func (m *mta) missing(setting string) func(context.Context, []string) ([]string, error) {
	if setting != "postfix" {
		return nil
	}
	return func(ctx context.Context, ids []string) ([]string, error) {
		if !m.current(ctx).Holds {
			return nil, errOtherPostfix
		}
		return postfix.Instance{}.Missing(ctx, ids)
	}
}

// An mtaTrial tries what turns do with the mail system, without touching a message. It is control's MTA.
type mtaTrial struct {
	*mta
	setting string // turn.release
}

// nobodysID is a queue ID that no message has: Postfix's are longer.
const nobodysID = "00000"

// Try lists the beginning of the queue, and releases a message that is not there. A command that releases would fail at
// that, and is not run.
func (m mtaTrial) Try(ctx context.Context) error {
	if m.setting != "postfix" {
		return nil
	}
	for _, err := range (postfix.Instance{}).Queue(ctx) {
		if err != nil {
			return err
		}
		break
	}
	releaser, err := m.releaser(ctx, m.setting)
	if err != nil {
		return err
	}
	return releaser.Release(ctx, nobodysID)
}

// askTime bounds what is asked of Postfix when a turn is dialled.
const askTime = 10 * time.Second

// isSelf reports whether an address is the mail system's own, where a turn would bring mail back to the
// queue that it came from.
func (m *mta) isSelf(at netip.AddrPort) bool {
	ctx, cancel := context.WithTimeout(context.Background(), askTime)
	defer cancel()
	id := m.current(ctx)
	if !slices.Contains(id.Ports, at.Port()) && !slices.Contains(m.own, at.Port()) {
		return false
	}
	addr := at.Addr().Unmap()
	return addr.IsLoopback() || addr.IsUnspecified() || slices.Contains(id.Proxies, addr) || isOurs(addr)
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
