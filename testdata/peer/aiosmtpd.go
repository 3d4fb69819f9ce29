package peer

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	postfixtest "mailbag/testdata/postfix"
)

// Aiosmtpd is a mail server on Python's aiosmtpd, as small customers write their own: neither PIPELINING nor CHUNKING, and
// 550 to whom it does not know.
type Aiosmtpd struct {
	dir  string
	addr string
}

// The one for which Debian's package is; another may be first on the path.
const debiansPython = "/usr/bin/python3"

// RunAiosmtpd starts a server that knows these users for a test, and skips the test where it cannot run. It is stopped and
// removed when the test ends.
func RunAiosmtpd(t testing.TB, users []string) *Aiosmtpd {
	t.Helper()
	if err := exec.Command(debiansPython, "-c", "import aiosmtpd").Run(); err != nil {
		t.Skip("there is no aiosmtpd; install it (apt-get install python3-aiosmtpd)")
	}
	dir := postfixtest.ServerDir(t, "aiosmtpd")
	port, err := postfixtest.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	s := &Aiosmtpd{dir: dir, addr: fmt.Sprintf("127.0.0.1:%d", port)}
	known := filepath.Join(dir, "users")
	if err := errors.Join(os.Mkdir(s.mail(), 0o755), os.WriteFile(known, []byte(strings.Join(users, "\n")), 0o644)); err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(top(), "testdata", "peer", "testdata", "customer.py")
	cmd := exec.Command(debiansPython, script, fmt.Sprint(port), known, s.mail())
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // ended by a signal, and that is no news
		if t.Failed() && said.Len() > 0 {
			t.Logf("aiosmtpd said:\n%s", &said)
		}
	})
	if err := answers(s.addr); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *Aiosmtpd) mail() string { return filepath.Join(s.dir, "mail") }

// Addr is the server's host and port.
func (s *Aiosmtpd) Addr() string { return s.addr }

// Messages are what it has taken so far, in no order, as they came.
func (s *Aiosmtpd) Messages() ([][]byte, error) {
	whole, err := filepath.Glob(filepath.Join(s.mail(), "*[0-9]"))
	if err != nil {
		return nil, err
	}
	var all [][]byte
	for _, name := range whole {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		all = append(all, text)
	}
	return all, nil
}
