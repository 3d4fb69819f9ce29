package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"mailbag/cmd/internal/settings"
	"mailbag/meter"
)

// A Ledger is the ledger as a daemon has it: it may be away when the daemon starts, and later. The zero value is that
// of a daemon that has not started.
type Ledger struct {
	ledger   *meter.Ledger
	follower atomic.Pointer[meter.Follower]
}

var errStalled = errors.New("the ledger is not followed any longer")

// Open begins to follow the accounts, and shows in the metrics how that goes. Unless it is nil, changed is called when they
// have been read for the first time, and after each change; the accounts are not followed meanwhile.
func (l *Ledger) Open(s *settings.Settings, log *slog.Logger, metrics prometheus.Registerer, changed func(l *meter.Ledger, first bool)) (*meter.Ledger, *meter.Follower) {
	opt := s.Ledger()
	opt.Logger = log
	l.ledger = meter.New(s.Database, opt)
	f := meter.Follow(context.Background(), l.ledger, log, func(old, _ *meter.Directory) {
		if changed != nil {
			changed(l.ledger, old == nil)
		}
	})
	l.follower.Store(f)
	metrics.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "mailbag_ledger_available", Help: "1 while the ledger can be written, else 0."}, func() float64 {
			if f.Available() != nil {
				return 0
			}
			return 1
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "mailbag_accounts", Help: "Accounts in force."}, func() float64 { return float64(accounts(f)) }),
	)
	return l.ledger, f
}

// Close ends what Open began.
func (l *Ledger) Close() {
	l.follower.Load().Close()
	l.ledger.Close()
}

// accounts is how many are in force: none before the ledger was first read.
func accounts(f *meter.Follower) int {
	if d := f.Directory(); d != nil {
		return d.Len()
	}
	return 0
}

// Health tells of what a restart heals; a ledger that is away is not among it. It is that of a [Service].
func (l *Ledger) Health(context.Context) error {
	if f := l.follower.Load(); f != nil && !f.Alive() {
		return errStalled
	}
	return nil
}

// Status is the line for a [Service]; away is what not having the ledger means to its users.
func (l *Ledger) Status(away string) string {
	f := l.follower.Load()
	if f == nil {
		return "starting"
	}
	if err := f.Available(); err != nil {
		return fmt.Sprintf("%s: %v", away, err)
	}
	return fmt.Sprintf("serving %d accounts", accounts(f))
}
