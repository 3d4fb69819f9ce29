package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"mailbag/cmd/internal/mta"
	"mailbag/cmd/internal/postfix"
	"mailbag/cmd/internal/tables"
	"mailbag/meter"
	"mailbag/policy/routes"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"mailbag": func() {
			os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr, withMTA(storyMail{file: os.Getenv("QUEUE")}), storyClock))
		},
	})
}

// storyClock is the clock of a story: what its variable NOW says, else the machine's.
func storyClock() time.Time {
	if at, err := time.Parse(time.DateTime, os.Getenv("NOW")); err == nil {
		return at
	}
	return time.Now()
}

// TestStories runs what an operator does, as testdata tells it.
func TestStories(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			env.Setenv("MAILBAG_CONFIG", env.WorkDir+"/mailbag.toml")
			env.Setenv("SUDO_USER", "operator")
			env.Setenv("GORACE", "atexit_sleep_ms=0") // else every command of a story ends a second later under -race
			settings := fmt.Sprintf("database = \"%s/ledger/mailbag.db\"\n[policy]\ntables = \"%s/tables\"\n[turn]\ncontrol = \"unix:%s/turnd.sock\"\n[pop]\nmaildirs = \"%s/maildirs\"\ndeliver = \"unix:%s/deliver.sock\"\n",
				env.WorkDir, env.WorkDir, env.WorkDir, env.WorkDir, env.WorkDir)
			return errors.Join(os.Mkdir(env.WorkDir+"/ledger", 0o755),
				os.WriteFile(env.WorkDir+"/mailbag.toml", []byte(settings), 0o644))
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"accept": accept, "daemon": tablesWritten, "status": status,
			"turnd": turnd, "turn": recordTurn, "session": recordSession, "suspect": noteSuspect, "queued": noteQueued,
		},
	})
}

// storyMail is the Postfix of a story: its queue is a file of what postqueue -j prints, in which a
// message that is returned leaves, and a held one goes its old way at the first release, as qmgr(8) does with an address
// that it remembers, and its new one at the second. Without a file Postfix is not installed. The domain local.example is
// in mydestination.
type storyMail struct {
	mta.System // whatever else no story asks for
	file       string
}

func (s storyMail) Words() mta.Words { return postfix.Instance{}.Words() }

func (s storyMail) Log(ctx context.Context) mta.Log { return postfix.Instance{}.Log(ctx) }

func (s storyMail) Places() mta.Places { return postfix.Instance{}.Places() }

func (s storyMail) Tables(at routes.Sockets, d *meter.Directory) []routes.Table {
	return at.Tables(d)
}

func (s storyMail) Queue(context.Context) iter.Seq2[mta.Entry, error] {
	text, err := os.ReadFile(s.file)
	if err != nil {
		if s.file == "" {
			err = mta.ErrMissing
		}
		return func(yield func(mta.Entry, error) bool) { yield(mta.Entry{}, err) }
	}
	return postfix.ReadQueue(bytes.NewReader(text))
}

func (s storyMail) Return(_ context.Context, ids ...string) error {
	return s.edit(ids, func(string) string { return "" })
}

func (s storyMail) Hold(context.Context, ...string) error { return nil }

func (s storyMail) Reroute(ctx context.Context, r mta.Reroute, left func(messages int)) ([]string, error) {
	left(len(r.IDs))
	return nil, errors.Join(s.release(r.IDs), s.release(r.IDs))
}

func (s storyMail) release(ids []string) error {
	return s.edit(ids, func(line string) string {
		const old = "connect to mx[/run/mailbag/turn/bolt.sock]: No such file or directory"
		if strings.Contains(line, old) {
			return strings.ReplaceAll(line, old, "Connection refused")
		}
		return strings.ReplaceAll(line, "deferred transport", old)
	})
}

func (s storyMail) Flush(_ context.Context, domain string) error {
	return s.edit([]string{domain}, func(string) string { return "" })
}

func (s storyMail) edit(ids []string, change func(line string) string) error {
	text, err := os.ReadFile(s.file)
	if err != nil {
		return err
	}
	var out strings.Builder
	for line := range strings.Lines(string(text)) {
		for _, id := range ids {
			if strings.Contains(line, strconv.Quote(id)) || strings.Contains(line, "@"+id+`"`) {
				line = change(line)
			}
		}
		out.WriteString(line)
	}
	return os.WriteFile(s.file, []byte(out.String()), 0o644)
}

func (s storyMail) Conflicts(_ context.Context, domains ...string) ([]mta.Conflict, error) {
	if s.file == "" {
		return nil, mta.ErrMissing
	}
	for _, domain := range domains {
		if domain == "local.example" {
			return []mta.Conflict{{Domain: domain, Parameter: "mydestination", Entry: domain}}, nil
		}
	}
	return nil, nil
}

