package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"

	"mailbag/cmd/internal/settings"
)

// A Front is where a daemon listens for one purpose.
type Front struct {
	Name string // as systemd passes it, and as the log and errors have it
	Unit string // systemd's that passes it; empty: none does
	At   []settings.Address
}

// Fronts are the open sockets of a daemon, by the names of its fronts, and who serves them.
type Fronts struct {
	log       *slog.Logger
	listeners map[string][]net.Listener
	broken    chan error
	serving   sync.WaitGroup
}

// OpenFronts opens all sockets, or none. Those that systemd passed under a front's name take the place of its
// addresses. The group of the MTA may connect to unix sockets.
func OpenFronts(ctx context.Context, group string, log *slog.Logger, fronts ...Front) (*Fronts, error) {
	from, err := PassedSockets(group, log)
	if err != nil {
		return nil, err
	}
	f := &Fronts{log: log, listeners: map[string][]net.Listener{}}
	open := 0
	for _, front := range fronts {
		listeners, err := from.Listen(ctx, front)
		if err != nil {
			f.Close()
			return nil, err
		}
		f.listeners[front.Name] = listeners
		open += len(listeners)
	}
	f.broken = make(chan error, open)
	from.CloseUnused()
	return f, nil
}

// Listeners are the sockets of a front.
func (f *Fronts) Listeners(name string) []net.Listener { return f.listeners[name] }

// Serve begins to serve the sockets of a front, each in a goroutine of its own. serve returns nil when it
// was told to end.
func (f *Fronts) Serve(name string, serve func(net.Listener) error) {
	for _, l := range f.listeners[name] {
		f.log.Info("listening", "socket", name, "address", l.Addr().String())
		f.serving.Go(func() {
			if err := serve(l); err != nil {
				f.broken <- fmt.Errorf("the %s socket cannot be served any longer: %w", name, err)
			}
		})
	}
}

// Wait returns nil when ctx is done, or the error of a front that cannot be served any longer.
func (f *Fronts) Wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-f.broken:
		return err
	}
}

// Close closes the sockets and waits for all who serve them.
func (f *Fronts) Close() {
	for _, listeners := range f.listeners {
		for _, l := range listeners {
			l.Close() // it may be closed already
		}
	}
	f.serving.Wait()
}
