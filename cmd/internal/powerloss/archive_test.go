package powerloss

import (
	"context"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"mailbag/meter"
	"mailbag/testdata/blackout"
)

// TestADayIsOnOneSideAfterThePowerFailed has days pass on which messages are counted, and archives those that are over.
func TestADayIsOnOneSideAfterThePowerFailed(t *testing.T) {
	if ledger := os.Getenv(ledgerVariable); ledger != "" {
		archive(t, ledger)
		return
	}
	t.Parallel()
	chance := chance(t)
	disk := t.TempDir()
	power := blackout.Mount(t, disk, blackout.Options{})
	ledger := filepath.Join(disk, "mailbag.db")
	var counted answers
	days := 0
	shown := func() bool { return counted.count(answered) > 0 && days > 0 }
	for i := range failures(shown) {
		failed := power.Fail(1 + chance.IntN(2000))
		l := &load{over: make(chan struct{})}
		l.keep(func() error {
			days += len(counted.hear(t, t.Name(), ledger, l.over)["archived"])
			return errEnded
		})
		<-failed
		l.end()
		reboot()
		if err := power.Return(chance); err != nil {
			t.Fatal(err)
		}
		var nothing answers
		there := nothing.hear(t, "TestListEvidence", ledger, nil)
		if len(there["listed"]) == 0 {
			t.Error("the evidence cannot be listed")
		}
		wrong(t, "the ledger says: ", there["fault"])
		wrong(t, "of the messages counted ", counted.compare(there["there"]))
		if t.Failed() {
			t.Fatalf("after the power failed %d times", i+1)
		}
		progress(t, i+1)
	}
	shows(t, counted.count(answered), "messages counted")
	shows(t, days, "times that days were archived")
}

// openFile opens the ledger for a process that has it alone. Its clock begins after all that there is.
func openFile(t *testing.T, path string) (*meter.Ledger, *meter.Account, *atomic.Pointer[time.Time]) {
	t.Helper()
	now := &atomic.Pointer[time.Time]{}
	first := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	now.Store(&first)
	l, err := meter.Open(t.Context(), path, meter.Options{Create: true, Now: func() time.Time { return *now.Load() }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	d, err := l.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d.Account("acme") == nil {
		add(t, l)
		if d, err = l.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	newest, err := l.Newest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if newest.After(first) {
		now.Store(&newest)
	}
	return l, d.Account("acme"), now
}

// archive has days pass until the process is killed, and says what is counted and when days are archived.
func archive(t *testing.T, path string) {
	l, acme, now := openFile(t, path)
	r := meter.NewRecorder(l, nil)
	defer r.Close()
	nobody := func() iter.Seq2[string, error] { return func(func(string, error) bool) {} }
	var mine answers
	for {
		for range 10 {
			at := now.Load().Add(time.Hour)
			now.Store(&at)
			id := fmt.Sprintf("%s-%d", mine.ask(), os.Getpid())
			fmt.Println("ask", id)
			if r.Record(meter.Message{Instance: id, QueueID: id, Size: 1, At: at, Accounts: []*meter.Account{acme}}, nil) == nil {
				fmt.Println("answered", id)
			}
		}
		if done, err := l.Archive(context.Background(), nobody); err == nil && done.Days > 0 {
			fmt.Println("archived", done.Days)
		}
	}
}

// TestListEvidence is the part of another test that lists what the ledger has, in a process of its own.
func TestListEvidence(t *testing.T) {
	path := os.Getenv(ledgerVariable)
	if path == "" {
		t.Skip("it is part of TestADayIsOnOneSideAfterThePowerFailed")
	}
	l, acme, now := openFile(t, path)
	last := meter.MonthOf(*now.Load(), time.UTC)
	for month := (meter.Month{Year: 2026, Month: 1}); !last.Before(month); month = month.Next() {
		for m, err := range l.Evidence(t.Context(), acme.ID, month) {
			if err != nil {
				t.Fatal(err)
			}
			fmt.Println("there", m.QueueID)
		}
	}
	for _, check := range []func() ([]string, error){
		func() ([]string, error) { return l.Check(t.Context()) },
		func() ([]string, error) { return l.CheckEvidence(t.Context(), 0) },
	} {
		faults, err := check()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range faults {
			fmt.Println("fault", f)
		}
	}
	fmt.Println("listed all")
}
