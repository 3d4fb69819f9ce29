package daemon

import (
	"os"
	"runtime"
)

// UseOneProcessor has Go code run on one processor at a time, unless GOMAXPROCS says otherwise. That is
// enough for tens of thousands of requests a second, many times what a Postfix asks or brings, and it keeps
// Go's scheduler from waking a thread on every processor for each request: beside a loaded Postfix
// on two cores that takes a twentieth of its rate. The ledger's own work does not count.
func UseOneProcessor() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(1)
	}
}
