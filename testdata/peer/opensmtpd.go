package peer

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	postfixtest "mailbag/testdata/postfix"
)

// OpenSMTPD is a real OpenSMTPD as a customer's mail server, with the limits that it has by itself: a hundred messages
// a connection, and no PIPELINING. It takes mail for the addresses that it was given, answers 550 to all others, and
// puts every message into one Maildir, with a Received header of its own and LF line ends.
//
// Debian's package excludes Postfix's, so make deps unpacks it into .cache/opensmtpd. Its paths and its users are
// compiled in: it is run in a root directory of its own, in a mount and PID namespace that ends with it.
type OpenSMTPD struct {
	dir  string
	addr string
	cmd  *exec.Cmd // nil while it is down
}

var openSMTPD = filepath.Join(top(), ".cache", "opensmtpd")

// RequireOpenSMTPD skips the test where there is no OpenSMTPD to run, and says why.
func RequireOpenSMTPD(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("a private OpenSMTPD needs root; run the tests as root")
	}
	if _, err := os.Stat(filepath.Join(openSMTPD, "usr", "sbin", "smtpd")); err != nil {
		t.Skipf("there is no OpenSMTPD in %s; make deps puts it there on Debian", openSMTPD)
	}
	if out, err := exec.Command("unshare", "--mount", "--pid", "--fork", "true").CombinedOutput(); err != nil {
		t.Skipf("a private OpenSMTPD needs namespaces: unshare: %v: %s", err, out)
	}
}

// RunOpenSMTPD starts an OpenSMTPD that knows these users for a test. It is stopped and removed when the test ends.
func RunOpenSMTPD(t testing.TB, users []string) *OpenSMTPD {
	t.Helper()
	RequireOpenSMTPD(t)
	dir := postfixtest.ServerDir(t, "opensmtpd")
	port, err := postfixtest.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	s := &OpenSMTPD{dir: dir, addr: fmt.Sprintf("127.0.0.1:%d", port)}
	if err := s.lay(port, users); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(dir, "log"))
			t.Logf("OpenSMTPD logged:\n%s", log)
		}
		s.Stop()
	})
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	return s
}

// lay makes the root directory. The system's programs and libraries come into it when it starts.
func (s *OpenSMTPD) lay(port int, users []string) error {
	at := func(name string) string { return filepath.Join(s.dir, name) }
	for _, d := range []string{"usr/lib", "usr/lib64", "usr/bin", "dev", "etc", "run", "tmp", "mail", "var/spool/smtpd", "var/lib/opensmtpd/empty"} {
		if err := os.MkdirAll(at(d), 0o755); err != nil {
			return err
		}
	}
	for _, d := range []string{"usr/sbin", "usr/libexec"} {
		if err := os.CopyFS(at(d), os.DirFS(filepath.Join(openSMTPD, d))); err != nil {
			return err
		}
	}
	err := errors.Join(
		os.Symlink("usr/lib", at("lib")), os.Symlink("usr/lib64", at("lib64")), os.Symlink("usr/bin", at("bin")),
		os.Symlink("../run", at("var/run")),
		os.Chmod(at("tmp"), 0o1777), os.Chmod(at("var/spool/smtpd"), 0o711), os.Chown(at("mail"), nobody, nobody))
	if err != nil {
		return err
	}
	mailboxes := ""
	for _, u := range users {
		mailboxes += u + " nobody\n"
	}
	for name, text := range map[string]string{
		// The queue's user must not be the daemon's; nobody else has either number in here.
		"passwd": fmt.Sprintf("root:x:0:0::/:/bin/sh\nopensmtpd:x:991:991::/:/bin/false\nopensmtpq:x:992:992::/:/bin/false\n"+
			"nobody:x:%d:%[1]d::/mail:/bin/sh\n", nobody),
		"group":     fmt.Sprintf("root:x:0:\nopensmtpd:x:991:\nopensmtpq:x:992:\nnogroup:x:%d:\n", nobody),
		"hosts":     "127.0.0.1 localhost\n",
		"mailname":  "mail.customer.example\n",
		"known":     strings.Join(users, "\n") + "\n",
		"mailboxes": mailboxes,
		"smtpd.conf": fmt.Sprintf(`table known file:/etc/known
table mailboxes file:/etc/mailboxes
listen on 127.0.0.1 port %d
action "deliver" maildir "/mail/box" virtual <mailboxes>
match from any for any rcpt-to <known> action "deliver"
`, port),
	} {
		if err := os.WriteFile(at(filepath.Join("etc", name)), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Addr is OpenSMTPD's host and port.
func (s *OpenSMTPD) Addr() string { return s.addr }

// Start starts OpenSMTPD and waits until it answers.
func (s *OpenSMTPD) Start() error {
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	_ = os.Remove(filepath.Join(s.dir, "run", "smtpd.sock")) // of one that was ended
	const inside = `for d in usr/lib usr/lib64 usr/bin dev; do mount --rbind "/$d" "$0/$d" || exit 1; done; exec chroot "$0" /usr/sbin/smtpd -d`
	cmd := exec.Command("unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", inside, s.dir)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("cannot start OpenSMTPD: %w", err)
	}
	s.cmd = cmd
	if err := answers(s.addr); err != nil {
		s.Stop()
		said, _ := os.ReadFile(log.Name())
		return fmt.Errorf("OpenSMTPD: %w: it said %q", err, said)
	}
	return nil
}

// Stop ends OpenSMTPD: the first process of its namespace ends with unshare, and takes all others with it. Stopping it
// twice does nothing.
func (s *OpenSMTPD) Stop() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait() // ended by a signal, and that is no news
	s.cmd = nil
	// The namespace's processes are not children of this one: what is left of them is seen by the port.
	_ = postfixtest.Wait("OpenSMTPD to end", func() bool {
		conn, err := net.Dial("tcp", s.addr)
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	})
}

// Messages are what was delivered so far, in no order.
func (s *OpenSMTPD) Messages() ([][]byte, error) { return maildir(filepath.Join(s.dir, "mail", "box")) }
