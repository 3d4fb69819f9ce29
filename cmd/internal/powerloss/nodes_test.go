package powerloss

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"mailbag/meter"
	"mailbag/testdata/blackout"
	postfixtest "mailbag/testdata/postfix"
	rqlitetest "mailbag/testdata/rqlite"
)

// ledgerVariable has the ledger in the environment of a process that does a part of a test.
const ledgerVariable = "MAILBAG_POWERLOSS_LEDGER"

// TestWhatNodesAnsweredIsThereAfterThePowerOfAllFailed has the power of three nodes fail at the same moment, while messages are
// recorded. They sync their logs, but not their snapshots, which take the place of old parts of the log. So they make snapshots all
// the time here, on a file system that syncs for them.
func TestWhatNodesAnsweredIsThereAfterThePowerOfAllFailed(t *testing.T) {
	if nodes := os.Getenv(ledgerVariable); nodes != "" {
		record(t, nodes)
		return
	}
	t.Parallel()
	if err := rqlitetest.Available(); err != nil {
		t.Skip(err)
	}
	chance := chance(t)
	dir := t.TempDir()
	disk := filepath.Join(dir, "disk")
	if err := os.Mkdir(disk, 0o755); err != nil {
		t.Fatal(err)
	}
	power := blackout.Mount(t, disk, blackout.Options{Journal: true, Sync: true})
	nodes, err := rqlitetest.Start(t.Context(), disk, 3, rqlitetest.Options{Args: []string{"-raft-snap", "64", "-raft-snap-int", "200ms"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			logs, _ := exec.Command("sh", "-c", `tail -n 4 "$1"/*.log`, "sh", disk).Output()
			t.Logf("the nodes said:\n%s", logs)
		}
		nodes.Stop()
	})
	l := openLedger(t, nodes.Address(0), meter.Options{Create: true, Beside: filepath.Join(dir, "mailbag")})
	add(t, l)
	power.Settle()
	var counted answers
	shown := func() bool { return counted.count(answered) > 0 }
	for i := range failures(shown) {
		failed := power.Fail(1 + chance.IntN(4000))
		l := &load{over: make(chan struct{})}
		address := nodes.Address(chance.IntN(3))
		l.keep(func() error {
			counted.hear(t, t.Name(), address, l.over)
			return errEnded
		})
		<-failed
		nodes.Stop()
		l.end()
		if err := power.Return(chance); err != nil {
			t.Fatal(err)
		}
		for _, n := range nodes.All {
			if err := n.Start(); err != nil {
				t.Fatal(err)
			}
		}
		lookAt(t, nodes.Address(0), filepath.Join(dir, "mailbag"), &counted)
		if t.Failed() {
			t.Fatalf("after the power failed %d times", i+1)
		}
		progress(t, i+1)
	}
	shows(t, counted.count(answered), "messages counted")
}

// errEnded is of a process that was to go on.
var errEnded = errors.New("it has ended")

func add(t *testing.T, l *meter.Ledger) {
	t.Helper()
	acme := meter.Account{Name: "acme", Mode: meter.Backup, Recipients: meter.AnyRecipient, Copies: meter.PerRecipient, Domains: []string{"acme.example"}}
	if err := l.AddAccount(t.Context(), acme, nil); err != nil {
		t.Fatal(err)
	}
}

// hear runs a test with a ledger in a process of its own, which is killed when it is over, and takes down what that says. What
// it says of anything but messages is returned by its first word.
func (a *answers) hear(t *testing.T, test, ledger string, over chan struct{}) map[string][]string {
	cmd := exec.Command(os.Args[0], "-test.run=^"+test+"$")
	cmd.Env = append(os.Environ(), ledgerVariable+"="+ledger)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Error(err)
		return nil
	}
	heard, others := make(chan struct{}), map[string][]string{}
	defer close(heard)
	go func() {
		select {
		case <-over:
			_ = cmd.Process.Kill()
		case <-heard:
		}
	}()
	for in := bufio.NewScanner(out); in.Scan(); {
		verb, rest, _ := strings.Cut(in.Text(), " ")
		switch verb {
		case "ask":
			a.is(rest, asked)
		case "answered":
			a.is(rest, answered)
		default:
			others[verb] = append(others[verb], rest)
		}
	}
	_ = cmd.Wait()
	return others
}

// record records messages until the process is killed, and says so.
func record(t *testing.T, nodes string) {
	l := openLedger(t, nodes, meter.Options{Beside: filepath.Join(t.TempDir(), "mailbag")})
	d, err := l.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r := meter.NewRecorder(l, nil)
	load := &load{over: make(chan struct{})}
	var mine answers
	for range 8 {
		load.keep(func() error {
			id := fmt.Sprintf("%s-%d", mine.ask(), os.Getpid())
			fmt.Println("ask", id)
			err := r.Record(meter.Message{Instance: id, QueueID: id, Size: 1, At: time.Now(), Accounts: []*meter.Account{d.Account("acme")}}, nil)
			if err == nil {
				fmt.Println("answered", id)
			}
			return err
		})
	}
	load.all.Wait()
}

// openLedger opens a ledger on nodes that may just be starting.
func openLedger(t *testing.T, nodes string, opt meter.Options) *meter.Ledger {
	t.Helper()
	for begun := time.Now(); ; {
		l, err := meter.Open(t.Context(), nodes, opt)
		if err == nil {
			t.Cleanup(func() { l.Close() })
			return l
		}
		if time.Since(begun) > postfixtest.Patience {
			t.Fatal(err)
		}
	}
}

// lookAt compares the ledger with what was answered.
func lookAt(t *testing.T, nodes, beside string, counted *answers) {
	t.Helper()
	l := openLedger(t, nodes, meter.Options{Beside: beside})
	_, acme, err := l.LoadAccount(context.Background(), "acme")
	if err != nil {
		t.Error(err)
		return
	}
	faults, err := l.Check(t.Context())
	if err != nil || len(faults) > 0 {
		t.Error(err, faults)
	}
	var there []string
	now := meter.MonthOf(time.Now(), time.UTC)
	for m, err := range l.Evidence(t.Context(), acme.ID, now) {
		if err != nil {
			t.Fatal(err)
		}
		there = append(there, m.QueueID)
	}
	wrong(t, "of the messages counted ", counted.compare(there))
}
