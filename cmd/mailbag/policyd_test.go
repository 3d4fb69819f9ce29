package main

import (
	"context"
	"net"
	"os"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"mailbag/meter"
	"mailbag/policy"
	postfixtest "mailbag/testdata/postfix"
)

// policyd is what mailbag-policyd has behind its sockets, for Postfix to ask. It knows no account.
type policyd struct {
	policy *policy.Policy
	in     *postfixtest.Instance
	ended  []chan error
}

// nobody is a ledger without accounts.
type nobody struct{}

func (nobody) Directory() *meter.Directory { return nil }
func (nobody) Available() error            { return nil }

func newPolicyd(t *testing.T, in *postfixtest.Instance) *policyd {
	t.Helper()
	p, err := policy.New(policy.Config{Accounts: nobody{}, Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	d := &policyd{policy: p, in: in}
	t.Cleanup(func() { d.stop(t) })
	return d
}

// serve begins to answer at one of the sockets.
func (d *policyd) serve(t *testing.T, name string) {
	t.Helper()
	l, err := net.Listen("unix", d.in.Private(name))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(d.in.Private(name), 0o666); err != nil {
		t.Fatal(err)
	}
	serve := map[string]func(net.Listener) error{"mailbag-policy": d.policy.ServeRequests, "mailbag-milter": d.policy.ServeMilter}[name]
	ended := make(chan error, 1)
	go func() { ended <- serve(l) }()
	d.ended = append(d.ended, ended)
}

// stop ends it, and takes its sockets away.
func (d *policyd) stop(t *testing.T) {
	t.Helper()
	if err := d.policy.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	for _, ended := range d.ended {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	d.ended = nil
}
