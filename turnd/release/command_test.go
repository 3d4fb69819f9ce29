package release

import (
	"context"
	"errors"
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
	if err := parse(t, "exim -M {id}").FlushSite(t.Context(), "acme.example"); !errors.Is(err, ErrNoSite) {
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
