// Command mailbag-policyd stands beside the MTA: it answers its policy requests, meters what it
// accepts for accounts, writes the tables by which it knows their domains, and keeps the index of waiting mail in line with its queue.
//
// It starts while the ledger is missing and takes part once it comes. It needs no privileges but to
// read its settings, to write the ledger and the tables, and to have the MTA list its queue; the sockets are systemd's, or its own
// where it may create them. It reads no message.
package main

import (
	"log/slog"
	"runtime/debug"

	"mailbag/cmd/internal/daemon"
	"mailbag/cmd/internal/mta"
)

const program = "mailbag-policyd"

func main() { daemon.Main(command) }

var command = daemon.Program{
	Name:  program,
	Drain: drainTime,
	New: func(now daemon.Settings, system mta.System, log *slog.Logger) daemon.Service {
		daemon.UseOneProcessor()
		debug.SetGCPercent(50) // most of the heap are accounts, which stay: garbage need not take as much again
		return newService(now, system, log)
	},
}
