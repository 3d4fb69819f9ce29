// Command mailbag-policyd stands beside Postfix: it answers its policy requests and lookups, meters
// what it accepts for accounts, and keeps the index of waiting mail in line with its queue.
//
// It starts while the ledger is missing and takes part once it comes. It needs no privileges but to
// read its settings, to write the ledger, and to run postqueue; the sockets are systemd's, or its own
// where it may create them. It reads no message.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"

	"mailbag/cmd/internal/daemon"
	"mailbag/cmd/internal/settings"
	"mailbag/cmd/internal/version"
)

const program = "mailbag-policyd"

// Exit statuses.
const (
	done = iota
	failed
	wrongUsage
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet(program, flag.ContinueOnError)
	flags.SetOutput(stderr)
	config := flags.String("config", "", "settings `FILE` (else "+settings.Environment+" from the environment, else "+settings.DefaultFile+")")
	check := flags.Bool("check", false, "validate the settings and stop")
	level := flags.String("log-level", "info", "log from this `LEVEL` on: debug, info, warn or error")
	showVersion := flags.Bool("version", false, "print the version and stop")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return done
	case err != nil:
		return wrongUsage
	case flags.NArg() > 0:
		fmt.Fprintf(stderr, "%s: unexpected argument %q; see %s --help\n", program, flags.Arg(0), program)
		return wrongUsage
	}
	if *showVersion {
		fmt.Fprintln(stdout, version.Line(program))
		return done
	}
	log, err := daemon.NewLog(stderr, *level)
	if err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", program, err)
		return wrongUsage
	}
	slog.SetDefault(log) // the milter library warns through it
	s, err := settings.Load(*config)
	if err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", program, err)
		return failed
	}
	if *check {
		fmt.Fprintln(stdout, "settings are valid")
		return done
	}
	useOneProcessor()
	d := newService(s, log)
	life := daemon.Life{Log: log, Drain: drainTime, Health: d.health, Status: d.status}
	if err := life.Run(d.serve); err != nil {
		log.Error("mailbag-policyd ends", "error", err)
		return failed
	}
	return done
}

// useOneProcessor has Go code run on one processor at a time, unless GOMAXPROCS says otherwise. That is
// enough for tens of thousands of requests a second, many times what a Postfix asks, and it keeps
// Go's scheduler from waking a thread on every processor for each request: beside a loaded Postfix
// on two cores that takes a twentieth of its rate. The ledger's own work does not count.
func useOneProcessor() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(1)
	}
}
