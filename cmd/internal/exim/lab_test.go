package exim

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"mailbag/cmd/internal/mta"
	postfixtest "mailbag/testdata/postfix"
)

// A lab is a real Exim with a spool of its own, in which mail from the domain held.example is held. It delivers c1.example and c2.example by LMTP
// to a turn, and everything else into one file.
type lab struct {
	Instance
	t   testing.TB
	dir string
}

// nobody is as whom it runs.
const nobody = 65534

func newLab(t testing.TB, split bool) *lab {
	t.Helper()
	if !(Instance{}).privileged() {
		t.Skip("a private Exim needs root")
	}
	original, environment := someExim(t)
	l := &lab{t: t, dir: postfixtest.ServerDir(t, "exim")}
	// Without its setuid bit it sees what shows it its user, also as that user.
	text, err := os.ReadFile(original)
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(l.dir, "exim4")
	if err := os.WriteFile(program, text, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"spool", "log", "mail"} {
		path := filepath.Join(l.dir, d)
		if err := errors.Join(os.Mkdir(path, 0o755), os.Chown(path, nobody, nobody)); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		"passwd": fmt.Sprintf("root:x:0:0::/:/bin/sh\nDebian-exim:x:%d:%d::/:/bin/false\n", nobody, nobody),
		"group":  fmt.Sprintf("root:x:0:\nDebian-exim:x:%d:\n", nobody),
		"exim.conf": strings.NewReplacer("DIR", l.dir, "PROGRAM", program, "USER", fmt.Sprint(nobody), "SPLIT", fmt.Sprint(split)).Replace(`
MAILBAG_ROUTES = DIR/routes.cdb
primary_hostname = mx.example.org
exim_path = PROGRAM
exim_user = USER
exim_group = USER
never_users =
deliver_drop_privilege = true
spool_directory = DIR/spool
split_spool_directory = SPLIT
log_file_path = DIR/log/%slog
keep_environment = LD_PRELOAD : NSS_WRAPPER_PASSWD : NSS_WRAPPER_GROUP
local_interfaces = <; 127.0.0.1 ; ::1 ; [192.0.2.1]:2525
daemon_smtp_ports = smtp : 587 : 465
tls_on_connect_ports = 465
extra_local_interfaces = 198.51.100.7
acl_not_smtp_start = start
dsn_advertise_hosts = *
remote_max_parallel = 1

begin acl
start:
  accept
    condition = ${if match_domain{$sender_address_domain}{held.example}}
    queue = mailbag
    control = queue
  accept

begin routers
turn:
  driver = accept
  domains = c1.example : c2.example
  transport = turn
all:
  driver = accept
  transport = file

begin transports
turn:
  driver = lmtp
  socket = DIR/turn.sock
  batch_max = 1000
  batch_id = turn
  user = USER
  group = USER
file:
  driver = appendfile
  file = DIR/mail/all
  envelope_to_add = true
  user = USER
  group = USER

begin retry
* * F,101d,6h
`),
	} {
		if err := os.WriteFile(filepath.Join(l.dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, e := range environment {
		name, value, _ := strings.Cut(strings.ReplaceAll(e, "DIR", l.dir), "=")
		if test, ok := t.(*testing.T); ok {
			test.Setenv(name, value)
		} else {
			os.Setenv(name, value)
		}
	}
	l.Command = []string{program, "-C", filepath.Join(l.dir, "exim.conf")}
	t.Cleanup(func() { l.wait("the processes of Exim to end", func() bool { return !runs(program) }) })
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(l.dir, "log", "mainlog"))
			t.Logf("Exim logged:\n%s", log)
		}
	})
	return l
}

// runs reports whether there is a process of a program.
func runs(program string) bool {
	processes, _ := filepath.Glob("/proc/[0-9]*/exe")
	return slices.ContainsFunc(processes, func(exe string) bool {
		is, err := os.Readlink(exe)
		return err == nil && is == program
	})
}

// someExim is the one that make deps unpacks, with what shows it its user, or else one that is installed.
func someExim(t testing.TB) (program string, environment []string) {
	_, file, _, _ := runtime.Caller(0)
	cache := filepath.Join(filepath.Dir(file), "..", "..", "..", ".cache", "exim")
	program = filepath.Join(cache, "usr", "sbin", "exim4")
	if _, err := os.Stat(program); err == nil {
		wrapper, _ := filepath.Glob(filepath.Join(cache, "usr", "lib", "*", "libnss_wrapper.so"))
		if len(wrapper) > 0 {
			return program, []string{"LD_PRELOAD=" + wrapper[0], "NSS_WRAPPER_PASSWD=DIR/passwd", "NSS_WRAPPER_GROUP=DIR/group"}
		}
	}
	if _, err := os.Stat("/usr/sbin/exim4"); err != nil {
		t.Skip("there is no Exim on this machine; make deps puts it into .cache/exim on Debian")
	}
	return "/usr/sbin/exim4", nil
}

