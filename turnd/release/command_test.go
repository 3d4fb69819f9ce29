package release

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// script writes a shell script and returns the template that runs it with the ID.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "release")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	// By the shell, since a program that was just written may still be open in a process that is being forked.
	return "/bin/sh " + path + " -M {id}"
}

func parse(t *testing.T, template string) Command {
	t.Helper()
	c, err := ParseCommand(template)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCommandRunsOnceForEachMessage(t *testing.T) {
	t.Parallel()
	out := filepath.Join(t.TempDir(), "out")
	c := parse(t, script(t, `echo "$*" >>`+out))
	var ids, want []string
	for i := range 3 * atOnce {
		id := "1qABCD-0001ab-" + string(rune('A'+i%26)) + string(rune('a'+i/26))
		ids, want = append(ids, id), append(want, "-M "+id)
	}
	if err := c.Release(t.Context(), ids...); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(out)
	got := strings.Split(strings.TrimSpace(string(text)), "\n")
	slices.Sort(got)
	slices.Sort(want)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, the programs ran with %q", err, got)
	}
}

func TestCommandFailureTellsWhatTheProgramSaid(t *testing.T) {
	t.Parallel()
	c := parse(t, script(t, `echo "spool of $2 is away" >&2; head -c 100000 /dev/zero | tr '\0' x; exit 3`))
	err := c.Release(t.Context(), "1qABCD-0001ab-Cd")
	if err == nil || !strings.Contains(err.Error(), "spool of 1qABCD-0001ab-Cd is away") || !strings.Contains(err.Error(), "exit status 3") {
		t.Fatalf("the error is %v", err)
	}
	if len(err.Error()) > 2*maxSaid {
		t.Errorf("the error has %d octets", len(err.Error()))
	}
}

// A program may fail because its message is gone, while others are in the middle of a delivery.
func TestCommandThatFailsStopsNoOther(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	out, failed := filepath.Join(dir, "out"), filepath.Join(dir, "failed")
	c := parse(t, script(t, `
		case $2 in *gone) touch `+failed+`; echo "message not found"; exit 1;; esac
		while [ ! -e `+failed+` ]; do sleep 0.01; done
		echo "$2" >>`+out))
	ids := []string{"1qABCD-gone"}
	for i := range 3 * atOnce {
		ids = append(ids, fmt.Sprintf("1qABCD-%d", i))
	}
	err := c.Release(t.Context(), append(ids, "1qABCE-gone")...)
	if err == nil || !strings.Contains(err.Error(), "1qABCD-gone") || !strings.Contains(err.Error(), "message not found") || !strings.HasSuffix(err.Error(), "; and 1 more") {
		t.Errorf("the error is %v", err)
	}
	text, err := os.ReadFile(out)
	if n := strings.Count(string(text), "\n"); err != nil || n != 3*atOnce {
		t.Errorf("%v; %d programs ended well, want %d", err, n, 3*atOnce)
	}
}

func TestCommandThatDoesNotStartIsTriedNoMore(t *testing.T) {
	t.Parallel()
	ids := make([]string, 10*atOnce)
	for i := range ids {
		ids[i] = fmt.Sprintf("1qABCD-%d", i)
	}
	err := parse(t, "/nonexistent/exim -M {id}").Release(t.Context(), ids...)
	if !errors.Is(err, os.ErrNotExist) || strings.HasSuffix(err.Error(), fmt.Sprintf("; and %d more", len(ids)-1)) {
		t.Errorf("the error is %v", err)
	}
}

func TestCommandStartsNothingOnceItsContextIsOver(t *testing.T) {
	t.Parallel()
	out := filepath.Join(t.TempDir(), "out")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := parse(t, script(t, "touch "+out)).Release(ctx, "1qABCD-0001ab-Cd"); !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
	if _, err := os.Stat(out); err == nil {
		t.Error("the program ran")
	}
}

func TestCommandSeesNoShellAndNoOptions(t *testing.T) {
	t.Parallel()
	out := filepath.Join(t.TempDir(), "out")
	c := parse(t, script(t, "touch "+out))
	for _, id := range []string{"", "-q", "a b", "$(id)", "a;b", "a\nb", strings.Repeat("a", 33)} {
		if err := c.Release(t.Context(), id); err == nil {
			t.Errorf("%q is taken as a queue ID", id)
		}
	}
	if _, err := os.Stat(out); err == nil {
		t.Error("the program ran")
	}
}

func TestCommandKnowsNoSites(t *testing.T) {
	t.Parallel()
	if err := parse(t, "exim -M {id}").Flush(t.Context(), "acme.example"); !errors.Is(err, ErrNoSite) {
		t.Errorf("the error is %v", err)
	}
}

func TestBadTemplates(t *testing.T) {
	t.Parallel()
	for _, template := range []string{"", "  ", "exim -M", "{id} -M", "/usr/{id}"} {
		if _, err := ParseCommand(template); err == nil {
			t.Errorf("%q is taken", template)
		}
	}
}
