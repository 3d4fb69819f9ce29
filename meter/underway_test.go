package meter

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// dyingAt names, in the environment of a child of the tests, where it is to stand still until it is killed.
const dyingAt, dyingWith, dyingBeside = "MAILBAG_TEST_DYING_AT", "MAILBAG_TEST_LEDGER", "MAILBAG_TEST_BESIDE"

// repeated is what the tests' sender repeats.
var repeated = Fingerprint{1, 2, 3}

// dying is the queue ID of the message at which the child dies, in the form of Exim 4.97 and newer.
const dying = "1vOABC-00000004xZa-2fGh"

func fromSender(d *Directory, queueID string) Message {
	return Message{Instance: SpoolInstance(queueID), QueueID: queueID, Size: 100, At: time.Now(), Accounts: []*Account{d.Account("globex")}, Fingerprint: repeated}
}

// stuckEngine is one that comes to no end with what it is to write from some moment on.
type stuckEngine struct {
	engine
	on atomic.Bool
}

func (e *stuckEngine) write(ctx context.Context, token string, batch []statement) (time.Duration, error) {
	if e.on.Load() {
		select {}
	}
	return e.engine.write(ctx, token, batch)
}

// die records a message, says when it has come to the place, and stays there.
func die(where, address, beside string) {
	stay := func(here string) error {
		if here == where {
			fmt.Println(here)
			select {}
		}
		return nil
	}
	l := New(address, Options{Beside: beside})
	d, err := l.Load(context.Background())
	if err != nil {
		panic(err)
	}
	stuck := &stuckEngine{engine: l.engine}
	l.engine = stuck
	r := NewRecorder(l, func(int, time.Duration, error) { stay("counted") })
	if err := r.Record(fromSender(d, dying), func() error { return stay("answering") }); err != nil {
		panic(err)
	}
	stay("answered")
	stuck.on.Store(true) // so that it is not taken back before the end
	r.Unheard(SpoolInstance(dying))
	stay("unheard")
}

// dies starts a child that records a message in the ledger. What it says is where it is, and kill ends it.
func dies(t *testing.T, where string, l *Ledger) (says *bufio.Reader, kill func()) {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), dyingAt+"="+where, dyingWith+"="+addressOf(l), dyingBeside+"="+l.opt.Beside)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	kill = sync.OnceFunc(func() {
		_ = child.Process.Kill()
		_ = child.Wait()
	})
	t.Cleanup(kill)
	return bufio.NewReader(out), kill
}

// killed is a ledger of which a recorder was killed at that place.
func killed(t *testing.T, where string) (*Ledger, *Directory) {
	t.Helper()
	l, d := twoAccounts(t, Options{})
	says, kill := dies(t, where, l)
	said, err := says.ReadString('\n')
	if err != nil || said != where+"\n" {
		t.Fatalf("the child said %q, %v", said, err)
	}
	kill()
	return l, d
}

