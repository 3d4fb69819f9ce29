package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mailbag/cmd/internal/postfix"
)

func TestManualHasAPageForEachCommandThatTroffTakes(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("SOURCE_DATE_EPOCH", "1700000000")
	if status := run([]string{"manual", dir}, os.Stdin, os.Stdout, os.Stderr, postfix.Instance{}, time.Now); status != done {
		t.Fatalf("the status is %d", status)
	}
	pages, err := filepath.Glob(filepath.Join(dir, "*.8"))
	if err != nil || len(pages) < 30 {
		t.Errorf("the pages are %v, %v", pages, err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "mailbag-account-add.8"))
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{".TH MAILBAG-ACCOUNT-ADD 8 2023-11-14 ", "\n.B \\-\\-mode MODE\n", "mailbag account add NAME", ".BR mailbag\\-account (8)"} {
		if !strings.Contains(string(text), part) {
			t.Errorf("the page lacks %q:\n%s", part, text)
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

func TestTextIsQuotedForTroff(t *testing.T) {
	t.Parallel()
	if got, want := roff(".a-b\n'c\\n"), "\\&.a\\-b\n\\&'c\\en"; got != want {
		t.Errorf("roff = %q, want %q", got, want)
	}
}
