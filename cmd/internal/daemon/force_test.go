package daemon

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"mailbag/cmd/internal/mta"
)

// A patientService serves until it is told to stop.
type patientService struct{}

func (patientService) Serve(graceful, _ context.Context, ready func()) error {
	ready()
	<-graceful.Done()
	return nil
}
func (patientService) Health(context.Context) error { return nil }
func (patientService) Status() string               { return "well" }

// Not parallel: it sets the environment, and gets the signals of the whole process.
func TestHangupPutsTheFileIntoForce(t *testing.T) {
	said := notifySocket(t)
	file := filepath.Join(t.TempDir(), "mailbag.toml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(want ...string) {
		t.Helper()
		for _, each := range want {
			if got := <-said; got != each {
				t.Errorf("systemd was told %q; want %q", got, each)
			}
		}
	}
	var now Settings
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	p := Program{Name: "mailbag-policyd", New: func(s Settings, _ mta.System, _ *slog.Logger) Service {
		now = s
		return patientService{}
	}}
	write("[limits]\nmessages = 5\n")
	ended := make(chan int)
	go func() { ended <- p.Main([]string{"--config", file}, log, log) }()
	expect("READY=1", "STATUS=well")

	logged := 0
	for _, c := range []struct {
		text     string
		messages int64  // that are in force
		status   string // empty: as before
		log      string
	}{
		{"[limits]\nmessages = 6\n", 6, "", `in_force="limits.messages 5 -> 6"`},
		{"[limits]\nmesages = 7\n", 6, "well; the former settings stay in force: the settings file " + file + " cannot be used: line 2: limits.mesages: there is no such key; [limits] has messages, bytes, on_limit",
			"run: systemctl reload mailbag-policyd"},
		{"database = '/m.db'\npop.listen = []\n[limits]\nmessages = 8\n", 8, "well; needs a restart: database", "database '/var/lib/mailbag/mailbag.db' -> '/m.db'"},
		{"[limits]\nmessages = 8\n", 8, "well", "msg=\"settings were read again\""},
	} {
		write(c.text)
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		expect("RELOADING=1", "READY=1")
		if c.status != "" {
			expect("STATUS=" + c.status)
		}
		if got := now(); got.Limits.Messages != c.messages || got.Database != "/var/lib/mailbag/mailbag.db" {
			t.Errorf("%q: in force are %+v", c.text, got)
		}
		text, err := os.ReadFile(log.Name())
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text[logged:]), c.log) {
			t.Errorf("%q: %s is not in the log:\n%s", c.text, c.log, text[logged:])
		}
		logged = len(text)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if status := <-ended; status != Done {
		t.Errorf("status %d", status)
	}
}
