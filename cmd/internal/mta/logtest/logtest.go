// Package logtest is what the tests of both MTAs' logs have in common. A file of them has lines as the MTA wrote them, each with
// what it tells below it, behind a tab; nothing where it tells nothing.
package logtest

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"mailbag/cmd/internal/mta"
)

// latest is when all lines were there.
var latest = time.Date(2026, 11, 27, 0, 0, 0, 0, time.UTC)

// Read compares what lines tell with what they should.
func Read(t *testing.T, file string, log mta.Log) {
	local := time.Local
	time.Local = time.UTC
	t.Cleanup(func() { time.Local = local })
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "\t") {
			continue
		}
		got.WriteString(line)
		line = strings.TrimSuffix(line, "\n")
		e, ok := log.Event([]byte(line), latest)
		if ok {
			fmt.Fprintf(&got, "\t%s\n", written(e))
		}
		// The quick look must find what the thorough one does.
		if id := string(log.MessageID([]byte(line))); ok && id != e.ID {
			t.Errorf("the message of %q is %q at first, and then %q", line, id, e.ID)
		}
	}
	if got.String() != string(text) {
		t.Errorf("%s is read as\n%s", file, got.String())
	}
}

// written names all that an event has.
func written(e mta.Event) string {
	words := []string{string(e.Kind), e.At.Format("2006-01-02T15:04:05.999Z")}
	for _, f := range []struct{ name, value string }{
		{"instance", e.Instance}, {"id", e.ID}, {"from", e.Sender}, {"to", e.Recipient}, {"original", e.Original}, {"all", e.All},
		{"client", e.Client}, {"message-id", e.MessageID}, {"relay", e.Relay}, {"text", e.Text},
	} {
		if f.value != "" {
			words = append(words, fmt.Sprintf("%s=%q", f.name, f.value))
		}
	}
	if e.Size != 0 {
		words = append(words, fmt.Sprint("size=", e.Size))
	}
	return strings.Join(words, " ")
}

// Fuzz looks for lines that the readers do not bear, from those in a file on.
func Fuzz(f *testing.F, file string, log mta.Log) {
	text, err := os.ReadFile(file)
	if err != nil {
		f.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "\t") {
			f.Add([]byte(strings.TrimSuffix(line, "\n")))
		}
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		id := log.MessageID(line)
		e, ok := log.Event(line, latest)
		if !ok {
			return
		}
		if e.Kind == "" || e.ID == "" && e.Sender == "" && e.Recipient == "" {
			t.Errorf("%q tells nothing: %+v", line, e)
		}
		if e.ID != "" && e.ID != string(id) {
			t.Errorf("the message of %q is %q at first, and then %q", line, id, e.ID)
		}
	})
}
