package peer

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	postfixtest "mailbag/testdata/postfix"
)

// Exim is a real Exim as a customer's mail server: it takes mail from loopback, offers what Exim offers
// (CHUNKING, PIPELINING, SIZE, 8BITMIME, SMTPUTF8, DSN) and puts every message into one Maildir as it came, with no
// header of its own and with LF line ends.
//
// Debian's package excludes Postfix's, so make deps unpacks it into .cache/exim at the top of the project, from where
// the program is run. It wants a user that only the package makes; libnss-wrapper, unpacked there too, shows it one.
type Exim struct {
	dir  string
	addr string
	cmd  *exec.Cmd // nil while it is down
}

// Where make deps unpacks what is needed.
var (
	cache   = filepath.Join(top(), ".cache", "exim")
	program = filepath.Join(cache, "usr", "sbin", "exim4")
)

// top is the top of the project's tree.
func top() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}

// nobody is whom Exim runs as.
const nobody = 65534

// RequireExim skips the test where there is no Exim to run, and says why.
func RequireExim(t testing.TB) {
	t.Helper()
	if err := eximAvailable(); err != nil {
		t.Skip(err)
	}
}

func eximAvailable() error {
	if os.Getuid() != 0 {
		return errors.New("a private Exim needs root; run the tests as root")
	}
	if _, err := os.Stat(program); err != nil {
		return fmt.Errorf("there is no Exim in %s; make deps puts it there on Debian", cache)
	}
	if _, err := wrapper(); err != nil {
		return err
	}
	return nil
}

func wrapper() (string, error) {
	found, err := filepath.Glob(filepath.Join(cache, "usr", "lib", "*", "libnss_wrapper.so"))
	if err != nil || len(found) == 0 {
		return "", fmt.Errorf("there is no libnss_wrapper.so in %s; make deps puts it there on Debian", cache)
	}
	return found[0], nil
}

// EximLimits are what an Exim does not take. The zero value takes all mail; the limits of its own defaults hold besides,
// such as ten commands that are no mail.
type EximLimits struct {
	Users         []string // the addresses that it knows; others get a 550. nil: all
	PerConnection int      // messages; 0 is no limit
}

// RunExim starts an Exim that takes everything for a test. It is stopped and removed when the test ends.
func RunExim(t testing.TB) *Exim {
	t.Helper()
	return RunLimitedExim(t, EximLimits{})
}

// RunLimitedExim is RunExim with limits.
func RunLimitedExim(t testing.TB, limits EximLimits) *Exim {
	t.Helper()
	RequireExim(t)
	dir := postfixtest.ServerDir(t, "exim")
	e, err := newExim(dir, limits)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(dir, "log", "mainlog"))
			t.Logf("Exim logged:\n%s", log)
		}
		if err := e.Stop(); err != nil {
			t.Error(err)
		}
	})
	if err := e.Start(); err != nil {
		t.Fatal(err)
	}
	return e
}

