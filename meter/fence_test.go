package meter

import (
	"strings"
	"testing"
	"time"
)

// TestABatchOfAKilledRecorderIsNotDoneLater kills recorders, one after another, while a node is stopped that has a batch of each in
// its hands, and has it go on when their successor has taken back what was in them.
func TestABatchOfAKilledRecorderIsNotDoneLater(t *testing.T) {
	t.Parallel()
	l, later := losing(t, dying, doneLater)
	mustAdd(t, l, Account{Name: "globex", Mode: ATRN, Domains: []string{"globex.example"}})
	globex := mustLoad(t, l).Account("globex")
	for range 2 {
		held := later.number()
		_, kill := dies(t, "nowhere", l)
		eventually(t, "the node has its batch", func() bool { return later.number() > held })
		kill()
	}
	r := NewRecorder(l, nil)
	defer r.Close()
	other := fromSender(mustLoad(t, l), "Q2")
	if err := r.Record(other, nil); err != nil {
		t.Fatal(err)
	}
	mustInsert(t, l, "DELETE FROM applied WHERE token < ?", fences) // as after some time
	later.arrive(t, "NOT NULL constraint failed: applied.token")
	if got := used(t, l, globex); got.Messages != 1 {
		t.Errorf("%+v is counted, want 1 message", got)
	}
	if faults, err := l.Check(t.Context()); err != nil || len(faults) > 0 {
		t.Errorf("Check = %v, %v", faults, err)
	}
}

// lateEngine is one that may do a batch when its writer is gone.
type lateEngine struct{ engine }

func (lateEngine) late() bool { return true }

// byHand is a recorder that does nothing of itself, and may be killed after each step.
func byHand(l *Ledger) *Recorder {
	return &Recorder{ledger: l, underway: newUnderway(l.opt.Beside + "-underway"), commit: func(int, time.Duration, error) {}}
}

func TestASuccessorThatIsKilledLeavesItsTaskToTheNext(t *testing.T) {
	t.Parallel()
	steps := []struct {
		name string
		do   func(*Recorder) error
	}{
		{"it opens the file", func(r *Recorder) error { _, err := r.underway.fenced(); return err }},
		{"it has burnt the fence", func(r *Recorder) error {
			former, err := r.underway.fenced()
			if err != nil {
				return err
			}
			return r.ledger.batch(t.Context(), former.burn()...)
		}},
		{"it has one of its own", (*Recorder).enclose},
		{"it has taken back", func(r *Recorder) error { _, _, err := r.flush(); return err }},
	}
	for _, step := range steps {
		t.Run("killed when "+step.name, func(t *testing.T) {
			t.Parallel()
			l, d := twoAccounts(t, Options{})
			l.engine = lateEngine{l.engine}
			var batches [][]statement
			// Each is killed while a node has a batch of it.
			die := func(id string, last func(*Recorder) error) {
				t.Helper()
				r := byHand(l)
				defer r.underway.close()
				if err := last(r); err != nil {
					t.Fatal(err)
				}
				if r.fence == (fence{}) {
					return
				}
				m := fromSender(d, id)
				if _, _, err := r.underway.enter(&m); err != nil {
					t.Fatal(err)
				}
				batches = append(batches, r.behind(l.evidence([]*pending{{message: m}})))
			}
			die("Q1", (*Recorder).enclose)
			for range 2 {
				die("Q2", step.do)
			}
			if err := l.batch(t.Context(), batches[0]...); step.name == steps[0].name && err != nil {
				t.Errorf("before the fence is burnt: %v; the test shows nothing", err)
			}
			r := NewRecorder(l, nil)
			defer r.Close()
			if err := r.Record(fromSender(d, "Q3"), nil); err != nil {
				t.Fatal(err)
			}
			for _, late := range batches {
				if err := l.batch(t.Context(), late...); !isBurnt(err) {
					t.Errorf("what comes late ends with %v", err)
				}
			}
			if got := used(t, l, d.Account("globex")); got.Messages != 1 {
				t.Errorf("%+v is counted, want 1 message", got)
			}
			n := 0
			if err := l.row(t.Context(), "SELECT count(*) FROM applied WHERE token >= ?", fences).Scan(&n); err != nil || n != 1 {
				t.Errorf("%d fences are kept, %v", n, err)
			}
		})
	}
}

// TestARecorderGoesOnWhereSomebodyBurntItsFence is about a machine that was copied, with its files.
func TestARecorderGoesOnWhereSomebodyBurntItsFence(t *testing.T) {
	t.Parallel()
	l, d := twoAccounts(t, Options{})
	l.engine = lateEngine{l.engine}
	r := NewRecorder(l, nil)
	defer r.Close()
	for i, id := range []string{"Q1", "Q2", "Q3"} {
		if err := r.Record(fromSender(d, id), nil); err != nil {
			t.Fatal(err)
		}
		if got := used(t, l, d.Account("globex")); got.Messages != int64(i+1) {
			t.Errorf("after %d messages %+v is counted", i+1, got)
		}
		own, err := r.underway.fenced()
		if err != nil {
			t.Fatal(err)
		}
		if err := l.batch(t.Context(), own.after().after().burn()...); err != nil {
			t.Fatal(err)
		}
	}
}

func FuzzFence(f *testing.F) {
	for _, line := range []string{"", "fence", "fence A 0", "fence A 1", "fence a 1", "fence A -1", "fence A 99999999999", "fence A 1 1", "c 1 00 Q@1", "fence AB2 7\n"} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		got := readFence(line)
		if got == (fence{}) {
			return
		}
		if again := readFence(got.line()); again != got {
			t.Errorf("%+v is read again as %+v", got, again)
		}
		next := got.after()
		if token := next.token(); token <= got.token() || !strings.HasPrefix(token, fences) || token <= tokenAt(time.Now()) {
			t.Errorf("%q is after %q", token, got.token())
		}
	})
}
