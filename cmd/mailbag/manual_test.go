package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"mailbag/cmd/internal/host"
)

// manualPages writes all manual pages, those that are written by hand too.
func manualPages(t *testing.T) (dir string, pages []string) {
	t.Helper()
	dir = t.TempDir()
	t.Setenv("SOURCE_DATE_EPOCH", "1700000000")
	if status := run([]string{"manual", dir}, os.Stdin, os.Stdout, os.Stderr, host.Load, time.Now); status != done {
		t.Fatalf("the status is %d", status)
	}
	if out, err := exec.Command("../../packaging/man/pages", "1.0", dir).CombinedOutput(); err != nil {
		t.Fatalf("the pages written by hand: %v\n%s", err, out)
	}
	pages, err := filepath.Glob(filepath.Join(dir, "*.[578]"))
	if err != nil || len(pages) < 30 {
		t.Fatalf("the pages are %v, %v", pages, err)
	}
	return dir, pages
}

func TestManualHasAPageForEachCommandThatTroffTakes(t *testing.T) {
	dir, pages := manualPages(t)
	text, err := os.ReadFile(filepath.Join(dir, "mailbag-account-add.8"))
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{".TH MAILBAG-ACCOUNT-ADD 8 2023-11-14 ", "\n.B \\-\\-mode MODE\n", "mailbag account add NAME", ".BR mailbag\\-account (8)"} {
		if !strings.Contains(string(text), part) {
			t.Errorf("the page lacks %q:\n%s", part, text)
		}
	}
	for _, page := range pages {
		if strings.HasSuffix(page, ".7") { // about no program
			continue
		}
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, section := range []string{"SECURITY", "DIAGNOSTICS", "LIMITS"} {
			if n := strings.Count(string(text), "\n.SH "+section+"\n"); n != 1 {
				t.Errorf("%s has %d sections %s", filepath.Base(page), n, section)
			}
		}
	}
	mandoc, err := exec.LookPath("mandoc")
	if err != nil {
		t.Skip("there is no mandoc")
	}
	if out, err := exec.Command(mandoc, append([]string{"-T", "lint", "-W", "warning"}, pages...)...).CombinedOutput(); err != nil {
		t.Errorf("mandoc: %v\n%s", err, out)
	}
}

// TestManualKeepsSpacesBetweenWords looks at the macros that change fonts from one argument to the next, without spaces.
func TestManualKeepsSpacesBetweenWords(t *testing.T) {
	_, pages := manualPages(t)
	alternating := regexp.MustCompile(`(?m)^\.(BI|BR|IB|IR|RB|RI) .*$`)
	argument := regexp.MustCompile(`"[^"]*"|\S+`)
	for _, page := range pages {
		for _, line := range alternating.FindAllString(read(t, page), -1) {
			if arguments := argument.FindAllString(line, -1)[1:]; len(arguments) > 3 {
				t.Errorf("%s makes one word of all this: %s", filepath.Base(page), line)
			}
		}
	}
}

func TestManualRefersToPagesThatThereAre(t *testing.T) {
	dir, pages := manualPages(t)
	reference := regexp.MustCompile(`(?m)^\.BR (mailbag\S*) ?\(([578])\)`)
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, to := range reference.FindAllStringSubmatch(string(text), -1) {
			name := strings.ReplaceAll(to[1], `\-`, "-") + "." + to[2]
			if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
				t.Errorf("%s refers to %s: %v", filepath.Base(page), name, err)
			}
		}
	}
}

func TestTextIsQuotedForTroff(t *testing.T) {
	t.Parallel()
	if got, want := roff(".a-b\n'c\\n"), "\\&.a\\-b\n\\&'c\\en"; got != want {
		t.Errorf("roff = %q, want %q", got, want)
	}
}

func TestRemarksAreOnCommandsThatThereAre(t *testing.T) {
	t.Parallel()
	var c console
	root := c.root()
	for path := range ownRemarks {
		if cmd, _, err := root.Find(strings.Fields(path)[1:]); err != nil || cmd.CommandPath() != path {
			t.Errorf("there is no %s: %v", path, err)
		}
	}
}
