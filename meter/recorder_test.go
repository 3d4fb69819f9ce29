package meter

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// twoAccounts is a ledger with a backup account acme and an atrn account globex.
func twoAccounts(t testing.TB, opt Options) (*Ledger, *Directory) {
	t.Helper()
	l := newTestLedger(t, opt)
	mustAdd(t, l, Account{Name: "acme", Mode: Backup, Domains: []string{"acme.example"}})
	mustAdd(t, l, Account{Name: "globex", Mode: ATRN, Domains: []string{"globex.example"}})
	return l, mustLoad(t, l)
}

func usageOf(t testing.TB, l *Ledger, a *Account, month string) Usage {
	t.Helper()
	m, err := ParseMonth(month)
	if err != nil {
		t.Fatal(err)
	}
	u, err := l.Usage(t.Context(), a.ID, m)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

var noon = time.Date(2026, 2, 10, 12, 0, 0, 0, time.UTC)

func TestRecordCountsOncePerInstanceAndAccount(t *testing.T) {
	t.Parallel()
	l, d := twoAccounts(t, Options{})
	acme, globex := d.Account("acme"), d.Account("globex")
	r := NewRecorder(l, nil)
	defer r.Close()
	both := Message{Instance: "a.1", QueueID: "Q1", Size: 1000, At: noon, Accounts: []*Account{acme, globex}}
	one := Message{Instance: "a.2", QueueID: "Q2", Size: 50, At: noon, Accounts: []*Account{acme}}
	for range 3 { // whatever it is that reports them again
		for _, m := range []Message{both, one} {
			if err := r.Record(m, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got, want := usageOf(t, l, acme, "2026-02"), (Usage{2, 1050}); got != want {
		t.Errorf("acme used %v, want %v", got, want)
	}
	if got, want := usageOf(t, l, globex, "2026-02"), (Usage{1, 1000}); got != want {
		t.Errorf("globex used %v, want %v", got, want)
	}
}

func TestRecordNotesWhatIsHeldAsWaiting(t *testing.T) {
	t.Parallel()
	l, d := twoAccounts(t, Options{})
	acme, globex := d.Account("acme"), d.Account("globex")
	r := NewRecorder(l, nil)
	defer r.Close()
	for i := range 3 {
		m := Message{Instance: fmt.Sprint(i), QueueID: fmt.Sprint("Q", i), Size: 100, At: noon.Add(time.Duration(i) * time.Hour), Accounts: []*Account{acme, globex}}
		if err := r.Record(m, nil); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := l.Waiting(t.Context(), globex.ID); err != nil || got != (Waiting{3, 300, noon}) {
		t.Errorf("globex waits with %v, %v; want 3 messages, 300 octets since noon", got, err)
	}
	if got, err := l.Waiting(t.Context(), acme.ID); err != nil || got != (Waiting{}) {
		t.Errorf("acme waits with %v, %v; its mail is relayed at once", got, err)
	}
}

func TestConnectionsShareCommitsExactly(t *testing.T) {
	t.Parallel()
	l, d := twoAccounts(t, Options{BusyTimeout: time.Minute})
	acme := d.Account("acme")
	const connections, each = 16, 20
	own, err := Open(t.Context(), l.path, Options{BusyTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	r := NewRecorder(own, nil)
	defer r.Close()
	var wait sync.WaitGroup
	for c := range connections {
		wait.Go(func() {
			for i := range each {
				m := Message{Instance: fmt.Sprint(c, ".", i), Size: 10, At: noon, Accounts: []*Account{acme}}
				if err := r.Record(m, nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	// The command line writes meanwhile.
	for i := range 20 {
		if err := l.AddDomain(t.Context(), "acme", fmt.Sprintf("d%d.example", i)); err != nil {
			t.Error(err)
		}
	}
	wait.Wait()
	const n = connections * each
	if got, want := usageOf(t, l, acme, "2026-02"), (Usage{n, n * 10}); got != want {
		t.Errorf("used %v, want %v", got, want)
	}
	if got := len(mustLoad(t, l).Account("acme").Domains); got != 21 {
		t.Errorf("the account has %d domains, want 21", got)
	}
	if faults, err := l.Check(t.Context()); err != nil || len(faults) > 0 {
		t.Errorf("Check = %v, %v", faults, err)
	}
}

func TestUsageFallsInTheMonthOfTheBillingTimeZone(t *testing.T) {
	t.Parallel()
	auckland, err := time.LoadLocation("Pacific/Auckland")
	if err != nil {
		t.Fatal(err)
	}
	l, d := twoAccounts(t, Options{Location: auckland})
	acme := d.Account("acme")
	r := NewRecorder(l, nil)
	defer r.Close()
	// 2026-01-31 11:30 UTC is 00:30 on 1 February in Auckland.
	for i, at := range []time.Time{time.Date(2026, 1, 31, 10, 30, 0, 0, time.UTC), time.Date(2026, 1, 31, 11, 30, 0, 0, time.UTC)} {
		if err := r.Record(Message{Instance: fmt.Sprint(i), Size: 1, At: at, Accounts: []*Account{acme}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, month := range []string{"2026-01", "2026-02"} {
		if got := usageOf(t, l, acme, month); got.Messages != 1 {
			t.Errorf("%s has %v, want 1 message", month, got)
		}
	}
	february, _ := ParseMonth("2026-02")
	if days, err := l.DailyUsage(t.Context(), acme.ID, february); err != nil || len(days) != 1 || days[0].Day != "2026-02-01" {
		t.Errorf("DailyUsage = %v, %v; want 2026-02-01 alone", days, err)
	}
}

func TestCloseWritesWhatIsPending(t *testing.T) {
	t.Parallel()
	l, d := twoAccounts(t, Options{})
	r := NewRecorder(l, nil)
	var wait sync.WaitGroup
	accepted := make(chan struct{}, 100)
	for i := range 100 {
		wait.Go(func() {
			err := r.Record(Message{Instance: fmt.Sprint(i), Size: 1, At: noon, Accounts: []*Account{d.Account("acme")}}, nil)
			if err == nil {
				accepted <- struct{}{}
			} else if !errors.Is(err, ErrClosed) {
				t.Error(err)
			}
		})
	}
	r.Close()
	wait.Wait()
	if got := usageOf(t, l, d.Account("acme"), "2026-02"); got.Messages != int64(len(accepted)) {
		t.Errorf("counted %d, answered %d", got.Messages, len(accepted))
	}
	if err := r.Record(Message{}, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("Record after Close = %v, want ErrClosed", err)
	}
}

func TestMessageIsKnownByTheQueueIDThatItHad(t *testing.T) {
	t.Parallel()
	l, d := twoAccounts(t, Options{})
	acme, globex := d.Account("acme"), d.Account("globex")
	r := NewRecorder(l, nil)
	defer r.Close()
	for _, m := range []Message{
		{Instance: "4bXy@1", At: noon, Accounts: []*Account{acme, globex}},
		{Instance: "4bXyZ@1", At: noon, Accounts: []*Account{acme}},
		{Instance: "4bXyZY@1", At: noon, Accounts: []*Account{acme}},
		{Instance: "4bXz@1", At: noon.Add(-time.Hour), Accounts: []*Account{globex}},
		{Instance: SpoolInstance("1vOABC-0004xZ-2f"), At: noon, Accounts: []*Account{acme}},
		{Instance: SpoolInstance("1vOABC-00000004xZa-2fGh"), At: noon, Accounts: []*Account{globex}},
	} {
		if err := r.Record(m, nil); err != nil {
			t.Fatal(err)
		}
	}
	mustInsert(t, l, "UPDATE message SET host = 2 WHERE instance LIKE '4bXyZY@%'")
	for _, test := range []struct {
		ids  []string
		want []int64
	}{
		{[]string{"4bXy"}, []int64{acme.ID, globex.ID}},
		{[]string{"4bXyZ"}, []int64{acme.ID}},
		{[]string{"other", "4bXyZ", "4bXy"}, []int64{acme.ID, globex.ID}},
		{[]string{"4bX", "4bXY", "4bXy@1", ""}, nil},
		{[]string{"4bXz"}, nil},   // too long ago
		{[]string{"4bXyZY"}, nil}, // another host's
		{[]string{"1vOABC-0004xZ-2f"}, []int64{acme.ID}},
		{[]string{"1vOABC-00000004xZa-2fGh"}, []int64{globex.ID}},
		{[]string{"1vOABC-0004xZ-2", "1vOABC-00000004xZa-2fGh@", "1vOABC", "1vOABC-"}, nil},
	} {
		got, err := r.CountedUnder(t.Context(), test.ids, noon)
		slices.Sort(got)
		got = slices.Compact(got)
		if err != nil || !slices.Equal(got, test.want) {
			t.Errorf("under %q it was counted for %v, %v; want %v", test.ids, got, err, test.want)
		}
	}
}

// The clock of this test stands still while anybody has something to do.
func TestCommitDoesNotWaitForMoreThanUsuallyCome(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &Recorder{wake: make(chan struct{}, 1), many: make(chan struct{}, 1)}
		r.expect(3)
		for range 3 {
			p := &pending{result: make(chan error, 1)}
			p.result <- nil
			go r.write(p)
		}
		if waited := r.gather(time.Now().Add(time.Hour)); waited || len(r.pending) != 3 {
			t.Errorf("with %d messages pending it waited: %v", len(r.pending), waited)
		}
		if r.expect(enough); !r.gather(time.Now().Add(time.Millisecond)) {
			t.Error("a commit comes before its turn, with fewer messages")
		}
	})
}

// The bill looks for the message that crossed a limit, which another writer's clock may have come before others.
func TestTheLastMessageStaysTheLastWhenAnotherIsTakenBack(t *testing.T) {
	t.Parallel()
	l, d := twoAccounts(t, Options{})
	acme := d.Account("acme")
	r := NewRecorder(l, nil)
	defer r.Close()
	for i, size := range []int64{10, 20, 30, 40} {
		m := Message{Instance: fmt.Sprint(i), Size: size, At: noon.Add(-time.Duration(i) * time.Second), Accounts: []*Account{acme}}
		if err := r.Record(m, nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		goes string
		last int64
	}{{"1", 40}, {"3", 10}} {
		if err := l.withdraw([]entry{{instance: c.goes}}); err != nil {
			t.Fatal(err)
		}
		var last int64
		if err := l.row(t.Context(), "SELECT last FROM usage WHERE account = ?", acme.ID).Scan(&last); err != nil || last != c.last {
			t.Errorf("without message %s the last one has %d octets, %v; want %d", c.goes, last, err, c.last)
		}
	}
}
