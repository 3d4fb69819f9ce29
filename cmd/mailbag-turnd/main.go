// Command mailbag-turnd is where customers ask for the mail that the MTA holds for them, and through which it
// is handed over: ATRN (RFC 2645) and ETRN (RFC 1985) on port 366, turns to the hosts of accounts
// that said ETRN to the MTA, and a socket for each open turn, through which the MTA delivers.
//
// # Security
//
// It needs no privileges but to read its settings and the certificate's key, to write the ledger and the
// directory of its sockets, to give these to the group of the MTA, and to reach what releases its mail: Postfix's flush
// service (group postdrop), or for Exim mailbag-eximd. Its port is systemd's, or its own where it may have it. No message is stored.
package main

import (
	"log/slog"
	"time"

	"mailbag/cmd/internal/daemon"
	"mailbag/cmd/internal/mta"
)

const program = "mailbag-turnd"

// drainTime is how long a stop waits for the messages in flight. It is shorter than systemd's
// TimeoutStopSec= (90 s).
const drainTime = 60 * time.Second

func main() { daemon.Main(command) }

var command = daemon.Program{
	Name:  program,
	Drain: drainTime,
	New: func(now daemon.Settings, system mta.System, log *slog.Logger) daemon.Service {
		daemon.UseOneProcessor()
		return newService(now, system, log)
	},
}
