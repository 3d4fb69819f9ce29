package main

import (
	"context"
	"log/slog"
	"net"

	"mailbag/cmd/internal/daemon"
	"mailbag/cmd/internal/settings"
)

// sockets are the listeners of one run.
type sockets struct {
	pop3, pop3s, deliver, metrics []net.Listener
}

func (s *sockets) all() []net.Listener {
	var all []net.Listener
	for _, listeners := range [][]net.Listener{s.pop3, s.pop3s, s.deliver, s.metrics} {
		all = append(all, listeners...)
	}
	return all
}

func (s *sockets) close() {
	for _, l := range s.all() {
		l.Close()
	}
}

func listen(ctx context.Context, p settings.POP, log *slog.Logger) (*sockets, error) {
	from, err := daemon.PassedSockets(log)
	if err != nil {
		return nil, err
	}
	s := new(sockets)
	for _, wanted := range []struct {
		name      string
		listeners *[]net.Listener
		at        []settings.Address
	}{
		{"pop3", &s.pop3, p.Listen},
		{"pop3s", &s.pop3s, p.ListenTLS},
		{"deliver", &s.deliver, []settings.Address{p.Deliver}},
		{"metrics", &s.metrics, []settings.Address{p.Metrics}},
	} {
		if *wanted.listeners, err = from.Listen(ctx, wanted.name, wanted.at...); err != nil {
			s.close()
			return nil, err
		}
	}
	from.CloseUnused()
	return s, nil
}
