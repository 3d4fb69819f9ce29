package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mailbag/cmd/internal/mta"
)

func TestExitStatusTellsWhetherAnotherStartIsOfUse(t *testing.T) {
	t.Parallel()
	p := Program{Name: "mailbag-testd"} // none of these cases comes to New
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good, bad := file("good.toml", "[limits]\nmessages = 5\n"), file("bad.toml", "[limits]\nmesages = 5\n")
	for _, c := range []struct {
		args        []string
		status      int
		out, errors string
	}{
		{[]string{"--version"}, Done, p.Name + " ", ""},
		{[]string{"--check", "--config", good}, Done, "settings are valid\n", ""},
		{[]string{"--check", "--config", bad}, Misconfigured, "", "line 2: limits.mesages"},
		{[]string{"--check", "--config", filepath.Join(dir, "missing.toml")}, Misconfigured, "", "missing.toml"},
		{[]string{"--help"}, Done, "", "-config FILE"},
		{[]string{"--foo"}, WrongUsage, "", "-foo"},
		{[]string{"foo"}, WrongUsage, "", `unexpected argument "foo"`},
		{[]string{"--log-level", "chatty"}, WrongUsage, "", "chatty"},
	} {
		var out, complaint bytes.Buffer
		status := p.Main(c.args, &out, &complaint)
		if status != c.status || !strings.HasPrefix(out.String(), c.out) || !strings.Contains(complaint.String(), c.errors) {
			t.Errorf("%v: status %d, printed %q and %q; want %d, %q and %q", c.args, status, out.String(), complaint.String(), c.status, c.out, c.errors)
		}
	}
}

// failing is a service that cannot start.
type failing struct{ err error }

func (f failing) Serve(context.Context, context.Context, func()) error { return f.err }
func (f failing) Health(context.Context) error                         { return nil }
func (f failing) Status() string                                       { return "" }

// Not parallel: what systemd is told goes by the environment.
func TestFailureThatLastsIsToldFromOneThatMayPass(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	systemd, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer systemd.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	config := filepath.Join(t.TempDir(), "mailbag.toml")
	if err := os.WriteFile(config, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		err    error
		status int
		advice string
	}{
		{fmt.Errorf("no socket: %w", Final(errors.New("chown it"))), Misconfigured, "run: systemctl restart mailbag-testd"},
		{errors.New("the port is taken"), Failed, ""},
	} {
		var complaint bytes.Buffer
		p := Program{Name: "mailbag-testd", New: func(Settings, mta.System, *slog.Logger) Service { return failing{c.err} }}
		if status := p.Main([]string{"--config", config}, new(bytes.Buffer), &complaint); status != c.status || !strings.Contains(complaint.String(), c.advice) {
			t.Errorf("%v: status %d, want %d; logged %q", c.err, status, c.status, complaint.String())
		}
		var told string
		for buffer := make([]byte, 1024); !strings.HasPrefix(told, "STATUS="); {
			n, err := systemd.Read(buffer)
			if err != nil {
				t.Fatal(err)
			}
			told = string(buffer[:n])
		}
		if told != "STATUS="+c.err.Error() {
			t.Errorf("systemd was told %q", told)
		}
	}
}
