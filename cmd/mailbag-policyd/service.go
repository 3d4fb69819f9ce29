package main

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"mailbag/cmd/internal/daemon"
	"mailbag/cmd/internal/mta"
	"mailbag/cmd/internal/readings"
	"mailbag/cmd/internal/settings"
	"mailbag/cmd/internal/version"
	"mailbag/meter"
	"mailbag/policy"
	"mailbag/policy/routes"
	"mailbag/turnd/control"
)

// A service is one run of the daemon.
type service struct {
	daemon.Ledger
	settings daemon.Settings
	mta      mta.System
	log      *slog.Logger
	metrics  *metrics
	tables   *tables
	doctor   readings.File
}

func newService(now daemon.Settings, system mta.System, log *slog.Logger) *service {
	s := now()
	sockets := routes.Sockets{Turns: s.Turn.Sockets, Deliver: s.POP.Deliver.Address}
	tablesOf := func(d *meter.Directory) []routes.Table { return system.Tables(sockets, d) }
	return &service{settings: now, mta: system, log: log, metrics: newMetrics(now), tables: newTables(s.Policy.Tables, tablesOf, log), doctor: readings.Default}
}

// Serve is the daemon's life, a daemon.Body. What it opens it closes again in the reverse order:
// first the sockets, so that all that was read is answered, then the recorder, then the ledger.
func (d *service) Serve(graceful, immediate context.Context, ready func()) error {
	began := d.settings()
	at := began.Policy
	fronts, err := daemon.OpenFronts(graceful, d.mta.Places().Group, d.log,
		daemon.Front{Name: "policy", Unit: "mailbag-policyd.socket", At: []settings.Address{at.Listen}}, daemon.Front{Name: "milter", Unit: "mailbag-milter.socket", At: []settings.Address{at.Milter}},
		daemon.Front{Name: "metrics", At: []settings.Address{at.Metrics}})
	if err != nil {
		return err
	}
	defer fronts.Close()
	ledger, follower := d.Ledger.Open(began, d.log, d.metrics.registry, func(*meter.Ledger, bool) { d.tables.change() })
	defer d.Ledger.Close()
	d.metrics.showTables(func() bool {
		accounts := follower.Directory()
		return accounts != nil && d.tables.written.Load() == accounts
	})
	d.metrics.showSilent(ledger, func() time.Duration { return d.settings().Notices.Silent })
	recorder := meter.NewRecorder(ledger, d.metrics.committed)
	defer recorder.Close()
	p, err := policy.New(policy.Config{
		Accounts: follower,
		Recorder: recorder,
		Lists:    ledger,
		Usage:    ledger,
		Waiting:  ledger,
		Flusher:  d.mta,
		Turns:    turns{control.NewClient(began.Turn.Control.Address), d.log},
		Limits:   func() policy.Limits { return policy.Limits(d.settings().Limits) },
		Location: began.Billing.Location,
		Logger:   d.log,
		Metrics:  d.metrics.registry,
	})
	if err != nil {
		return err
	}
	defer daemon.ServeMetrics(fronts.Listeners("metrics"), prometheus.Gatherers{d.metrics.registry, d.doctor}, d.log).Close(immediate)

	var all sync.WaitGroup
	defer all.Wait()
	running, stop := context.WithCancel(graceful)
	defer stop()
	draining, drained := context.WithCancel(immediate)
	defer drained()
	all.Go(func() { d.reconcileRepeatedly(running, ledger, follower, recorder) })
	var settling sync.WaitGroup
	settling.Go(func() { d.settle(graceful, draining, recorder, follower) })
	all.Go(func() { d.tables.keep(running, follower.Directory) })
	fronts.Serve("policy", p.ServeRequests)
	fronts.Serve("milter", p.ServeMilter)
	ready()
	for _, ignored := range began.Ignored {
		d.log.Warn("a key of the settings is of no use any more and can be removed: "+ignored, "settings", began.File)
	}
	d.log.Info("started", "version", version.String(), "settings", began.File, "ledger", began.Database)

	failure := fronts.Wait(graceful)
	stop()
	// Without a signal nobody else bounds the stop.
	time.AfterFunc(drainTime, drained)
	if err := p.Shutdown(draining); err != nil {
		d.log.Warn("connections were cut off; the MTA asks again for their messages", "error", err)
	}
	settling.Wait()
	return failure
}

// drainTime is how long a stop waits for what was read to be answered. It is shorter than
// systemd's TimeoutStopSec= (90 s), and long enough for the ledger's busy timeout.
const drainTime = 30 * time.Second

// Status is the line that systemctl status shows.
func (d *service) Status() string {
	status := d.Ledger.Status("the accounts' mail is deferred")
	if err := d.tables.err(); err != nil {
		return fmt.Sprintf("%s; %s does not know changes of accounts: %v", status, d.mta.Words().Name, err)
	}
	return status
}
