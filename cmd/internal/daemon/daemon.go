// Package daemon is what mailbag's daemons have in common as processes: their sockets, their life
// from start to stop under systemd, their log and their metrics.
//
// It promises that a daemon that can be told to stop does: gracefully at the first SIGTERM or
// SIGINT, at once at the second or when the time for draining is over. At SIGHUP it reads its settings again and interrupts
// nothing; a file that is mistaken changes nothing. Nothing is remembered between
// two starts, and nothing here knows what a daemon does.
//
// Security: a unix socket in a directory that is open to others is closed to all but the group
// of the MTA. Metrics have no log-in and belong on a loopback address. Nothing of a message is logged.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
)

// A Life is how a daemon is run. Its zero value logs to slog's default and drains for 30 seconds.
type Life struct {
	Log   *slog.Logger
	Drain time.Duration // how long a graceful stop may take; 0: 30 s

	// Health is asked before each watchdog ping; an error withholds the ping, and systemd restarts
	// a daemon that stays ill for WatchdogSec=. It must tell of what a restart heals, not of a
	// ledger that is away. Nil: always well.
	Health func(ctx context.Context) error

	// Status is the line that systemctl status shows, renewed every few seconds. Nil: none.
	Status func() string

	// Reload is called for SIGHUP, once the daemon is ready, and from one goroutine. Nil: the signal does nothing.
	Reload func()
}

// A Body is the daemon itself. It calls ready once it serves, and returns when it has stopped.
// After graceful is done it takes nothing new and finishes what it has begun; after immediate
// is done it drops that too.
type Body func(graceful, immediate context.Context, ready func()) error

// ErrStuck is returned by Run when the body did not return even after it was told to drop everything.
var ErrStuck = errors.New("the daemon did not stop in time")

const (
	defaultDrain   = 30 * time.Second
	statusInterval = 5 * time.Second
	dropTime       = 5 * time.Second // for a body to return after immediate is done
)

// Run runs body until it returns, and returns its error. It tells systemd READY=1, STATUS=, WATCHDOG=1,
// RELOADING=1 and STOPPING=1 (sd_notify(3)) where systemd asks for them.
func (l Life) Run(body Body) error {
	signals, reloads := make(chan os.Signal, 2), make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)
	signal.Notify(reloads, syscall.SIGHUP) // one that comes while another waits is the same
	defer signal.Stop(reloads)
	return l.run(body, signals, reloads)
}

func (l Life) run(body Body, signals, reloads <-chan os.Signal) error {
	if l.Log == nil {
		l.Log = slog.Default()
	}
	if l.Drain == 0 {
		l.Drain = defaultDrain
	}
	graceful, stop := context.WithCancel(context.Background())
	defer stop()
	immediate, drop := context.WithCancel(context.Background())
	defer drop()

	pings := make(chan struct{})
	pinging, stopPinging := context.WithCancel(context.Background())
	defer func() {
		stopPinging()
		<-pings
	}()
	ready := make(chan struct{}, 1)
	go func() {
		defer close(pings)
		l.report(pinging, ready, reloads)
	}()

	done := make(chan error, 1)
	go func() {
		done <- body(graceful, immediate, func() {
			select {
			case ready <- struct{}{}:
			default:
			}
		})
	}()

	select {
	case err := <-done:
		l.notify(sd.SdNotifyStopping)
		return err
	case s := <-signals:
		l.Log.Info("stopping", "signal", s.String(), "drain", l.Drain)
	}
	l.notify(sd.SdNotifyStopping)
	stop()
	patience := time.NewTimer(l.Drain)
	defer patience.Stop()
	select {
	case err := <-done:
		return err
	case s := <-signals:
		l.Log.Warn("stopping at once, because of a second signal", "signal", s.String())
	case <-patience.C:
		l.Log.Warn("stopping at once, because draining took too long", "drain", l.Drain)
	}
	drop()
	last := time.NewTimer(dropTime)
	defer last.Stop()
	select {
	case err := <-done:
		return err
	case <-last.C:
		return fmt.Errorf("%w: it was left %s after it was told to drop everything", ErrStuck, dropTime)
	}
}

// report tells systemd how the daemon is, from ready on until ctx is done, and has it read its settings again meanwhile: a
// reload that is over is a daemon that is ready. One that does not become ready is not pinged for: systemd's
// TimeoutStartSec= is for that.
func (l Life) report(ctx context.Context, ready <-chan struct{}, reloads <-chan os.Signal) {
	select {
	case <-ready:
		l.notify(sd.SdNotifyReady)
	case <-ctx.Done():
		return
	}
	// Half of WatchdogSec= is what sd_watchdog_enabled(3) recommends.
	interval, err := sd.SdWatchdogEnabled(false)
	if err != nil {
		l.Log.Warn("systemd's watchdog is not served; its environment cannot be read", "error", err)
	}
	var watchdog <-chan time.Time
	if err == nil && interval > 0 {
		t := time.NewTicker(interval / 2)
		defer t.Stop()
		watchdog = t.C
		l.ping(ctx, interval)
	}
	status := time.NewTicker(statusInterval)
	defer status.Stop()
	looked := time.Now()
	last := ""
	for {
		if l.Status != nil {
			if now := l.Status(); now != last {
				l.notify("STATUS=" + now)
				last = now
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-watchdog:
			l.ping(ctx, interval)
		case <-reloads:
			l.reload()
		case <-status.C:
			now := time.Now()
			l.watchClock(now.Round(0).Sub(looked.Round(0)) - now.Sub(looked))
			looked = now
		}
	}
}

func (l Life) reload() {
	if l.Reload == nil {
		return
	}
	l.notify(sd.SdNotifyReloading)
	l.Reload()
	l.notify(sd.SdNotifyReady)
}

// slew is what a clock may gain or lose between two looks without having been set.
const slew = time.Second

// watchClock logs that the clock was set: by how much the wall clock went on more than the monotonic one. Nothing depends on
// the clock's going on evenly, but days and months of what is counted go by it.
func (l Life) watchClock(step time.Duration) {
	switch {
	case step < -slew:
		l.Log.Warn("the clock was set back: until it has caught up, mail is counted in the time that the clock says; is NTP in order?", "by", -step.Round(time.Millisecond))
	case step > slew:
		l.Log.Info("the clock was set forward", "by", step.Round(time.Millisecond))
	}
}

func (l Life) ping(ctx context.Context, interval time.Duration) {
	if l.Health != nil {
		asked, cancel := context.WithTimeout(ctx, interval/4)
		defer cancel()
		if err := l.Health(asked); err != nil {
			if ctx.Err() == nil {
				l.Log.Error("not well; systemd restarts this daemon if it lasts", "error", err)
			}
			return
		}
	}
	l.notify(sd.SdNotifyWatchdog)
}

func (l Life) notify(state string) {
	if _, err := sd.SdNotify(false, state); err != nil {
		l.Log.Warn("systemd could not be told how this daemon is", "state", state, "error", err)
	}
}
