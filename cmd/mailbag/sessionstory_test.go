package main

import (
	"context"
	"strconv"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"mailbag/meter"
)

// recordSession records a POP3 session: session TIME ACCOUNT MAILBOX SECONDS FETCHED BYTES DELETED OUTCOME.
func recordSession(ts *testscript.TestScript, _ bool, args []string) {
	number := func(i int) int64 {
		n, err := strconv.ParseInt(args[i], 10, 64)
		ts.Check(err)
		return n
	}
	began := storyTime(args[0])
	ts.Check(storyLedger(ts).RecordPopSessions(context.Background(), []meter.PopSession{{
		Account: args[1], Mailbox: args[2], Client: "192.0.2.7", TLS: "TLS 1.3",
		Began: began, Ended: began.Add(time.Duration(number(3)) * time.Second),
		Fetched: number(4), Bytes: number(5), Deleted: number(6), Outcome: args[7],
	}}))
}
