package daemon

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"

	"mailbag/cmd/internal/host"
	"mailbag/cmd/internal/mta"
	"mailbag/cmd/internal/settings"
	"mailbag/cmd/internal/version"
)

// A Program is a daemon as a command: its flags, its settings file, its log and its life.
type Program struct {
	Name  string
	Drain time.Duration // how long a graceful stop may take; 0: 30 s
	New   func(now Settings, system mta.System, log *slog.Logger) Service
}

// Settings are those in force whenever they are asked for. What they return is not changed by anybody. Of a daemon that runs
// only those keys change that need no restart: where it asks, it takes them.
type Settings func() *settings.Settings

// A Service is one run of a daemon: see [Body] and [Life].
type Service interface {
	Serve(graceful, immediate context.Context, ready func()) error
	Health(ctx context.Context) error
	Status() string
}

// Exit statuses; the last two are those of sysexits(3). After Failed systemd starts the daemon again, as after the 2 of a
// panic; after the last two it does not (ExecStopPost= of the units), for the next start would end in the same way.
const (
	Done          = 0
	Failed        = 1
	WrongUsage    = 64
	Misconfigured = 78
)

// Final says of an error that it lasts until somebody mends its cause: the daemon ends with Misconfigured.
func Final(err error) error { return finalError{err} }

type finalError struct{ error }

func (e finalError) Unwrap() error { return e.error }

// Main executes one command line and returns the exit status.
func (p Program) Main(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet(p.Name, flag.ContinueOnError)
	flags.SetOutput(stderr)
	config := flags.String("config", "", "settings `FILE` (else "+settings.Environment+" from the environment, else "+settings.DefaultFile+")")
	check := flags.Bool("check", false, "validate the settings and stop")
	level := flags.String("log-level", "info", "log from this `LEVEL` on: debug, info, warn or error")
	showVersion := flags.Bool("version", false, "print the version and stop")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return Done
	case err != nil:
		return WrongUsage
	case flags.NArg() > 0:
		fmt.Fprintf(stderr, "%s: unexpected argument %q; see %s --help\n", p.Name, flags.Arg(0), p.Name)
		return WrongUsage
	}
	if *showVersion {
		fmt.Fprintln(stdout, version.Line(p.Name))
		return Done
	}
	log, err := NewLog(stderr, *level)
	if err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", p.Name, err)
		return WrongUsage
	}
	slog.SetDefault(log) // libraries warn through it
	s, system, err := host.Load(*config)
	if err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", p.Name, err)
		showEnd(err)
		return Misconfigured
	}
	if *check {
		fmt.Fprintln(stdout, "settings are valid")
		return Done
	}
	force := newForce(p.Name, *config, s, log)
	service := p.New(force.now, system, log)
	life := Life{Log: log, Drain: p.Drain, Health: service.Health, Reload: force.renew,
		Status: func() string { return service.Status() + force.remark() }}
	if err := life.Run(service.Serve); err != nil {
		showEnd(err)
		if errors.As(err, new(finalError)) {
			log.Error(p.Name+" ends; once this is mended, run: systemctl restart "+p.Name, "error", err)
			return Misconfigured
		}
		log.Error(p.Name+" ends", "error", err)
		return Failed
	}
	return Done
}

// showEnd has systemctl status show why the daemon ended.
func showEnd(err error) {
	sd.SdNotify(false, "STATUS="+oneLine(err)) // the log has it, too
}

func oneLine(err error) string {
	return strings.NewReplacer(":\n", ": ", "\n", "; ").Replace(err.Error())
}

// Main is [Program.Main] on this process's arguments and streams; it does not return.
func Main(p Program) { os.Exit(p.Main(os.Args[1:], os.Stdout, os.Stderr)) }
