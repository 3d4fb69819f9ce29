package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mailbag/cmd/internal/host"
	"mailbag/cmd/internal/mta"
	"mailbag/cmd/internal/settings"
)

// workplace is a directory with settings that point into it, and a way to run commands there.
type workplace struct {
	t   *testing.T
	dir string
	mta mta.System
	now func() time.Time
}

// withMTA is [host.Load] on a machine with this MTA.
func withMTA(system mta.System) loader {
	return func(file string) (*settings.Settings, mta.System, error) {
		s, err := settings.Load(file)
		if err != nil {
			return nil, system, err
		}
		host.Fill(s, system)
		return s, system, nil
	}
}

func newWorkplace(t *testing.T, system mta.System) workplace {
	w := workplace{t, t.TempDir(), system, time.Now}
	text := "database = \"" + w.path("mailbag.db") + "\"\n[policy]\ntables = \"" + w.path("tables") + "\"\n[pop]\nmaildirs = \"" + w.path("maildirs") + "\"\n"
	if err := os.WriteFile(w.path("mailbag.toml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w workplace) path(name string) string { return filepath.Join(w.dir, name) }

// run executes a command and returns its status and what it wrote.
func (w workplace) run(args ...string) (status int, out, errs string) {
	w.t.Helper()
	stdout, stderr := w.file("stdout"), w.file("stderr")
	status = w.runTo(stdout, stderr, args...)
	return status, w.text(stdout), w.text(stderr)
}

func (w workplace) runTo(stdout, stderr *os.File, args ...string) int {
	w.t.Helper()
	stdin, err := os.Open(os.DevNull)
	if err != nil {
		w.t.Fatal(err)
	}
	defer stdin.Close()
	return run(append([]string{"--config", w.path("mailbag.toml")}, args...), stdin, stdout, stderr, withMTA(w.mta), w.now)
}

// must runs a command that has to succeed.
func (w workplace) must(args ...string) string {
	w.t.Helper()
	status, out, errs := w.run(args...)
	if status != done {
		w.t.Fatalf("mailbag %s ended with status %d: %s%s", strings.Join(args, " "), status, out, errs)
	}
	return out
}

func (w workplace) file(name string) *os.File {
	f, err := os.CreateTemp(w.dir, name)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { f.Close() })
	return f
}

func (w workplace) text(f *os.File) string {
	text, err := os.ReadFile(f.Name())
	if err != nil {
		w.t.Fatal(err)
	}
	return string(text)
}

func TestClosedStdoutEndsACommandQuietly(t *testing.T) {
	t.Parallel()
	w := newWorkplace(t, storyMail{})
	w.must("account", "add", "acme", "--mode", "backup", "--domain", "acme.example")
	for _, command := range [][]string{{"account", "list"}, {"usage", "--json"}, {"--help"}, {"completion", "bash"}} {
		reader, writer, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		reader.Close()
		stderr := w.file("stderr")
		if status := w.runTo(writer, stderr, command...); status != failed || w.text(stderr) != "" {
			t.Errorf("%q ended with status %d and said %q", command, status, w.text(stderr))
		}
		writer.Close()
	}
}

func TestFullDiskBehindStdoutIsSaid(t *testing.T) {
	t.Parallel()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	w := newWorkplace(t, storyMail{})
	stderr := w.file("stderr")
	if status := w.runTo(full, stderr, "--help"); status != failed || !strings.Contains(w.text(stderr), "the output could not be written") {
		t.Errorf("ended with status %d and said %q", status, w.text(stderr))
	}
	// A password that nobody saw is of no use; its owner is told.
	stderr = w.file("stderr")
	status := w.runTo(full, stderr, "account", "add", "corp", "--mode", "atrn", "--domain", "corp.example", "--generate-password")
	if status != failed || !strings.Contains(w.text(stderr), `could not be shown`) {
		t.Errorf("ended with status %d and said %q", status, w.text(stderr))
	}
}
