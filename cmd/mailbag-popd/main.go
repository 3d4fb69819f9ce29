// Command mailbag-popd puts the mail of pop3 accounts into Maildirs, where the MTA delivers it by LMTP, and
// has its owners fetch it by POP3, on ports 110 and 995.
//
// It starts while the ledger is missing and takes part once it comes: until then mail waits in the MTA's queue.
//
// # Security
//
// It needs no privileges but to read its settings and the certificate's key, to write the ledger and the directory
// of the Maildirs, and to give the delivery socket to the group of the MTA. Its ports are systemd's, or its own where
// it may have them. Mail is readable by the user that it runs as alone.
package main

import (
	"log/slog"
	"time"

	"mailbag/cmd/internal/daemon"
	"mailbag/cmd/internal/mta"
)

const program = "mailbag-popd"

// drainTime is how long a stop waits for sessions that go on and messages that are being delivered. It is shorter
// than systemd's TimeoutStopSec= (90 s).
const drainTime = 30 * time.Second

func main() { daemon.Main(command) }

var command = daemon.Program{
	Name:  program,
	Drain: drainTime,
	New: func(now daemon.Settings, system mta.System, log *slog.Logger) daemon.Service {
		return newService(now, system, log)
	},
}
