package postfix

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mailbag/cmd/internal/answer"
	"mailbag/cmd/internal/mta"
)

func TestWhatDoesNotAnswerPostfixIsNamed(t *testing.T) {
	t.Parallel()
	in, p := configured(t, "")
	policy, milter := p.Private("mailbag-policy"), p.Private("mailbag-milter")
	want := func(text string, within time.Duration) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		if err := in.Answers(ctx, mta.Needs{}); !errors.Is(err, mta.ErrSilent) || !strings.Contains(err.Error(), text) {
			t.Errorf("%v\nwant %q", err, text)
		}
	}
	runTap(t, p)
	want("there is no socket "+policy, time.Minute)
	l := listen(t, p, PolicySocket)
	want("no answer comes from "+policy, 20*time.Second) // which postconf has as well
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	want("nobody listens at "+policy, time.Minute)
	if err := os.Remove(policy); err != nil {
		t.Fatal(err)
	}
	d := &daemon{asked: map[string]int{}}
	serve(t, listen(t, p, PolicySocket), d.policy)
	if err := in.Answers(t.Context(), mta.Needs{}); err != nil {
		t.Fatal(err)
	}
	if n := d.count("CONNECT "); n != 1 {
		t.Errorf("the policy service was asked %d times", n)
	}
	if err := os.Remove(milter); err != nil {
		t.Fatal(err)
	}
	want("there is no socket "+milter, time.Minute)
}

// Sockets and their directory as a restore by root leaves them.
func TestSocketsThatPostfixMayNotUseAreNamed(t *testing.T) {
	t.Parallel()
	in, p := configured(t, "")
	runDaemon(t, p)
	for _, path := range []string{p.Private("mailbag-policy"), p.Private("mailbag-milter"), filepath.Dir(p.Private(""))} {
		if err := os.Chown(path, 0, 0); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o770); err != nil {
			t.Fatal(err)
		}
		if err := in.Answers(t.Context(), mta.Needs{}); !errors.Is(err, mta.ErrSilent) || !strings.Contains(err.Error(), "the user postfix may not connect to "+p.QueueDir()) {
			t.Errorf("%s: %v", path, err)
		}
		if err := os.Chmod(path, 0o777); err != nil {
			t.Fatal(err)
		}
		if err := in.Answers(t.Context(), mta.Needs{}); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	err := answer.Policy.Ask(t.Context(), p.Private("mailbag-policy"), "no-such-user", "nobody")
	if err == nil || !strings.Contains(err.Error(), "no user no-such-user") {
		t.Error(err)
	}
}
