package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// answers is a person who types these lines.
type answers struct {
	lines  []string
	prompt []string
}

func (a *answers) readSecret(_ context.Context, prompt string) (string, error) {
	a.prompt = append(a.prompt, prompt)
	if len(a.lines) == 0 {
		return "", io.ErrUnexpectedEOF
	}
	line := a.lines[0]
	a.lines = a.lines[1:]
	return line, nil
}

func TestPasswordIsAskedForTwice(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		typed []string
		want  string
		err   string
	}{
		{"the same", []string{"hush hush", "hush hush"}, "hush hush", ""},
		{"two that differ", []string{"hush", "Hush"}, "", "differ"},
		{"none", nil, "", "EOF"},
		{"hung up before the second", []string{"hush"}, "", "EOF"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			person := &answers{lines: test.typed}
			c := &console{secret: person, out: bufio.NewWriter(io.Discard), err: io.Discard}
			p, err := c.password(new(cobra.Command), passwordFlags{}, "acme")
			if p.text != test.want || p.fresh {
				t.Errorf("got %+v, want %q", p, test.want)
			}
			if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("got the error %v, want one with %q", err, test.err)
			}
			if len(person.prompt) == 0 || !strings.Contains(person.prompt[0], "acme") {
				t.Errorf("the prompt %q does not say whose password it asks for", person.prompt)
			}
		})
	}
}

func TestGeneratedPasswordsAreLongUnambiguousAndDiffer(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for range 100 {
		p := generatePassword()
		if len(p) < 20 || strings.ContainsAny(p, "0O1lIo") || seen[p] {
			t.Fatalf("%q is short, ambiguous or came twice", p)
		}
		seen[p] = true
	}
}

func TestReadLineTakesOneLine(t *testing.T) {
	t.Parallel()
	for input, want := range map[string]string{
		"hush\nsecond\n": "hush", "hush\r\n": "hush", "hush": "hush", " hush \n": " hush ", "\n": "", "": "",
		strings.Repeat("x", maxLine) + "\n": strings.Repeat("x", maxLine),
	} {
		if got, err := readLine(strings.NewReader(input)); got != want || err != nil {
			t.Errorf("readLine(%q) = %q, %v; want %q", input, got, err, want)
		}
	}
	if _, err := readLine(strings.NewReader(strings.Repeat("x", maxLine+1))); err == nil {
		t.Error("a line without end was taken")
	}
	failing := io.MultiReader(strings.NewReader("hu"), readFailure{})
	if _, err := readLine(failing); err == nil {
		t.Error("half a line was taken though the rest could not be read")
	}
}

type readFailure struct{}

func (readFailure) Read([]byte) (int, error) { return 0, errors.New("the disk is gone") }

func TestBarFillsItsField(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		part, whole int64
		want        string
	}{
		{0, 10, "    "}, {1, 1000, "▏   "}, {5, 10, "██  "}, {10, 10, "████"}, {35, 10, "████"}, {9, 10, "███▌"}, {0, 0, "    "}, {1, 0, "    "},
	} {
		got := bar(test.part, test.whole, 4)
		if got != test.want || utf8.RuneCountInString(got) != 4 {
			t.Errorf("bar(%d, %d) = %q, want %q", test.part, test.whole, got, test.want)
		}
	}
}