// submit has Exim take a message, and does not have it delivered.
func (l *lab) submit(sender, body string, to ...string) {
	l.t.Helper()
	args := append(append([]string{}, l.Command[1:]...), "-odq", "-oi", "-f", sender, "--")
	cmd := exec.Command(l.Command[0], append(args, to...)...)
	cmd.Stdin = strings.NewReader("From: " + sender + "\nSubject: hello\n\n" + body)
	if out, err := cmd.CombinedOutput(); err != nil {
		l.t.Fatalf("Exim did not take a message: %v\n%s", err, out)
	}
}

// copies makes n messages of one, in the named queue, as Exim would have written them.
func (l *lab) copies(n int) []string {
	l.t.Helper()
	l.submit("x@held.example", strings.Repeat("some text\n", 300), "u@c1.example")
	first := l.queue()[0].ID
	input := filepath.Join(l.dir, "spool", "mailbag", "input")
	var text [2]string
	for i, suffix := range []string{"-H", "-D"} {
		all, err := os.ReadFile(filepath.Join(input, first[5:6], first+suffix))
		if err != nil {
			l.t.Fatal(err)
		}
		text[i] = string(all)
	}
	ids := []string{first}
	for i := range n - 1 {
		id := fmt.Sprintf("1%05d-%s-%02d", i%100_000, first[7:13], i/100_000)
		dir := filepath.Join(input, id[5:6])
		if err := os.MkdirAll(dir, 0o755); err != nil {
			l.t.Fatal(err)
		}
		_ = os.Chown(dir, nobody, nobody)
		for i, suffix := range []string{"-H", "-D"} {
			name := filepath.Join(dir, id+suffix)
			if err := os.WriteFile(name, []byte(strings.ReplaceAll(text[i], first, id)), 0o640); err != nil {
				l.t.Fatal(err)
			}
			_ = os.Chown(name, nobody, nobody)
		}
		ids = append(ids, id)
	}
	return ids
}

// exim runs a command of the operator.
func (l *lab) exim(args ...string) string {
	l.t.Helper()
	out, err := l.run(context.Background(), nil, args...)
	if err != nil {
		l.t.Fatal(err)
	}
	return out
}

// queue is what the queue has, in the order of the senders.
func (l *lab) queue() []mta.Entry {
	l.t.Helper()
	var all []mta.Entry
	for e, err := range l.Queue(context.Background()) {
		if err != nil {
			l.t.Fatal(err)
		}
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b mta.Entry) int { return strings.Compare(a.Sender, b.Sender) })
	return all
}

func (l *lab) ids() []string {
	var all []string
	for _, e := range l.queue() {
		all = append(all, e.ID)
	}
	return all
}

// wait waits for something that Exim does.
func (l *lab) wait(what string, done func() bool) {
	l.t.Helper()
	if err := postfixtest.Wait(what, done); err != nil {
		l.t.Fatal(err)
	}
}

// mailbox is what was delivered to others than the turn.
func (l *lab) mailbox() string {
	text, _ := os.ReadFile(filepath.Join(l.dir, "mail", "all"))
	return string(text)
}

// A turn is an LMTP server at the lab's socket, which takes everything but from recipients whose names begin with "later".
type turn struct {
	mu         sync.Mutex
	recipients []string
	hold       chan struct{} // a message is answered when it can be read from
	begun      chan struct{} // gets one for each message
	now, atMax int           // messages that are being delivered
}

func (l *lab) openTurn(hold chan struct{}) *turn {
	l.t.Helper()
	path := filepath.Join(l.dir, "turn.sock")
	listener, err := net.Listen("unix", path)
	if err == nil {
		err = os.Chmod(path, 0o666)
	}
	if err != nil {
		l.t.Fatal(err)
	}
	s := &turn{hold: hold, begun: make(chan struct{}, 10_000)}
	var work sync.WaitGroup
	work.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			work.Go(func() { s.serve(conn) })
		}
	})
	l.t.Cleanup(func() {
		listener.Close()
		work.Wait()
	})
	return s
}

func (s *turn) serve(conn net.Conn) {
	defer conn.Close()
	in := textproto.NewReader(bufio.NewReader(conn))
	say := func(line string) { fmt.Fprintf(conn, "%s\r\n", line) }
	say("220 turn")
	var to []string
	for {
		line, err := in.ReadLine()
		if err != nil {
			return
		}
		switch verb, rest, _ := strings.Cut(line, " "); verb {
		case "LHLO":
			say("250 turn")
		case "RCPT":
			address := strings.TrimSuffix(strings.TrimPrefix(rest, "TO:<"), ">")
			if strings.HasPrefix(address, "later") {
				say("450 later")
				continue
			}
			to = append(to, address)
			say("250 ok")
		case "DATA":
			say("354 go on")
			if _, err := in.ReadDotBytes(); err != nil {
				return
			}
			s.mu.Lock()
			s.now++
			s.atMax = max(s.atMax, s.now)
			s.mu.Unlock()
			s.begun <- struct{}{}
			if s.hold != nil {
				<-s.hold
			}
			// Once it has its answer, Exim's process may be gone and another one have begun.
			s.mu.Lock()
			s.now--
			s.recipients = append(s.recipients, to...)
			s.mu.Unlock()
			for range to {
				say("250 ok")
			}
			to = nil
		case "QUIT":
			say("221 bye")
			return
		default:
			say("250 ok")
		}
	}
}

func (s *turn) delivered() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(slices.Values(s.recipients))
}
