package meter

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSingleMessagesAreFoundByTheirQueueIDs(t *testing.T) {
	t.Parallel()
	l, d := twoAccounts(t, Options{})
	acme, globex := d.Account("acme"), d.Account("globex")
	r := NewRecorder(l, nil)
	defer r.Close()
	for _, m := range []Message{
		{Instance: "Q1@1", QueueID: "Q1", Size: 10, At: noon, Accounts: []*Account{acme, globex}},
		{Instance: "Q1@2", QueueID: "Q1", Size: 20, At: noon.Add(time.Hour), Accounts: []*Account{acme}},
		{Instance: "Q12@1", QueueID: "Q12", Size: 30, At: noon, Accounts: []*Account{globex}},
	} {
		if err := r.Record(m, nil); err != nil {
			t.Fatal(err)
		}
	}
	counted, err := l.Counted(t.Context(), []Sought{{QueueID: "Q1"}, {QueueID: "Q2"}})
	want := []CountedMessage{{"acme", "Q1", noon, 10}, {"globex", "Q1", noon, 10}, {"acme", "Q1", noon.Add(time.Hour), 20}}
	if diff := cmp.Diff(want, counted); err != nil || diff != "" {
		t.Errorf("%v, -want +got:\n%s", err, diff)
	}
	waiting, err := l.WaitingFor(t.Context(), []string{"Q1", "Q2", "Q12"})
	if diff := cmp.Diff(map[string][]string{"Q1": {"globex"}, "Q12": {"globex"}}, waiting); err != nil || diff != "" {
		t.Errorf("%v, -want +got:\n%s", err, diff)
	}
	if err := l.Delivered(t.Context(), globex.ID, nil, "Q1"); err != nil {
		t.Fatal(err)
	}
	if waiting, err := l.WaitingFor(t.Context(), []string{"Q1"}); err != nil || len(waiting) != 0 {
		t.Errorf("%v waits, %v", waiting, err)
	}
}

func TestOwnersOfDomainsAreFoundWithoutADirectory(t *testing.T) {
	t.Parallel()
	l, _ := severalDomains(t, Options{})
	owners, err := l.Owners(t.Context(), []string{"a.example", "b.example", "elsewhere.example"})
	if diff := cmp.Diff(map[string]string{"a.example": "hooli", "b.example": "hooli"}, owners); err != nil || diff != "" {
		t.Errorf("%v, -want +got:\n%s", err, diff)
	}
}

func TestTurnIsFoundByItsTime(t *testing.T) {
	t.Parallel()
	l, d := twoAccounts(t, Options{})
	globex := d.Account("globex")
	first := Turn{Account: "globex", Kind: TurnATRN, Client: "192.0.2.1", Peer: "192.0.2.1", Began: noon, Ended: noon.Add(10 * time.Second), Messages: 1, Outcome: "done"}
	open := Turn{Account: "globex", Kind: TurnATRN, Client: "192.0.2.2", Peer: "192.0.2.2", Began: noon.Add(time.Minute)}
	if err := errors.Join(l.RecordTurn(t.Context(), "one", globex.ID, first), l.BeginTurn(t.Context(), "two", globex.ID, open)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		after time.Duration
		want  *Turn
	}{
		{-2 * time.Second, nil},
		{-500 * time.Millisecond, &first}, // a log has seconds
		{10500 * time.Millisecond, &first},
		{30 * time.Second, nil},
		{time.Hour, &open},
	} {
		got, err := l.TurnAt(t.Context(), "globex", noon.Add(c.after))
		if diff := cmp.Diff(c.want, got); err != nil || diff != "" {
			t.Errorf("%s after noon: %v, -want +got:\n%s", c.after, err, diff)
		}
	}
	if got, err := l.TurnAt(t.Context(), "acme", noon); err != nil || got != nil {
		t.Errorf("acme had %+v, %v", got, err)
	}
}
