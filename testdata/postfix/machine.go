package postfixtest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"sync"
	"syscall"
	"testing"
)

// RequirePostfix skips the test on a machine that cannot run a private Postfix, and says why.
func RequirePostfix(t testing.TB) {
	t.Helper()
	if err := Available(); err != nil {
		t.Skip(err)
	}
}

// Available is nil where a private Postfix can run.
func Available() error {
	if os.Getuid() != 0 {
		return errors.New("a private Postfix needs root; run the tests as root")
	}
	for _, name := range []string{"postfix", "postconf", "postqueue"} {
		if _, err := program(name); err != nil {
			return err
		}
	}
	_, _, err := postfixUser()
	return err
}

// program finds one of Postfix's commands: sbin is not on everybody's path.
func program(name string) (string, error) {
	for _, dir := range []string{"/usr/sbin/", "/usr/local/sbin/"} {
		if st, err := os.Stat(dir + name); err == nil && st.Mode()&0o111 != 0 {
			return dir + name, nil
		}
	}
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	return "", fmt.Errorf("there is no program %s on this machine; install Postfix (apt-get install postfix)", name)
}

func postfixUser() (uid, gid int, err error) {
	u, err := user.Lookup("postfix")
	if err != nil {
		return 0, 0, fmt.Errorf("there is no user postfix on this machine; install Postfix (apt-get install postfix): %w", err)
	}
	uid, err = strconv.Atoi(u.Uid)
	if err != nil {
		return 0, 0, err
	}
	gid, err = strconv.Atoi(u.Gid)
	return uid, gid, err
}

// ServerDir is a directory for a server of a test, removed at its end. t.TempDir is closed to the server's own user, and
// its path is too long for unix sockets.
func ServerDir(t testing.TB, name string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "mailbag-"+name+"-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

var given struct {
	sync.Mutex
	ports map[int]net.Listener
}

// FreePort returns a TCP port of 127.0.0.1 that nobody listens on, and never the same one twice, in one process or in
// several that run at once. It is below the range from which the kernel takes the ports of outgoing connections, so that it
// stays free while its server is being restarted.
func FreePort() (int, error) {
	given.Lock()
	defer given.Unlock()
	if given.ports == nil {
		given.ports = map[int]net.Listener{}
	}
	for range 1000 {
		port := 10000 + rand.IntN(20000)
		if given.ports[port] != nil {
			continue
		}
		// The name is this process's for its whole life (unix(7), abstract sockets). It comes first: whoever looks whether
		// a port is free has it for a moment, and another process may have been given it already.
		mark, err := net.Listen("unix", fmt.Sprintf("@mailbag-test-port-%d", port))
		if err != nil {
			continue
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			mark.Close()
			continue
		}
		if err := closeListener(l); err != nil {
			mark.Close()
			return 0, fmt.Errorf("cannot release port %d: %w", port, err)
		}
		given.ports[port] = mark
		return port, nil
	}
	return 0, errors.New("no free TCP port on 127.0.0.1 between 10000 and 30000")
}

// closeListener ends a TCP listener in every process at once. A child that is being started by another goroutine has a
// copy of it until its execve(2), and the port would be taken for as long.
func closeListener(l net.Listener) error {
	raw, err := l.(*net.TCPListener).SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { _ = syscall.Shutdown(int(fd), syscall.SHUT_RDWR) })
	}
	return errors.Join(err, l.Close())
}
