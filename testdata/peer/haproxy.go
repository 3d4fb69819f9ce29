package peer

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	postfixtest "mailbag/testdata/postfix"
)

// HAProxy is a real HAProxy in front of servers, which it looks after as well: it connects to each many times a second, and
// gives none up that is slow, for which it has no more than the time to the next look.
type HAProxy struct {
	At []string // host and port for each of the servers
}

// Behind is a server as HAProxy is to know it.
type Behind struct {
	Server  string // host and port
	Version int    // of the PROXY header, 1 or 2
}

// RunHAProxy starts one for a test, and skips that where there is none to run. It is stopped when the test ends.
func RunHAProxy(t testing.TB, servers ...Behind) *HAProxy {
	t.Helper()
	if _, err := exec.LookPath("haproxy"); err != nil {
		t.Skipf("there is no haproxy; install it (apt-get install haproxy): %v", err)
	}
	h := new(HAProxy)
	var settings strings.Builder
	settings.WriteString("global\n\tmaxconn 100\ndefaults\n\tmode tcp\n\ttimeout connect 10s\n\ttimeout client 1m\n\ttimeout server 1m\n")
	for i, s := range servers {
		port, err := postfixtest.FreePort()
		if err != nil {
			t.Fatal(err)
		}
		h.At = append(h.At, fmt.Sprintf("127.0.0.1:%d", port))
		header := map[int]string{1: "send-proxy", 2: "send-proxy-v2"}[s.Version]
		fmt.Fprintf(&settings, "listen front%d\n\tbind %s\n\tserver behind %s %s check inter 50ms fall 10000\n", i, h.At[i], s.Server, header)
	}
	file := filepath.Join(t.TempDir(), "haproxy.cfg")
	if err := os.WriteFile(file, []byte(settings.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("haproxy", "-db", "-f", file)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		if t.Failed() {
			t.Logf("HAProxy said:\n%s", &log)
		}
	})
	for _, at := range h.At {
		if err := answers(at); err != nil {
			t.Fatal(err)
		}
	}
	return h
}
