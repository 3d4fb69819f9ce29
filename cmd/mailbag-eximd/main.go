// Command mailbag-eximd does for mailbag's other daemons what takes privileges with Exim: it lists the queue, delivers, returns
// and moves messages. It is for hosts whose MTA is Exim.
//
// # Security
//
// It starts as root and becomes Exim's own user, who may do with the queue what root may, by Exim's setuid bit: its unit
// cannot have NoNewPrivileges=. It takes a verb and queue IDs, each checked to the letter, from root and the user mailbag, at a
// socket that only they reach. No shell is involved, and no address or name goes from a client to Exim. Requests,
// their IDs, connections and times are bounded. Addresses are not logged.
package main

import (
	"log/slog"
	"time"

	"mailbag/cmd/internal/daemon"
	"mailbag/cmd/internal/mta"
)

const program = "mailbag-eximd"

// drainTime is how long a stop waits for deliveries. Those that take longer go on without us.
const drainTime = 30 * time.Second

func main() { daemon.Main(command) }

var command = daemon.Program{
	Name:  program,
	Drain: drainTime,
	New: func(now daemon.Settings, _ mta.System, log *slog.Logger) daemon.Service {
		return &service{tables: now().Policy.Tables, log: log}
	},
}
