package main

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"mailbag/cmd/internal/daemon"
	"mailbag/cmd/internal/mta"
	"mailbag/cmd/internal/settings"
	"mailbag/cmd/internal/version"
	"mailbag/meter"
	"mailbag/meter/login"
	"mailbag/popd"
)

// A service is one run of the daemon.
type service struct {
	daemon.Ledger
	settings daemon.Settings
	mta      mta.System
	log      *slog.Logger
	metrics  *prometheus.Registry
}

func newService(now daemon.Settings, system mta.System, log *slog.Logger) *service {
	return &service{settings: now, mta: system, log: log, metrics: daemon.NewRegistry(program, now)}
}

// Serve is the daemon's life, a daemon.Body. What it opens it closes again in the reverse order: first the sockets, so
// that sessions come to their end, then the ledger, which has to have their records.
func (d *service) Serve(graceful, immediate context.Context, ready func()) error {
	at := d.settings().POP
	fronts, err := daemon.OpenFronts(graceful, d.mta.Places().Group, d.log,
		daemon.Front{Name: "pop3", Unit: "mailbag-pop3.socket", At: at.Listen}, daemon.Front{Name: "pop3s", Unit: "mailbag-pop3s.socket", At: at.ListenTLS},
		daemon.Front{Name: "deliver", Unit: "mailbag-deliver.socket", At: []settings.Address{at.Deliver}}, daemon.Front{Name: "metrics", At: []settings.Address{at.Metrics}})
	if err != nil {
		return err
	}
	defer fronts.Close()
	hostname, err := daemon.Hostname(graceful, d.settings().Hostname, d.mta)
	if err != nil {
		return err
	}
	ledger, follower := d.Ledger.Open(d.settings(), d.log, d.metrics, nil)
	defer d.Ledger.Close()
	store := popd.NewStore(d.settings().POP.Maildirs, time.Now)
	server, err := d.newServer(ledger, follower, store, hostname)
	if err != nil {
		return err
	}
	defer daemon.ServeMetrics(fronts.Listeners("metrics"), d.metrics, d.log).Close(immediate)

	var sweeping sync.WaitGroup
	defer sweeping.Wait()
	running, stop := context.WithCancel(graceful)
	defer stop()
	sweeping.Go(func() { d.sweepRepeatedly(running, store) })
	fronts.Serve("pop3", server.ServePOP3)
	fronts.Serve("pop3s", server.ServePOP3S)
	fronts.Serve("deliver", server.ServeDeliveries)
	ready()
	d.log.Info("started", "version", version.String(), "settings", d.settings().File, "ledger", d.settings().Database,
		"maildirs", d.settings().POP.Maildirs, "hostname", hostname)

	failure := fronts.Wait(graceful)
	stop()
	// Without a signal nobody else bounds the stop.
	draining, cancel := context.WithTimeout(immediate, drainTime)
	defer cancel()
	if err := server.Shutdown(draining); err != nil {
		d.log.Warn("sessions were cut off; nothing was deleted in them, and the MTA delivers again what was not answered", "error", err)
	}
	return failure
}

func (d *service) newServer(ledger *meter.Ledger, follower *meter.Follower, store *popd.Store, hostname string) (*popd.Server, error) {
	logins, err := login.New(login.Config{
		Service:   "popd",
		Hostname:  hostname,
		Accounts:  follower,
		Verifiers: ledger,
		Names:     login.MailboxNames,
		Modes:     []meter.Mode{meter.POP3},
		Admit:     popd.Admit,
		Logger:    d.log,
		Metrics:   d.metrics,
	})
	if err != nil {
		return nil, err
	}
	return popd.New(popd.Config{
		Accounts: follower,
		Logins:   logins,
		Sessions: ledger,
		Store:    store,
		Hostname: hostname,
		TLS:      daemon.NewCertificates(func() settings.TLS { return d.settings().TLS }, d.log).Config,
		Plain:    func() bool { return d.settings().POP.PlainLogin },
		Proxies:  func() []netip.Addr { return d.settings().Proxies },
		Logger:   d.log,
		Metrics:  d.metrics,
	})
}

// sweepEvery is how often files are looked for that deliveries began and gave up.
const sweepEvery = time.Hour

func (d *service) sweepRepeatedly(ctx context.Context, store *popd.Store) {
	for {
		switch n, err := store.Sweep(ctx); {
		case ctx.Err() != nil:
			return
		case err != nil:
			d.log.Warn("files of deliveries that were given up could not be removed", "error", err)
		case n > 0:
			d.log.Info("removed files of deliveries that were given up", "files", n)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(sweepEvery):
		}
	}
}

// Status is the line that systemctl status shows.
func (d *service) Status() string { return d.Ledger.Status("nobody new can log in") }
