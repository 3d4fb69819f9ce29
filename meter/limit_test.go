package meter

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestALimitIsExactOverSeveralWriters has twelve writers of three ledgers, each with a recorder of its own, count until the
// limit says no.
func TestALimitIsExactOverSeveralWriters(t *testing.T) {
	t.Parallel()
	const processes, writers, limit = 3, 12, 1003
	l, d := twoAccounts(t, Options{BusyTimeout: time.Minute})
	globex := d.Account("globex")
	var counted, refused atomic.Int64
	var group sync.WaitGroup
	for process := range processes {
		own, err := Open(t.Context(), l.path, Options{BusyTimeout: time.Minute, Beside: fmt.Sprint(l.path, "-", process)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { own.Close() })
		r := NewRecorder(own, nil)
		t.Cleanup(r.Close)
		for writer := range writers / processes {
			group.Go(func() {
				for i := range limit + 1 {
					id := fmt.Sprintf("Q%dx%dx%d", process, writer, i)
					err := r.Record(Message{Instance: id + "@1", QueueID: id, Size: 10, At: noon, Accounts: []*Account{globex},
						Limits: map[int64]Usage{globex.ID: {Messages: limit}}}, nil)
					switch {
					case err == nil:
						counted.Add(1)
					case errors.Is(err, ErrLimit):
						refused.Add(1)
						return
					default:
						t.Error(err)
						return
					}
				}
			})
		}
	}
	group.Wait()
	if counted.Load() != limit || refused.Load() != writers {
		t.Errorf("%d were counted and %d refused, want %d and %d", counted.Load(), refused.Load(), limit, writers)
	}
	if got, want := usageOf(t, l, globex, "2026-02"), (Usage{limit, limit * 10}); got != want {
		t.Errorf("used %+v, want %+v", got, want)
	}
	if w, err := l.Waiting(t.Context(), globex.ID); err != nil || w.Messages != limit {
		t.Errorf("%+v waits, %v", w, err)
	}
}

// TestAMessageIsCountedForAllItsAccountsOrNone has messages that share one commit, or have one each, come to limits.
func TestAMessageIsCountedForAllItsAccountsOrNone(t *testing.T) {
	t.Parallel()
	for _, together := range []bool{true, false} {
		t.Run(fmt.Sprintf("together=%t", together), func(t *testing.T) {
			t.Parallel()
			l, d := twoAccounts(t, Options{})
			acme, globex := d.Account("acme"), d.Account("globex")
			limits := map[int64]Usage{acme.ID: {Bytes: 100}, globex.ID: {Messages: 4, Bytes: 1000}}
			var batch []*pending
			for i, c := range []struct {
				accounts []*Account
				size     int64
				same     string // as that of another message
				want     error
			}{
				{[]*Account{acme, globex}, 99, "", nil},
				{[]*Account{acme}, 500, "", nil}, // reaches acme's limit
				{[]*Account{acme}, 0, "", ErrLimit},
				{[]*Account{globex, acme}, 1, "", ErrLimit},
				{[]*Account{globex}, 2, "", nil},
				{[]*Account{acme}, 500, "1@1", nil}, // is counted already
				{[]*Account{globex}, 3, "", nil},
				{[]*Account{globex}, 4, "", nil},
				{[]*Account{globex}, 5, "", ErrLimit},
			} {
				instance := c.same
				if instance == "" {
					instance = fmt.Sprint(i, "@1")
				}
				p := &pending{message: Message{Instance: instance, QueueID: fmt.Sprint("Q", i), Size: c.size, At: noon, Accounts: c.accounts, Limits: map[int64]Usage{}}, result: make(chan error, 1)}
				for _, a := range c.accounts {
					p.message.Limits[a.ID] = limits[a.ID]
				}
				batch = append(batch, p)
				defer func() {
					if got := <-p.result; !errors.Is(got, c.want) {
						t.Errorf("message %d: %v, want %v", i, got, c.want)
					}
				}()
			}
			batch = append(batch, &pending{message: Message{Instance: "free@1", At: noon, Accounts: []*Account{acme}}, result: make(chan error, 1)})
			r := &Recorder{ledger: l, commit: func(int, time.Duration, error) {}}
			if together {
				r.store(batch)
			} else {
				for _, p := range batch {
					r.store([]*pending{p})
				}
			}
			// What has no limit comes first where it comes together with others, and crosses none itself.
			if got := usageOf(t, l, acme, "2026-02"); got != (Usage{3, 599}) {
				t.Errorf("acme used %+v", got)
			}
			if got := usageOf(t, l, globex, "2026-02"); got != (Usage{4, 108}) {
				t.Errorf("globex used %+v", got)
			}
			if w, err := l.Waiting(t.Context(), globex.ID); err != nil || w.Messages != 4 || w.Bytes != 108 {
				t.Errorf("%+v waits for globex, %v", w, err)
			}
			if faults, err := l.Check(t.Context()); err != nil || len(faults) > 0 {
				t.Errorf("Check = %v, %v", faults, err)
			}
		})
	}
}

// A message of a closed month is counted in the next one, and so is what that has room for.
func TestTheLimitIsThatOfTheMonthInWhichAMessageIsCounted(t *testing.T) {
	t.Parallel()
	l, d := twoAccounts(t, Options{})
	acme := d.Account("acme")
	mustInsert(t, l, "INSERT INTO closed_month (month, at, who) VALUES ('2026-02', 0, '')")
	r := NewRecorder(l, nil)
	defer r.Close()
	for i, want := range []error{nil, nil, ErrLimit} {
		err := r.Record(Message{Instance: fmt.Sprint(i), At: noon, Accounts: []*Account{acme}, Limits: map[int64]Usage{acme.ID: {Messages: 2}}}, nil)
		if !errors.Is(err, want) {
			t.Errorf("message %d: %v, want %v", i, err, want)
		}
	}
	if got := usageOf(t, l, acme, "2026-03"); got.Messages != 2 {
		t.Errorf("in March %+v is counted", got)
	}
}

func TestWhatIsUsedWithALimitIsReachedWithIt(t *testing.T) {
	t.Parallel()
	for _, tariff := range []Tariff{{Messages: 3}, {Bytes: 100}, {Messages: 3, Bytes: 100}} {
		for tiers := int64(1); tiers < 4; tiers++ {
			full := tariff.Full(tiers)
			for messages := int64(0); messages < 15; messages++ {
				for _, bytes := range []int64{0, 99, 100, 101, 199, 200, 300, 301} {
					u := Usage{messages, bytes}
					want := tariff.Tiers(Usage{u.Messages + 1, u.Bytes + 1}) > tiers
					if got := tariff.Reached(u, tiers); got != want {
						t.Errorf("%+v: with %+v %d tiers (%+v) are reached: %t", tariff, u, tiers, full, got)
					}
				}
			}
		}
	}
}
