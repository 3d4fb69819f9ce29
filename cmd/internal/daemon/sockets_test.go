package daemon

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"mailbag/cmd/internal/settings"
)

func unixAddress(path string) settings.Address {
	return settings.Address{Network: "unix", Address: path}
}

func own(t *testing.T) *Sockets {
	t.Helper()
	return &Sockets{group: "postfix", log: slog.New(slog.NewTextHandler(t.Output(), nil))}
}

func answers(path string) bool {
	c, err := net.Dial("unix", path)
	if err == nil {
		c.Close()
	}
	return err == nil
}

// closedDirectory is one that nobody else gets into, as Postfix's private/ is.
func closedDirectory(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "private")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestUnixSocketIsReachableByAllWhoGetIntoItsClosedDirectoryAndGoneAfterwards(t *testing.T) {
	t.Parallel()
	path := filepath.Join(closedDirectory(t), "policy")
	all, err := own(t).Listen(t.Context(), Front{Name: "policy", At: []settings.Address{unixAddress(path)}})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.Stat(path); err != nil || got.Mode().Perm() != 0o666 {
		t.Errorf("the socket is %v, %v; want mode 0666", got.Mode(), err)
	}
	if !answers(path) {
		t.Error("nobody answers")
	}
	for range 2 {
		if err := all[0].Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("after the end the socket is still there: %v", err)
	}
}

func TestUnixSocketThatIsThereCanBeConnectedTo(t *testing.T) {
	t.Parallel()
	path := filepath.Join(closedDirectory(t), "policy")
	for range 300 {
		opened := make(chan net.Listener)
		go func() {
			l, err := ListenUnix(t.Context(), path, "postfix", own(t).log)
			if err != nil {
				t.Error(err)
			}
			opened <- l
		}()
		for !t.Failed() {
			if _, err := os.Lstat(path); err == nil {
				break
			}
		}
		c, err := net.Dial("unix", path)
		l := <-opened
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestUnixSocketInAnOpenDirectoryIsClosedToOthers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "deliver.sock")
	all, err := own(t).Listen(t.Context(), Front{Name: "deliver", At: []settings.Address{unixAddress(path)}})
	if err != nil {
		t.Fatal(err)
	}
	defer all[0].Close()
	if got, err := os.Stat(path); err != nil || got.Mode().Perm() != 0o660 {
		t.Errorf("the socket is %v, %v; want mode 0660", got.Mode(), err)
	}
}

func TestSocketOfAnInstanceThatWasKilledIsReplaced(t *testing.T) {
	t.Parallel()
	path := filepath.Join(closedDirectory(t), "policy")
	for _, left := range []string{path, path + "~"} { // the second by one that was just opening it
		stale, err := net.Listen("unix", left)
		if err != nil {
			t.Fatal(err)
		}
		stale.(*net.UnixListener).SetUnlinkOnClose(false)
		stale.Close()
		all, err := own(t).Listen(t.Context(), Front{Name: "policy", At: []settings.Address{unixAddress(path)}})
		if err != nil {
			t.Fatal(err)
		}
		if !answers(path) {
			t.Error("nobody answers")
		}
		all[0].Close()
		if _, err := os.Lstat(left); !os.IsNotExist(err) {
			t.Errorf("%s is still there: %v", left, err)
		}
	}
}

func TestSocketOfARunningInstanceIsLeftAlone(t *testing.T) {
	t.Parallel()
	path := filepath.Join(closedDirectory(t), "policy")
	first, err := own(t).Listen(t.Context(), Front{Name: "policy", At: []settings.Address{unixAddress(path)}})
	if err != nil {
		t.Fatal(err)
	}
	defer first[0].Close()
	if _, err := own(t).Listen(t.Context(), Front{Name: "policy", At: []settings.Address{unixAddress(path)}}); err == nil || !strings.Contains(err.Error(), "another instance answers on "+path) {
		t.Errorf("the error is %v", err)
	}
	if !answers(path) {
		t.Error("the first instance lost its socket")
	}
}

func TestOfManyInstancesThatStartTogetherOneGetsTheSocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(closedDirectory(t), "policy")
	stale, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	stale.(*net.UnixListener).SetUnlinkOnClose(false)
	stale.Close()
	var (
		all sync.WaitGroup
		got = make(chan net.Listener, 20)
	)
	for range cap(got) {
		all.Go(func() {
			if l, err := own(t).Listen(t.Context(), Front{Name: "policy", At: []settings.Address{unixAddress(path)}}); err == nil {
				got <- l[0]
			}
		})
	}
	all.Wait()
	if len(got) != 1 {
		t.Errorf("%d instances have the socket; want one", len(got))
	}
	close(got)
	for l := range got {
		l.Close()
	}
}

// hold keeps a directory locked until the end of the test, as anybody can who can open it.
func hold(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
}

