package main

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"mailbag/meter"
	"mailbag/turnd/control"
	"mailbag/turnd/turn"
)

// storyTurns are the turns of a story: what becomes of one is in the account's name, and to corp one is
// open.
type storyTurns struct{ ledger *meter.Ledger }

func (s storyTurns) Directory() *meter.Directory {
	d, err := s.ledger.Load(context.Background())
	if err != nil {
		return nil
	}
	return d
}

func (s storyTurns) Dial(_ context.Context, a *meter.Account, c turn.Client) error {
	switch {
	case c.Addr != "":
		return fmt.Errorf("the operator has the address %s", c.Addr)
	case a.Name == "dark":
		return fmt.Errorf("%w: dial tcp 192.0.2.7:25: connection refused", turn.ErrUnreachable)
	case a.Name == "idle":
		return turn.ErrNothingWaits
	case a.Name == "taken":
		return turn.ErrOpen
	}
	return nil
}

func (s storyTurns) Open(account string) bool { return account == "corp" }
func (s storyTurns) End(account string) bool  { return account == "corp" }
func (s storyTurns) List() []turn.Status {
	return []turn.Status{{Account: "corp", Kind: meter.TurnATRN, Client: "192.0.2.9", Peer: "192.0.2.9", TLS: "TLS 1.3",
		Began: storyTime("2026-02-03"), Messages: 1234, Bytes: 5_600_000,
		Connections: 2, Suspects: []string{"4bXyZ1zz1"}}}
}

func storyTime(day string) time.Time {
	at, err := time.Parse(time.DateOnly, day)
	if err != nil {
		panic(err)
	}
	return at
}

// turnd answers on the control socket as mailbag-turnd does, until the story ends.
func turnd(ts *testscript.TestScript, _ bool, _ []string) {
	l, err := net.Listen("unix", ts.MkAbs("turnd.sock"))
	ts.Check(err)
	turns := storyTurns{storyLedger(ts)}
	server := control.New(turns, turns, nil, nil)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	ts.Defer(func() {
		ts.Check(server.Shutdown(context.Background()))
		ts.Check(<-ended)
	})
}

// recordTurn DAY ACCOUNT KIND SECONDS MESSAGES BYTES OUTCOME [SUSPECT...] records a turn over one connection, and one more
// for each suspect; one that took no seconds goes on, and ends when it is told of again.
func recordTurn(ts *testscript.TestScript, _ bool, args []string) {
	l := storyLedger(ts)
	d, err := l.Load(context.Background())
	ts.Check(err)
	number := func(i int) int64 {
		n, err := strconv.ParseInt(args[i], 10, 64)
		ts.Check(err)
		return n
	}
	t := meter.Turn{Account: args[1], Kind: meter.TurnKind(args[2]), Client: "192.0.2.7", Peer: "192.0.2.7:25", Began: storyTime(args[0]),
		Messages: number(4), Bytes: number(5), Outcome: args[6],
		Connections: len(args) - 6, Suspects: args[7:]}
	token := fmt.Sprint(args[:3])
	if err := l.BeginTurn(context.Background(), token, d.Account(t.Account).ID, t); err != nil && !strings.Contains(err.Error(), "turn.token") {
		ts.Fatalf("%v", err)
	}
	if seconds := number(3); seconds > 0 {
		t.Ended = t.Began.Add(time.Duration(seconds) * time.Second)
		ts.Check(l.EndTurn(context.Background(), token, t))
	}
}
