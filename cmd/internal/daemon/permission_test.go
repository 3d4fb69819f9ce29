package daemon

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"mailbag/cmd/internal/settings"
)

// nobody is a user without any privilege.
const nobody = 65534

// listenAsNobody opens a front on a thread that has lost its privileges, and ends with them.
func listenAsNobody(t *testing.T, front Front) error {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can become somebody else")
	}
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked, so that nobody else gets this thread
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, nobody, nobody, nobody); errno != 0 {
			result <- errno
			return
		}
		all, err := own(t).Listen(t.Context(), front)
		for _, l := range all {
			l.Close()
		}
		result <- err
	}()
	return <-result
}

func TestPortThatOnlyRootMayOpenEndsTheDaemonWithWhatToDo(t *testing.T) {
	t.Parallel()
	if start, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start"); err != nil || strings.TrimSpace(string(start)) != "1024" {
		t.Skipf("ports below 1024 are not root's alone here: %q, %v", start, err)
	}
	at := []settings.Address{{Network: "tcp4", Address: "127.0.0.1:587"}}
	for _, c := range []struct {
		front Front
		cure  []string
	}{
		{Front{Name: "pop3", Unit: "mailbag-pop3.socket", At: at}, []string{"mailbag-pop3.socket has ListenStream=587 (systemctl edit mailbag-pop3.socket)", "systemctl enable mailbag-pop3.socket", "from 1024 on"}},
		{Front{Name: "metrics", At: at}, []string{"127.0.0.1:587; choose a port from 1024 on"}},
	} {
		err := listenAsNobody(t, c.front)
		if !errors.As(err, new(finalError)) {
			t.Errorf("%s: the error is %v, after which the daemon is started again", c.front.Name, err)
			continue
		}
		for _, want := range c.cure {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q is not in %q", c.front.Name, want, err)
			}
		}
	}
}

func TestPortThatOnlyRootMayOpenAndAnotherProgramHasIsTriedAgain(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can take such a port")
	}
	taken, err := net.Listen("tcp4", "127.0.0.1:588")
	if err != nil {
		t.Skipf("no port to take: %v", err)
	}
	defer taken.Close()
	at := []settings.Address{{Network: "tcp4", Address: taken.Addr().String()}}
	err = listenAsNobody(t, Front{Name: "pop3", Unit: "mailbag-pop3.socket", At: at})
	if !errors.Is(err, syscall.EADDRINUSE) || errors.As(err, new(finalError)) {
		t.Errorf("the error is %v", err)
	}
}

func TestDirectoryThatIsClosedToTheDaemonEndsIt(t *testing.T) {
	t.Parallel()
	err := listenAsNobody(t, Front{Name: "control", At: []settings.Address{unixAddress(filepath.Join(closedDirectory(t), "control"))}})
	if !errors.As(err, new(finalError)) {
		t.Errorf("the error is %v, after which the daemon is started again", err)
	}
}

func TestSettingsThatSystemdDoesNotFollowAreNamed(t *testing.T) {
	t.Parallel()
	everywhere, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer everywhere.Close()
	_, port, _ := net.SplitHostPort(everywhere.Addr().String())
	for _, c := range []struct {
		told []string
		warn bool
	}{
		{[]string{"0.0.0.0:" + port, "[::]:" + port}, false},
		{[]string{":" + port}, false},
		{[]string{"127.0.0.1:" + port}, true}, // not everywhere
		{[]string{":1"}, true},
		{[]string{":" + port, ":1"}, true},
		{nil, true},
	} {
		var log strings.Builder
		front := Front{Name: "pop3", Unit: "mailbag-pop3.socket"}
		for _, text := range c.told {
			a, err := settings.ParseAddress(text)
			if err != nil {
				t.Fatal(err)
			}
			front.At = append(front.At, a)
		}
		s := &Sockets{log: slog.New(slog.NewTextHandler(&log, nil)), passed: map[string][]net.Listener{"pop3": {everywhere}}}
		if _, err := s.Listen(t.Context(), front); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(log.String(), "systemctl edit mailbag-pop3.socket") != c.warn {
			t.Errorf("settings %q: warned %t, want %t: %s", c.told, !c.warn, c.warn, &log)
		}
	}
}
