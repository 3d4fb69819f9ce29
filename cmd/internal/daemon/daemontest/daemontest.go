// Package daemontest runs a daemon's service within a test, as package daemon does in its process.
package daemontest

import (
	"context"
	"fmt"
	"testing"

	"mailbag/cmd/internal/daemon"
	"mailbag/cmd/internal/settings"
	postfixtest "mailbag/testdata/postfix"
)

// Address is one of this machine at which nobody listens.
func Address(t *testing.T) settings.Address {
	t.Helper()
	port, err := postfixtest.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return settings.Address{Network: "tcp4", Address: fmt.Sprintf("127.0.0.1:%d", port)}
}

// Settings are those of a daemon whose file nobody changes.
func Settings(s *settings.Settings) daemon.Settings { return func() *settings.Settings { return s } }

// Start starts a service, which says before that it starts, and waits until it serves. stop has it stop gracefully;
// ended then has what Serve returned.
func Start(t *testing.T, s daemon.Service) (stop func(), ended <-chan error) {
	t.Helper()
	if s.Status() != "starting" {
		t.Errorf("before the start the status is %q", s.Status())
	}
	graceful, stop := context.WithCancel(t.Context())
	t.Cleanup(stop)
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- s.Serve(graceful, t.Context(), func() { close(ready) }) }()
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	return stop, done
}