func used(t *testing.T, l *Ledger, a *Account) Usage {
	t.Helper()
	u, err := l.Usage(t.Context(), a.ID, MonthOf(time.Now(), time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestWhatWasCountedAndNeverHeardIsTakenBackAfterAKill(t *testing.T) {
	t.Parallel()
	for _, where := range []string{"counted", "unheard"} {
		t.Run(where, func(t *testing.T) {
			t.Parallel()
			l, d := killed(t, where)
			globex := d.Account("globex")
			if got := used(t, l, globex); got.Messages != 1 {
				t.Fatalf("before the restart %+v is counted; the test shows nothing", got)
			}
			r := NewRecorder(l, nil)
			defer r.Close()
			eventually(t, "the message is taken back", func() bool { return used(t, l, globex) == Usage{} })
			if w, err := l.Waiting(t.Context(), globex.ID); err != nil || w.Messages != 0 {
				t.Errorf("%+v waits, %v", w, err)
			}
			if faults, err := l.Check(t.Context()); err != nil || len(faults) > 0 {
				t.Errorf("Check = %v, %v", faults, err)
			}
		})
	}
}

func TestWhatWasBeingAnsweredIsRecognisedWhenItsSenderRepeatsIt(t *testing.T) {
	t.Parallel()
	for _, where := range []string{"answering", "counted, and the machine went down"} {
		t.Run(where, func(t *testing.T) {
			t.Parallel()
			at, down, _ := strings.Cut(where, ", ")
			l, d := killed(t, at)
			globex := d.Account("globex")
			if down != "" {
				reboot(t, l)
			}
			r := NewRecorder(l, nil)
			defer r.Close()
			other := fromSender(d, "Q2")
			other.Fingerprint[0]++
			if err := r.Record(other, nil); err != nil {
				t.Fatal(err)
			}
			if got := used(t, l, globex); got.Messages != 2 {
				t.Errorf("with another message %+v is counted", got)
			}
			for i := range 2 { // the second is no repetition, or of one that was accepted
				if err := r.Record(fromSender(d, fmt.Sprint("Q", 3+i)), nil); err != nil {
					t.Fatal(err)
				}
				if got, want := used(t, l, globex), (Usage{int64(2 + i), int64(2+i) * 100}); got != want {
					t.Errorf("after repetition %d %+v is counted, want %+v", i+1, got, want)
				}
			}
			page, err := l.WaitingAfter(t.Context(), globex.ID, nil, WaitingMessage{}, 10)
			if err != nil || len(page) != 3 || page[0].ID != "Q2" {
				t.Errorf("%v waits, %v; want all but the first", page, err)
			}
		})
	}
}

// reboot makes the file of messages under way one of an earlier boot.
func reboot(t *testing.T, l *Ledger) {
	t.Helper()
	path := l.path + "-underway"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(text), bootID(), strings.Repeat("x", len(bootID())), 1)), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestAnsweredMessageStaysCountedAfterAKill(t *testing.T) {
	t.Parallel()
	l, d := killed(t, "answered")
	r := NewRecorder(l, nil)
	defer r.Close()
	m := fromSender(d, "Q2")
	if err := r.Record(m, nil); err != nil {
		t.Fatal(err)
	}
	if got := used(t, l, d.Account("globex")); got.Messages != 2 {
		t.Errorf("%+v is counted, want 2 messages", got)
	}
}

func TestMessageWhoseAnswerFailsIsTakenBack(t *testing.T) {
	t.Parallel()
	l, d := twoAccounts(t, Options{})
	acme, globex := d.Account("acme"), d.Account("globex")
	r := NewRecorder(l, nil)
	defer r.Close()
	record := func(id string, size int64, answer func() error, accounts ...*Account) error {
		return r.Record(Message{Instance: id + "@1", QueueID: id, Size: size, At: time.Now(), Accounts: accounts}, answer)
	}
	if err := record("Q1", 10, nil, acme, globex); err != nil {
		t.Fatal(err)
	}
	gone := errors.New("the MTA is gone")
	if err := record("Q2", 70, func() error { return gone }, acme, globex); err != gone {
		t.Errorf("Record = %v", err)
	}
	if err := record("Q3", 80, nil, acme); err != nil {
		t.Fatal(err)
	}
	r.Unheard("Q3@1")
	for _, a := range []*Account{acme, globex} {
		eventually(t, "what was not heard is taken back", func() bool { return used(t, l, a) == Usage{1, 10} })
	}
	var last int64
	err := l.row(t.Context(), "SELECT sum(last) FROM usage").Scan(&last)
	if err != nil || last != 20 {
		t.Errorf("the last messages have %d octets, %v; want 10 of each account", last, err)
	}
	if w, err := l.Waiting(t.Context(), globex.ID); err != nil || w.Messages != 1 {
		t.Errorf("%+v waits, %v", w, err)
	}
}

func TestMessageOfAnAccountThatIsGoneFailsAlone(t *testing.T) {
	t.Parallel()
	l, d := twoAccounts(t, Options{})
	acme := d.Account("acme")
	r := NewRecorder(l, nil)
	defer r.Close()
	const n = 30
	results := make(chan error, n)
	for i := range n {
		a := acme
		if i == n/2 {
			a = &Account{ID: 4711}
		}
		go func() {
			results <- r.Record(Message{Instance: fmt.Sprint("Q", i, "@1"), Size: 1, At: time.Now(), Accounts: []*Account{a}}, nil)
		}()
	}
	failed := 0
	for range n {
		if err := <-results; err != nil {
			failed++
			if errors.Is(err, ErrUnavailable) {
				t.Errorf("the ledger is said to be unavailable: %v", err)
			}
		}
	}
	if got := used(t, l, acme); failed != 1 || got.Messages != n-1 {
		t.Errorf("%d failed, %+v is counted", failed, got)
	}
	if err := l.Available(); err != nil {
		t.Error(err)
	}
}

func TestFileOfMessagesUnderWayMayHoldAnything(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"nothing": "", "garbage": strings.Repeat("garbage \x00\n", 1000), "a part": string(header()[:50]),
		"bad lines": string(header()) + fmt.Sprintf("%-127s\n", "c x y z") + fmt.Sprintf("%-127s\n", "a 1 zz Q@1") + fmt.Sprintf("%-127s\n", "cc 1 00 Q@1"),
		"too much":  strings.Repeat(" ", 2*(places+1)*lineLength),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, d := twoAccounts(t, Options{})
			if err := os.WriteFile(l.path+"-underway", []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			r := NewRecorder(l, nil)
			defer r.Close()
			if err := r.Record(fromSender(d, "Q1"), nil); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestOneProcessAloneRecords(t *testing.T) {
	t.Parallel()
	l, d := twoAccounts(t, Options{})
	first, second := NewRecorder(l, nil), NewRecorder(l, nil)
	defer first.Close()
	defer second.Close()
	one, other := first.Record(fromSender(d, "Q1"), nil), second.Record(fromSender(d, "Q2"), nil)
	if (one == nil) == (other == nil) || !errors.Is(errors.Join(one, other), ErrUnavailable) {
		t.Errorf("two recorders of one ledger: %v, %v", one, other)
	}
	first.Close()
	second.Close()
	third := NewRecorder(l, nil)
	defer third.Close()
	if err := third.Record(fromSender(d, "Q3"), nil); err != nil {
		t.Error(err)
	}
}

// listing is a queue that holds these messages.
func listing(ids ...string) func() iter.Seq2[QueuedMessage, error] {
	return func() iter.Seq2[QueuedMessage, error] {
		return func(yield func(QueuedMessage, error) bool) {
			for _, id := range ids {
				if !yield(QueuedMessage{ID: id}, nil) {
					return
				}
			}
		}
	}
}

func TestTheQueueTellsWhetherADoubtfulMessageWasAccepted(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name     string
		queue    []string
		prepare  func(*Ledger, *Directory) error
		counted  int64
		doubtful int
	}{
		{"it is there", []string{"Q0", dying}, nil, 1, 0},
		{"it is not", []string{"Q0"}, nil, 0, 0},
		{"another is that begins alike", []string{dying[:16], dying + "x", dying[:22]}, nil, 0, 0},
		{"a turn has taken it", []string{"Q0"}, func(l *Ledger, d *Directory) error {
			return l.batch(context.Background(), statement{"UPDATE waiting SET delivered = 1 WHERE queue_id = '" + dying + "'", nil})
		}, 1, 1},
		{"it may have been relayed", []string{"Q0"}, func(l *Ledger, d *Directory) error {
			return l.batch(context.Background(), statement{"UPDATE account SET mode = 'backup' WHERE name = 'globex'", nil})
		}, 1, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			l, d := killed(t, "answering")
			if test.prepare != nil {
				if err := test.prepare(l, d); err != nil {
					t.Fatal(err)
				}
				d = mustLoad(t, l)
			}
			r := NewRecorder(l, nil)
			if n, err := r.Doubtful(); n != 1 || err != nil {
				t.Fatalf("%d are doubtful, %v", n, err)
			}
			if err := r.Settle(t.Context(), d, listing(test.queue...)); err != nil {
				t.Fatal(err)
			}
			r.Close()
			if got := used(t, l, d.Account("globex")); got.Messages != test.counted {
				t.Errorf("%+v is counted, want %d messages", got, test.counted)
			}
			again := NewRecorder(l, nil)
			defer again.Close()
			if n, err := again.Doubtful(); n != test.doubtful || err != nil {
				t.Errorf("%d are doubtful still, %v, want %d", n, err, test.doubtful)
			}
		})
	}
}
