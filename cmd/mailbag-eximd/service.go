package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/user"
	"strconv"

	"mailbag/cmd/internal/daemon"
	"mailbag/cmd/internal/exim"
	"mailbag/cmd/internal/settings"
	"mailbag/cmd/internal/version"
)

// served is as whom mailbag's other daemons run, and that user's group.
const served = "mailbag"

// A service is one run of the daemon.
type service struct {
	tables string // the directory of the tables that Exim reads
	log    *slog.Logger
}

// Serve is the daemon's life, a daemon.Body.
func (d *service) Serve(graceful, immediate context.Context, ready func()) error {
	uid, err := userID(served)
	if err != nil {
		return daemon.Final(err)
	}
	fronts, err := daemon.OpenFronts(graceful, served, d.log,
		daemon.Front{Name: "exim", Unit: program + ".socket", At: []settings.Address{{Network: "unix", Address: exim.DefaultSocket}}})
	if err != nil {
		return err
	}
	defer fronts.Close()
	var instance exim.Instance
	if os.Geteuid() == 0 {
		if err := instance.BecomeOwner(graceful); err != nil {
			return err
		}
	}
	server, err := exim.NewServer(instance, d.log, d.tables, uid)
	if err != nil {
		return daemon.Final(err)
	}
	fronts.Serve("exim", server.Serve)
	ready()
	d.log.Info("started", "version", version.String())

	failure := fronts.Wait(graceful)
	// Without a signal nobody else bounds the stop.
	draining, cancel := context.WithTimeout(immediate, drainTime)
	defer cancel()
	if err := server.Shutdown(draining); err != nil {
		d.log.Info("deliveries that were begun go on", "error", err)
	}
	return failure
}

func userID(name string) (uint32, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return 0, fmt.Errorf("the user as whom mailbag's daemons run is not there; install the package again: %w", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("the user %s has the number %q: %w", name, u.Uid, err)
	}
	return uint32(uid), nil
}

// Health has nothing to tell: a restart would heal no Exim.
func (d *service) Health(context.Context) error { return nil }

// Status is the line that systemctl status shows.
func (d *service) Status() string { return "serving the queue of Exim" }