func appendTo(name, text string) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// Submit keeps the message in the file SENT. Where KILL says so the process dies, right before or after.
func (s storyMail) Submit(_ context.Context, message string, to ...string) error {
	if os.Getenv("KILL") == "before" {
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	if err := appendTo(os.Getenv("SENT"), fmt.Sprintf("RCPT %s\n%s", strings.Join(to, " "), message)); err != nil {
		return err
	}
	if os.Getenv("KILL") == "after" {
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	return nil
}

func (s storyMail) Identity(context.Context) (mta.Identity, error) {
	return mta.Identity{Hostname: "mx.provider.example"}, nil
}

func (s storyMail) Running(context.Context) (bool, error) { return true, nil }

func (s storyMail) FormerLifetimes(context.Context) (mta.Lifetimes, error) {
	return mta.Lifetimes{Message: mta.Lifetime{Raised: true, Was: 5 * 24 * time.Hour}}, nil
}

// Fits leaves a line in the file PLANS, where there is one.
func (s storyMail) Fits(_ context.Context, n mta.Needs) (bool, error) {
	if s.file == "" {
		return false, mta.ErrMissing
	}
	if plans := os.Getenv("PLANS"); plans != "" {
		if err := appendTo(plans, "planned\n"); err != nil {
			return false, err
		}
	}
	return !n.Verify && !n.RequireTLS && !n.VerifyTLS, nil
}

// status STATUS COMMAND... runs a command that must end with that exit status.
func status(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	var exit interface{ ExitCode() int }
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if want, _ := strconv.Atoi(args[0]); code != want {
		ts.Fatalf("%q ended with status %d, want %d", args[1:], code, want)
	}
}

func storyLedger(ts *testscript.TestScript) *meter.Ledger {
	l, err := meter.Open(context.Background(), ts.MkAbs("ledger/mailbag.db"), meter.Options{})
	ts.Check(err)
	ts.Defer(func() { l.Close() })
	return l
}

// accept DAY MESSAGES SIZE ACCOUNT[@DOMAIN]... counts so many messages of that size.
func accept(ts *testscript.TestScript, _ bool, args []string) {
	l := storyLedger(ts)
	d, err := l.Load(context.Background())
	ts.Check(err)
	at, err := time.Parse(time.DateOnly, args[0])
	ts.Check(err)
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	octets, err := strconv.ParseInt(args[2], 10, 64)
	ts.Check(err)
	r := meter.NewRecorder(l, nil)
	defer r.Close()
	var group sync.WaitGroup
	for i := range n {
		m := meter.Message{Instance: fmt.Sprintf("%s.%d.%v", args[0], i, args[3:]), QueueID: fmt.Sprintf("Q%06d", i), Size: octets, Client: "192.0.2.1", At: at}
		for _, to := range args[3:] {
			name, domain, known := strings.Cut(to, "@")
			if a := d.Account(name); !slices.Contains(m.Accounts, a) {
				m.Accounts = append(m.Accounts, a)
			}
			if known {
				m.Domains = append(m.Domains, domain)
			}
		}
		group.Go(func() {
			if err := r.Record(m, nil); err != nil {
				ts.Logf("not counted: %v", err)
			}
		})
	}
	group.Wait()
}

// suspect DAY ACCOUNT ID SUSPICION notes a message of 1 kB that waits since then and is under that suspicion.
func noteSuspect(ts *testscript.TestScript, _ bool, args []string) {
	l := storyLedger(ts)
	d, err := l.Load(context.Background())
	ts.Check(err)
	suspicion, err := strconv.Atoi(args[3])
	ts.Check(err)
	ts.Check(l.StillWaits(context.Background(), d.Account(args[1]), nil,
		meter.WaitingMessage{ID: args[2], Size: 1000, Since: storyTime(args[0]), Suspicion: suspicion}))
}

// queued [DAY SIZE DOMAIN]... has a pass over the queue find these messages, and no others.
func noteQueued(ts *testscript.TestScript, _ bool, args []string) {
	l := storyLedger(ts)
	d, err := l.Load(context.Background())
	ts.Check(err)
	_, err = l.Reconcile(context.Background(), d, func(yield func(meter.QueuedMessage, error) bool) {
		for m := range slices.Chunk(args, 3) {
			size, err := strconv.ParseInt(m[1], 10, 64)
			if !yield(meter.QueuedMessage{ID: fmt.Sprintf("Q%v", m), Size: size, Arrived: storyTime(m[0]), Recipients: []string{"a@" + m[2]}}, err) {
				return
			}
		}
	})
	ts.Check(err)
}

// tablesWritten writes the tables of the accounts as mailbag-policyd does, until the story ends.
func tablesWritten(ts *testscript.TestScript, _ bool, _ []string) {
	stop := keepTables(storyLedger(ts), ts.MkAbs("tables"), func() error { return nil })
	ts.Defer(func() { ts.Check(stop()) })
}

// keepTables writes the tables of the accounts into a directory of that name, now and after each change, and calls
// written then, until stop, which says what went wrong.
func keepTables(l *meter.Ledger, dir string, written func() error) (stop func() error) {
	failure := os.Mkdir(dir, 0o755)
	follower := meter.Follow(context.Background(), l, slog.New(slog.DiscardHandler), func(_, accounts *meter.Directory) {
		err := tables.Write(dir, routes.Sockets{Turns: "/run/mailbag/turn", Deliver: "/run/mailbag/deliver.sock"}.Tables(accounts))
		failure = errors.Join(failure, err, written())
	})
	return func() error {
		follower.Close()
		return failure
	}
}
