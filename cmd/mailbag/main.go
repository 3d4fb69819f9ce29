// Command mailbag is what the operator of a mail bagging service works with: accounts and what is
// theirs, usage, the wiring of the MTA, and the ledger itself.
//
// # What it promises
//
// A command that ends with status 0 has done all that it says; one that ends with 1 has said on
// stderr what failed and what to do next, and one with 2 that it was called wrongly, in which case
// nothing was changed. A change is in force in running daemons within a second. Any number of these
// commands may run at once, beside the daemons. Every listing has --json, whose keys stay as they are.
//
// # What it does not do
//
// It runs no service and leaves nothing running. It never touches mail but where it is told to
// return it to the senders.
//
// # Security
//
// A password is never an argument and never printed, except one that mailbag made itself, once.
// Only verifiers of it are kept. Who may write the ledger file may do everything here.
package main

import (
	"os"
	"runtime/debug"
	"time"

	"mailbag/cmd/internal/host"
)

func main() {
	debug.SetGCPercent(400) // it is over soon: time counts for more than memory
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr, host.Load, time.Now))
}