func TestAStrangersLockKeepsNoSocketFromOpeningAndClosing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	hold(t, dir)
	path := filepath.Join(dir, "turnd.sock")
	all, err := own(t).Listen(t.Context(), Front{Name: "control", At: []settings.Address{unixAddress(path)}})
	if err != nil {
		t.Fatal(err)
	}
	if err := all[0].Close(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestFileThatIsNoSocketIsLeftAlone(t *testing.T) {
	t.Parallel()
	path := filepath.Join(closedDirectory(t), "policy")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := own(t).Listen(t.Context(), Front{Name: "policy", At: []settings.Address{unixAddress(path)}}); err == nil || !strings.Contains(err.Error(), "is not a socket") {
		t.Errorf("the error is %v", err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "precious" {
		t.Errorf("the file is %q, %v", text, err)
	}
}

func TestSuccessorsSocketSurvivesTheEndOfItsPredecessor(t *testing.T) {
	t.Parallel()
	path := filepath.Join(closedDirectory(t), "policy")
	first, err := own(t).Listen(t.Context(), Front{Name: "policy", At: []settings.Address{unixAddress(path)}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	second, err := own(t).Listen(t.Context(), Front{Name: "policy", At: []settings.Address{unixAddress(path)}})
	if err != nil {
		t.Fatal(err)
	}
	defer second[0].Close()
	first[0].Close()
	if !answers(path) {
		t.Error("the successor lost its socket")
	}
}

func TestMissingDirectoryIsNamed(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "missing", "policy")
	if _, err := own(t).Listen(t.Context(), Front{Name: "policy", At: []settings.Address{unixAddress(path)}}); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "create it") {
		t.Errorf("the error is %v", err)
	}
}

func TestBothFamiliesListenOnOnePort(t *testing.T) {
	t.Parallel()
	four, err := own(t).Listen(t.Context(), Front{Name: "pop3", At: []settings.Address{{Network: "tcp4", Address: "0.0.0.0:0"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer four[0].Close()
	_, port, _ := net.SplitHostPort(four[0].Addr().String())
	six, err := own(t).Listen(t.Context(), Front{Name: "pop3", At: []settings.Address{{Network: "tcp6", Address: "[::]:" + port}}})
	if err != nil {
		t.Skipf("no IPv6 here: %v", err)
	}
	six[0].Close()
}

func TestPortInUseIsNamedAndWhatWasOpenedIsClosed(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	path := filepath.Join(closedDirectory(t), "policy")
	in := settings.Address{Network: "tcp4", Address: taken.Addr().String()}
	if _, err := own(t).Listen(t.Context(), Front{Name: "policy", At: []settings.Address{unixAddress(path), in}}); err == nil || !strings.Contains(err.Error(), "another program listens on "+in.Address) {
		t.Errorf("the error is %v", err)
	}
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("the first socket is left behind: %v", err)
	}
}

func TestZeroAddressOpensNothing(t *testing.T) {
	t.Parallel()
	if all, err := own(t).Listen(t.Context(), Front{Name: "metrics", At: []settings.Address{{}}}); err != nil || len(all) != 0 {
		t.Errorf("Listen = %v, %v", all, err)
	}
}

// activated is set in a process that TestSocketsOfSystemd... starts as systemd would.
const activated = "MAILBAG_TEST_ACTIVATED"

func TestSocketsOfSystemdTakeThePlaceOfOwnOnesAndStay(t *testing.T) {
	t.Parallel()
	if path := os.Getenv(activated); path != "" {
		serveActivated(t, path)
		return
	}
	dir := closedDirectory(t)
	var files []*os.File
	for _, name := range []string{"policy", "other"} {
		l, err := net.Listen("unix", filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		l.(*net.UnixListener).SetUnlinkOnClose(false)
		f, err := l.(*net.UnixListener).File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		l.Close()
		files = append(files, f)
	}
	// LISTEN_PID has to be the number of the process itself, which only the process knows.
	c := exec.CommandContext(t.Context(), "/bin/sh", "-c", `LISTEN_PID=$$ exec "$@"`, "sh", os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	c.Env = append(os.Environ(), "LISTEN_FDS=2", "LISTEN_FDNAMES=policy:other", activated+"="+filepath.Join(dir, "own"))
	c.ExtraFiles = files
	out := new(strings.Builder)
	c.Stdout, c.Stderr = out, out
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("unix", filepath.Join(dir, "policy"))
	if err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || line != "activated\n" {
		t.Errorf("read %q, %v", line, err)
	}
	conn.Close()
	if err := c.Wait(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if !strings.Contains(out.String(), "name=other") {
		t.Errorf("no word of the socket that nobody uses:\n%s", out)
	}
	if !strings.Contains(out.String(), "systemd listens elsewhere") {
		t.Errorf("no word of the socket that is not where the settings say:\n%s", out)
	}
	if _, err := os.Lstat(filepath.Join(dir, "policy")); err != nil {
		t.Errorf("systemd's socket is gone: %v", err)
	}
}

func serveActivated(t *testing.T, ownPath string) {
	sockets, err := PassedSockets("postfix", slog.New(slog.NewTextHandler(os.Stdout, nil)))
	if err != nil {
		t.Fatal(err)
	}
	all, err := sockets.Listen(context.Background(), Front{Name: "policy", At: []settings.Address{unixAddress(ownPath)}})
	if err != nil || len(all) != 1 {
		t.Fatalf("Listen = %v, %v", all, err)
	}
	if _, err := os.Lstat(ownPath); err == nil {
		t.Error("an own socket was opened beside systemd's")
	}
	sockets.CloseUnused()
	c, err := all[0].Accept()
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(c, "activated")
	c.Close()
	all[0].Close()
}
