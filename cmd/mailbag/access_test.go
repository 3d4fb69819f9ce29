package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"

	"mailbag/meter"
)

// TestWhoLacksARightIsToldWhich runs commands as users other than root: a member of the group that may read the ledger,
// and a stranger.
func TestWhoLacksARightIsToldWhich(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to be other users")
	}
	const owner, somebody = 4242, 4343
	dir, err := os.MkdirTemp("", "mailbag-access-") // t.TempDir is closed to others
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	program, ledger := filepath.Join(dir, "mailbag"), filepath.Join(dir, "ledger")
	text := "database = \"" + ledger + "/mailbag.db\"\n[pop]\nmaildirs = \"" + dir + "/maildirs\"\n[policy]\ntables = \"" + dir + "/tables\"\n"
	if err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(ledger, 0o750), os.Chown(ledger, owner, owner),
		os.WriteFile(filepath.Join(dir, "mailbag.toml"), []byte(text), 0o644), copyProgram(program)); err != nil {
		t.Fatal(err)
	}
	type who struct {
		name   string
		groups []uint32
	}
	root, member, stranger := who{"root", nil}, who{"member", []uint32{owner}}, who{"stranger", nil}
	run := func(w who, status int, want string, args ...string) {
		t.Helper()
		cmd := exec.Command(program, append([]string{"--config", filepath.Join(dir, "mailbag.toml")}, args...)...)
		if w.name != root.name {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: somebody, Gid: somebody, Groups: w.groups}}
		}
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState == nil {
			t.Fatal(err)
		}
		if cmd.ProcessState.ExitCode() != status || !regexp.MustCompile(want).Match(out) {
			t.Errorf("%q of a %s ended with status %d and said\n%swant status %d and %s", args, w.name, cmd.ProcessState.ExitCode(), out, status, want)
		}
	}
	run(root, done, "added", "account", "add", "acme", "--mode", "backup", "--domain", "acme.example", "--recipients", "list")

	// Nobody has the ledger open, so SQLite would have to make files in its directory.
	run(member, failed, "^mailbag: who may only read the ledger .* can do so while mailbag-policyd or another daemon has it open, and none does; start it, or use sudo\n$", "account", "list")
	l, err := meter.Open(t.Context(), filepath.Join(ledger, "mailbag.db"), meter.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, listing := range [][]string{{"account", "list"}, {"account", "show", "acme"}, {"usage"}, {"account", "export", "-"}, {"account", "history", "acme"}} {
		run(member, done, "acme|account add", listing...)
		run(stranger, failed, "^mailbag: you may not read the ledger .*; use sudo, or be a member of the group 4242 to look at it\n$", listing...)
	}
	for _, change := range [][]string{
		{"account", "set", "acme", "--messages", "5"}, {"domain", "add", "acme", "a.example"}, {"recipient", "add", "acme", "x@acme.example"},
		{"account", "add", "bolt", "--mode", "backup", "--domain", "bolt.example", "--recipients", "verify"},
	} {
		run(member, failed, "^mailbag: you may read the ledger .*, but not change it; use sudo\n$", change...)
		run(stranger, failed, "^mailbag: you may not read the ledger ", change...)
	}
	run(member, failed, "^mailbag: mailbag postfix setup needs root; use sudo\n$", "postfix", "setup")
	run(stranger, done, "step-aside", "postfix")
	run(root, done, "changed acme", "account", "set", "acme", "--messages", "5")
}

// copyProgram makes a copy of this test, which is the command by the name mailbag. Another process writes it: what this one
// wrote would be busy while a child that another test starts has yet to become its program.
func copyProgram(to string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if out, err := exec.Command("install", "-m", "755", self, to).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}
