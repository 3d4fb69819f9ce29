package meter

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestTurnsAreListedNewestFirst(t *testing.T) {
	t.Parallel()
	l, d := twoAccounts(t, Options{Now: func() time.Time { return noon.Add(time.Hour) }})
	globex := d.Account("globex")
	first := Turn{Account: "globex", Kind: TurnATRN, Client: "192.0.2.1", Peer: "192.0.2.1", TLS: "TLS 1.3", Began: noon}
	second := Turn{Account: "globex", Kind: TurnETRN, Client: "192.0.2.1", Peer: "192.0.2.7:25", Began: noon.Add(time.Minute)}
	if err := l.BeginTurn(t.Context(), "one", globex.ID, first); err != nil {
		t.Fatal(err)
	}
	first.Ended, first.Messages, first.Bytes, first.Outcome = noon.Add(time.Second), 3, 4000, "done"
	first.Connections, first.Suspects = 2, []string{"Q1", "Q2"}
	if err := l.EndTurn(t.Context(), "one", first); err != nil {
		t.Fatal(err)
	}
	if err := l.BeginTurn(t.Context(), "two", globex.ID, second); err != nil {
		t.Fatal(err)
	}
	check := func(account string, limit int, want ...Turn) {
		t.Helper()
		got, err := l.Turns(t.Context(), account, limit)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(append([]Turn{}, want...), got); diff != "" {
			t.Errorf("the turns of %q (-want +got):\n%s", account, diff)
		}
	}
	check("globex", 10, second, first)
	check("", 1, second)
	check("acme", 10)

	// The process died and starts again.
	if err := l.InterruptTurns(t.Context()); err != nil {
		t.Fatal(err)
	}
	second.Ended, second.Outcome = noon.Add(time.Hour), "interrupted"
	check("", 10, second, first)
}

func TestATurnThatNeverBeganIsRecordedAtOnce(t *testing.T) {
	t.Parallel()
	l, d := twoAccounts(t, Options{})
	want := Turn{Account: "globex", Kind: TurnETRN, Client: "192.0.2.1", Peer: "192.0.2.7:25", Began: noon, Ended: noon.Add(time.Second),
		Outcome: "unreachable: connection refused"}
	if err := l.RecordTurn(t.Context(), "one", d.Account("globex").ID, want); err != nil {
		t.Fatal(err)
	}
	got, err := l.Turns(t.Context(), "globex", 10)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Turn{want}, got); diff != "" {
		t.Errorf("the turns (-want +got):\n%s", diff)
	}
}

// TestAnAccountHasOneTurnAtATime has a second one begin on another host, and on the same one, which knows that the first is over.
func TestAnAccountHasOneTurnAtATime(t *testing.T) {
	t.Parallel()
	l, d := twoAccounts(t, Options{})
	globex := d.Account("globex").ID
	mustInsert(t, l, "INSERT INTO host (id, name) VALUES (2, 'mx-b')")
	other := Ledger{path: l.path, opt: l.opt, engine: l.engine}
	other.opt.Host = 2
	first := Turn{Account: "globex", Kind: TurnATRN, Client: "192.0.2.1", Began: noon}
	second := Turn{Account: "globex", Kind: TurnATRN, Client: "192.0.2.2", Began: noon.Add(time.Minute)}
	if err := l.BeginTurn(t.Context(), "one", globex, first); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(other.InterruptTurns(t.Context()), other.BeginTurn(t.Context(), "two", globex, second)); !errors.Is(err, ErrTurnOpen) {
		t.Errorf("of a second turn on another host the ledger says %v", err)
	}
	// The end of the first one could not be recorded.
	if err := l.BeginTurn(t.Context(), "two", globex, second); err != nil {
		t.Fatal(err)
	}
	first.Ended, first.Outcome = second.Began, "interrupted"
	got, err := l.Turns(t.Context(), "globex", 10)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Turn{second, first}, got); diff != "" {
		t.Errorf("the turns (-want +got):\n%s", diff)
	}
}
