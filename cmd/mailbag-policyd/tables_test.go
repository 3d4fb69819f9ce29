package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"mailbag/meter"
	"mailbag/policy/routes"
)

// A desk is a ledger, and the tables of its accounts.
type desk struct {
	*tables
	ledger   *meter.Ledger
	follower *meter.Follower
	log      *syncBuffer
}

// openDesk begins to keep the tables in a directory, of a ledger without accounts.
func openDesk(t *testing.T, dir string) *desk {
	t.Helper()
	ledger, err := meter.Open(t.Context(), filepath.Join(t.TempDir(), "ledger.db"), meter.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	log := new(syncBuffer)
	d := &desk{tables: newTables(dir, routes.Sockets{Turns: "/turn", Deliver: "/deliver"}.Tables, slog.New(slog.NewTextHandler(log, nil))), ledger: ledger, log: log}
	d.retry = 10 * time.Millisecond
	d.follower = meter.Follow(t.Context(), ledger, slog.New(slog.DiscardHandler), func(_, _ *meter.Directory) { d.change() })
	ctx, stop := context.WithCancel(t.Context())
	var keeping sync.WaitGroup
	keeping.Go(func() { d.keep(ctx, d.follower.Directory) })
	t.Cleanup(func() {
		stop()
		keeping.Wait()
		d.follower.Close()
		ledger.Close()
	})
	return d
}

func (d *desk) add(t *testing.T, name string) {
	t.Helper()
	a := meter.Account{Name: name, Mode: meter.ATRN, Domains: []string{name + ".example"}, Recipients: meter.AnyRecipient, Copies: meter.PerRecipient}
	if err := d.ledger.AddAccount(t.Context(), a, nil); err != nil {
		t.Fatal(err)
	}
}

// way is what the table has for the domain of an account.
func (d *desk) way(name string) string {
	way, _, _ := routes.Lookup(filepath.Join(d.dir, routes.Routes), name+".example")
	return way
}

func (d *desk) awaitWay(t *testing.T, name, want string) {
	t.Helper()
	await(t, "the way of "+name, func() bool { return d.way(name) == want })
}

func (d *desk) stat(t *testing.T, name string) os.FileInfo {
	t.Helper()
	st, err := os.Stat(filepath.Join(d.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func TestTablesFollowTheAccounts(t *testing.T) {
	t.Parallel()
	d := openDesk(t, filepath.Join(t.TempDir(), "tables"))
	await(t, "the tables of no accounts", func() bool { return d.written.Load() != nil })
	for _, name := range []string{routes.Domain, routes.Held, routes.TLS, routes.Routes} {
		if mode := d.stat(t, name).Mode().Perm(); mode != 0o644 {
			t.Errorf("%s has the mode %o", name, mode)
		}
	}
	if mode := d.stat(t, ".").Mode().Perm(); mode != 0o755 {
		t.Errorf("the directory has the mode %o", mode)
	}
	d.add(t, "acme")
	d.awaitWay(t, "acme", "mailbag-turn:unix:/turn/acme.sock")
	if err := d.ledger.DeleteAccount(t.Context(), "acme"); err != nil {
		t.Fatal(err)
	}
	d.awaitWay(t, "acme", "")
	await(t, "the tables to be those of the accounts", func() bool { return d.written.Load() == d.follower.Directory() })
}

func TestTableThatSaysTheSameIsNotWrittenAgain(t *testing.T) {
	t.Parallel()
	d := openDesk(t, filepath.Join(t.TempDir(), "tables"))
	d.add(t, "acme")
	d.awaitWay(t, "acme", "mailbag-turn:unix:/turn/acme.sock")
	former := map[string]os.FileInfo{}
	all := []string{routes.Domain, routes.Held, routes.TLS, routes.Routes}
	for _, name := range all {
		former[name] = d.stat(t, name)
	}
	d.add(t, "globex")
	d.awaitWay(t, "globex", "mailbag-turn:unix:/turn/globex.sock")
	for _, name := range all {
		if same := os.SameFile(former[name], d.stat(t, name)); same == (name == routes.Routes) {
			t.Errorf("after a new account %s is the same file: %v", name, same)
		}
	}
}

func TestTablesThatCannotBeWrittenAreTriedAgain(t *testing.T) {
	t.Parallel()
	parent := filepath.Join(t.TempDir(), "missing")
	d := openDesk(t, filepath.Join(parent, "tables"))
	await(t, "a failure", func() bool { return d.err() != nil })
	failures := 0
	last := d.failure.Load()
	await(t, "more failures", func() bool {
		if now := d.failure.Load(); now != last {
			failures, last = failures+1, now
		}
		return failures == 3
	})
	if d.written.Load() != nil {
		t.Error("tables that could not be written are said to be those of the accounts")
	}
	if err := os.Mkdir(parent, 0o755); err != nil {
		t.Fatal(err)
	}
	await(t, "the tables", func() bool { return d.written.Load() != nil && d.err() == nil })
	await(t, "the log line", func() bool { return strings.Contains(d.log.String(), "are written again") })
	if n := strings.Count(d.log.String(), "could not be written"); n != 1 {
		t.Errorf("it is logged %d times:\n%s", n, d.log)
	}
}

// What is there blocks who reads it, as a disk may that does not answer.
func TestSlowDiskHoldsUpNobodyElse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pipe := filepath.Join(dir, routes.Domain)
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	d := openDesk(t, dir)
	for i := range 3 {
		name := fmt.Sprintf("acme%d", i)
		d.add(t, name)
		await(t, "the directory to have "+name, func() bool { return d.follower.Directory().Account(name) != nil })
	}
	if d.way("acme2") != "" {
		t.Error("the disk was not slow")
	}
	// The end of the writer is the end of the file.
	answer, err := os.OpenFile(pipe, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	answer.Close()
	d.awaitWay(t, "acme2", "mailbag-turn:unix:/turn/acme2.sock")
}

func TestReaderFindsWholeTables(t *testing.T) {
	t.Parallel()
	d := openDesk(t, filepath.Join(t.TempDir(), "tables"))
	await(t, "the first tables", func() bool { return d.written.Load() != nil })
	var states []*meter.Directory
	var wholes [][]byte
	for i := range 2 {
		for j := range 200 {
			d.add(t, fmt.Sprintf("acme%d-%d", i, j))
		}
		accounts, err := d.ledger.Load(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		all := d.of(accounts)
		whole, err := all[len(all)-1].Content()
		if err != nil {
			t.Fatal(err)
		}
		states, wholes = append(states, accounts), append(wholes, whole)
	}
	other := newTables(filepath.Join(t.TempDir(), "others"), d.of, slog.New(slog.DiscardHandler))
	if err := other.write(states[0]); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		for i := range 50 {
			if err := other.write(states[i%2]); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for reads := 0; ; reads++ {
		text, err := os.ReadFile(filepath.Join(other.dir, routes.Routes))
		if err != nil || !bytes.Equal(text, wholes[0]) && !bytes.Equal(text, wholes[1]) {
			t.Fatalf("after %d reads: %d octets, %v; the tables have %d and %d", reads, len(text), err, len(wholes[0]), len(wholes[1]))
		}
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			return
		default:
		}
	}
}

// await waits until something holds.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.After(30 * time.Second); !holds(); {
		select {
		case <-deadline:
			t.Fatalf("waited in vain for %s", what)
		case <-time.After(time.Millisecond):
		}
	}
}

// syncBuffer is a log that is read while it is written.
type syncBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}
