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
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"mailbag/cmd/internal/daemon"
	"mailbag/cmd/internal/mta"
	"mailbag/cmd/internal/settings"
	"mailbag/cmd/internal/version"
	"mailbag/meter"
	"mailbag/meter/login"
	"mailbag/turnd"
	"mailbag/turnd/control"
	"mailbag/turnd/turn"
)

// A service is one run of the daemon.
type service struct {
	daemon.Ledger
	settings daemon.Settings
	mta      mta.System
	log      *slog.Logger
	metrics  *prometheus.Registry
	turns    atomic.Pointer[turn.Turns] // nil before the start
}

func newService(now daemon.Settings, system mta.System, log *slog.Logger) *service {
	return &service{settings: now, mta: system, log: log, metrics: daemon.NewRegistry(program, now)}
}

// Serve is the daemon's life, a daemon.Body.
func (d *service) Serve(graceful, immediate context.Context, ready func()) error {
	gates := gateDirectory(d.settings().Turn.Sockets)
	if err := gates.prepare(); err != nil {
		return err
	}
	at := d.settings().Turn
	fronts, err := daemon.OpenFronts(graceful, d.mta.Places().Group, d.log,
		daemon.Front{Name: "odmr", Unit: "mailbag-turnd.socket", At: at.Listen}, daemon.Front{Name: "odmrs", Unit: "mailbag-turnd-tls.socket", At: at.ListenTLS},
		daemon.Front{Name: "control", Unit: "mailbag-turnd-control.socket", At: []settings.Address{at.Control}}, daemon.Front{Name: "metrics", At: []settings.Address{at.Metrics}})
	if err != nil {
		return err
	}
	defer fronts.Close()
	// The control socket is ours, so no other instance has turns.
	if err := gates.clean(); err != nil {
		return err
	}
	ledger, follower := d.Ledger.Open(d.settings(), d.log, d.metrics, func(l *meter.Ledger, first bool) {
		if first {
			d.interruptTurns(l)
		}
	})
	defer d.Ledger.Close()

	hostname, err := daemon.Hostname(graceful, d.settings().Hostname, d.mta)
	if err != nil {
		return err
	}
	beside := &neighbour{mta: d.mta, log: d.log, own: ports(slices.Concat(fronts.Listeners("odmr"), fronts.Listeners("odmrs")))}
	turns, err := d.newTurns(beside, gates, ledger, follower, hostname)
	if err != nil {
		return err
	}
	d.turns.Store(turns)
	front, err := d.newFront(ledger, follower, turns, hostname)
	if err != nil {
		return err
	}
	controls := control.New(follower, turns, trial{d.mta, d.settings().Turn.Release}, d.log)
	defer daemon.ServeMetrics(fronts.Listeners("metrics"), d.metrics, d.log).Close(immediate)

	fronts.Serve("odmr", front.Serve)
	fronts.Serve("odmrs", front.ServeTLS)
	fronts.Serve("control", controls.Serve)
	ready()
	d.log.Info("started", "version", version.String(), "settings", d.settings().File, "ledger", d.settings().Database, "hostname", hostname)

	failure := fronts.Wait(graceful)
	// Without a signal nobody else bounds the stop.
	draining, cancel := context.WithTimeout(immediate, drainTime)
	defer cancel()
	if err := shutDown(draining, front.Shutdown, turns.Shutdown, controls.Shutdown); err != nil {
		d.log.Warn("turns or connections were cut off; what was not confirmed stays in the queue", "error", err)
	}
	return failure
}

// shutDown stops all at the same time: who asked for a turn that does not begin any more has to be told.
func shutDown(ctx context.Context, each ...func(context.Context) error) error {
	errs := make([]error, len(each))
	var wait sync.WaitGroup
	for i, stop := range each {
		wait.Go(func() { errs[i] = stop(ctx) })
	}
	wait.Wait()
	return errors.Join(errs...)
}

func (d *service) newTurns(beside *neighbour, gates gateDirectory, ledger *meter.Ledger, follower *meter.Follower, hostname string) (*turn.Turns, error) {
	t := d.settings().Turn
	releaser, err := beside.releaser(t.Release)
	if err != nil {
		return nil, fmt.Errorf("turn.release: %w", err)
	}
	return turn.New(turn.Config{
		Accounts: follower,
		Ledger:   ledger,
		Release:  releaser,
		Missing:  beside.missing(t.Release),
		Listen: func(ctx context.Context, account string) (net.Listener, error) {
			return gates.open(ctx, account, d.mta.Places().Group, d.log)
		},
		Hostname: hostname,
		Self:     beside.isSelf,
		Bounds:   d.bounds,
		Logger:   d.log,
		Metrics:  d.metrics,
	})
}

// bounds are those of turns by the settings of now.
func (d *service) bounds() turn.Bounds {
	t := d.settings().Turn
	return turn.Bounds{Window: t.Window, MaxTurns: t.MaxTurns, FirstWait: t.FirstWait, IdleWait: t.IdleWait}
}

func (d *service) newFront(ledger *meter.Ledger, follower *meter.Follower, turns *turn.Turns, hostname string) (*turnd.Server, error) {
	logins, err := login.New(login.Config{
		Service:   "turnd",
		Hostname:  hostname,
		Accounts:  follower,
		Verifiers: ledger,
		Names:     login.AccountNames,
		Modes:     []meter.Mode{meter.ATRN, meter.ETRN},
		Admit:     turnd.Admit,
		Logger:    d.log,
		Metrics:   d.metrics,
	})
	if err != nil {
		return nil, err
	}
	return turnd.New(turnd.Config{
		Hostname: hostname,
		Accounts: follower,
		Logins:   logins,
		Turns:    turnd.Over(turns),
		TLS:      daemon.NewCertificates(func() settings.TLS { return d.settings().TLS }, d.log).Config,
		Proxies:  func() []netip.Addr { return d.settings().Proxies },
		Logger:   d.log,
		Metrics:  d.metrics,
	})
}

// interruptTurns records of the turns of a process before this one that they ended with it. Those of this one
// have not begun: the directory was not there.
func (d *service) interruptTurns(ledger *meter.Ledger) {
	if err := ledger.InterruptTurns(context.Background()); err != nil {
		d.log.Warn("turns of an earlier run may be shown as if they went on", "error", err)
	}
}

// Status is the line that systemctl status shows.
func (d *service) Status() string {
	ledger, turns := d.Ledger.Status("no more are opened"), d.turns.Load()
	if turns == nil {
		return ledger
	}
	return fmt.Sprintf("%d turns open, %s", len(turns.List()), ledger)
}
