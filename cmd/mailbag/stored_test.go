package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// slow is a person who is asked for a password, and while he thinks something happens.
type slow func()

func (s slow) readSecret(context.Context, string) (string, error) {
	s()
	return "secret word", nil
}

func TestWhatIsAddedWhileAPasswordIsAskedForKeepsItsMail(t *testing.T) {
	t.Parallel()
	w := newWorkplace(t, storyMail{})
	w.must("account", "add", "dent", "--mode", "pop3", "--domain", "dent.example", "--generate-password")
	for place, args := range map[string][]string{
		"dent/mailboxes/dent.example/arthur": {"mailbox", "add", "dent", "arthur@dent.example"},
		"ford/catch-all":                     {"account", "add", "ford", "--mode", "pop3", "--domain", "ford.example"},
	} {
		mail := filepath.Join(w.path("maildirs"), place, "new", "1.M1P1.mx")
		var said bytes.Buffer
		c := &console{out: bufio.NewWriter(io.Discard), err: &said, config: w.path("mailbag.toml"), load: withMTA(w.mta), now: time.Now}
		c.secret = slow(func() {
			if _, err := os.Stat(mail); err == nil {
				return // the second time that he is asked
			}
			w.must(append(args, "--generate-password")...)
			if err := os.MkdirAll(filepath.Dir(mail), 0o700); err != nil {
				t.Error(err)
			}
			if err := os.WriteFile(mail, []byte("x\n"), 0o600); err != nil {
				t.Error(err)
			}
		})
		if status := c.run(t.Context(), append([]string{"--config", c.config}, args...)); status != failed {
			t.Errorf("%q ended with status %d", args, status)
		}
		if strings.Contains(said.String(), "set aside") {
			t.Errorf("%q said %s", args, said.String())
		}
		if _, err := os.Stat(mail); err != nil {
			t.Errorf("the mail is gone: %v", err)
		}
	}
}