func newExim(dir string, limits EximLimits) (*Exim, error) {
	port, err := postfixtest.FreePort()
	if err != nil {
		return nil, err
	}
	e := &Exim{dir: dir, addr: fmt.Sprintf("127.0.0.1:%d", port)}
	for _, d := range []string{"spool", "log", "mail"} {
		path := filepath.Join(dir, d)
		if err := errors.Join(os.Mkdir(path, 0o755), os.Chown(path, nobody, nobody)); err != nil {
			return nil, err
		}
	}
	for name, text := range map[string]string{
		"passwd":    fmt.Sprintf("root:x:0:0::/:/bin/sh\nDebian-exim:x:%d:%d::/:/bin/false\n", nobody, nobody),
		"group":     fmt.Sprintf("root:x:0:\nDebian-exim:x:%d:\n", nobody),
		"exim.conf": e.configuration(port, limits),
		"users":     strings.Join(limits.Users, "\n") + "\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	return e, nil
}

func (e *Exim) configuration(port int, limits EximLimits) string {
	known := "*"
	if limits.Users != nil {
		known = "lsearch;" + filepath.Join(e.dir, "users")
	}
	return strings.NewReplacer("DIR", e.dir, "PORT", fmt.Sprint(port), "PROGRAM", program, "USER", fmt.Sprint(nobody),
		"KNOWN", known, "PER_CONNECTION", fmt.Sprint(limits.PerConnection)).Replace(`
primary_hostname = mail.customer.example
exim_path = PROGRAM
exim_user = USER
exim_group = USER
deliver_drop_privilege = true
never_users =
spool_directory = DIR/spool
log_file_path = DIR/log/%slog
keep_environment = LD_PRELOAD : NSS_WRAPPER_PASSWD : NSS_WRAPPER_GROUP

local_interfaces = <; 127.0.0.1
daemon_smtp_ports = PORT
smtp_accept_max = 500
smtp_accept_queue_per_connection = 0
smtp_accept_max_per_connection = PER_CONNECTION
message_size_limit = 100M
host_lookup =
tls_advertise_hosts =
smtputf8_advertise_hosts = *
dsn_advertise_hosts = *
acl_smtp_rcpt = known
received_header_text =

begin acl
known:
  accept recipients = KNOWN
  deny message = Unknown user

begin routers
all:
  driver = accept
  transport = maildir

begin transports
maildir:
  driver = appendfile
  directory = DIR/mail
  maildir_format = true
  user = USER
  group = USER

begin retry
* * F,1h,1m
`)
}

// EximExpands is what an Exim with a configuration makes of an expression. It skips the test where there is no Exim.
func EximExpands(t testing.TB, configuration, expression string) string {
	t.Helper()
	RequireExim(t)
	e, err := newExim(postfixtest.ServerDir(t, "exim"), EximLimits{})
	if err != nil {
		t.Fatal(err)
	}
	own := fmt.Sprintf("exim_user = %d\nexim_group = %d\nkeep_environment =\nspool_directory = %s/spool\n", nobody, nobody, e.dir)
	if err := os.WriteFile(filepath.Join(e.dir, "exim.conf"), []byte(own+configuration), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd, err := e.command("-be", expression)
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("Exim: %v\n%s", err, out)
	}
	return strings.TrimSpace(string(out))
}

// Addr is Exim's host and port.
func (e *Exim) Addr() string { return e.addr }

// Start starts Exim and waits until it answers.
func (e *Exim) Start() error {
	cmd, err := e.command("-bdf")
	if err != nil {
		return err
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("cannot start Exim: %w", err)
	}
	e.cmd = cmd
	if err := answers(e.addr); err != nil {
		err = errors.Join(err, e.Stop())
		return fmt.Errorf("Exim: %w: it said %q", err, said.String())
	}
	return nil
}

// command is Exim with its configuration, which sees its user.
func (e *Exim) command(args ...string) (*exec.Cmd, error) {
	library, err := wrapper()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(program, append([]string{"-C", filepath.Join(e.dir, "exim.conf")}, args...)...)
	cmd.Env = []string{"LD_PRELOAD=" + library, "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
		"NSS_WRAPPER_PASSWD=" + filepath.Join(e.dir, "passwd"), "NSS_WRAPPER_GROUP=" + filepath.Join(e.dir, "group")}
	return cmd, nil
}

// Stop ends Exim with every process that it has. Stopping it twice does nothing.
func (e *Exim) Stop() error {
	if e.cmd == nil {
		return nil
	}
	group := e.cmd.Process.Pid
	_ = syscall.Kill(-group, syscall.SIGTERM)
	_ = e.cmd.Wait() // ended by a signal, and that is no news
	e.cmd = nil
	return postfixtest.Wait("Exim's processes to end", func() bool {
		return syscall.Kill(-group, syscall.SIGKILL) != nil
	})
}

// Messages are what was delivered so far, in no order, with LF line ends.
func (e *Exim) Messages() ([][]byte, error) { return maildir(filepath.Join(e.dir, "mail")) }
