package postfixtest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Patience is how long a test waits for what has to come. It only ends a test that would hang: machines on which all of the
// tests run at once may be thirty times as slow as they are for one.
const Patience = 5 * time.Minute

const (
	stopWithin = 10 * time.Second // and not by force
	poll       = 10 * time.Millisecond
)

// Prepare builds an instance for a test in a directory of its own, without starting it, so that the test can
// configure it. It is stopped and removed when the test ends; a failed test shows the end of its log.
func Prepare(t testing.TB, c Config) *Instance {
	t.Helper()
	RequirePostfix(t)
	dir := ServerDir(t, "postfix")
	in, err := New(dir, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("end of the log of Postfix:\n%s", tail(in.Log(), 60))
		}
		if err := in.Stop(); err != nil {
			t.Error(err)
		}
	})
	return in
}

// Run is Prepare and Start.
func Run(t testing.TB, c Config) *Instance {
	t.Helper()
	in := Prepare(t, c)
	if err := in.Start(); err != nil {
		t.Fatal(err)
	}
	return in
}

// master is the running master(8), a child of this process.
type master struct {
	pid  int           // also the process group of all its services
	done chan struct{} // closed when it has been waited for

	guard     *exec.Cmd
	guardLine io.WriteCloser // the guard acts when this is closed without a word
}

// Start starts Postfix and waits until its smtpd greets. It fails when postfix check does.
func (in *Instance) Start() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.master != nil {
		return fmt.Errorf("the Postfix in %s is running already", in.dir)
	}
	if err := in.age(); err != nil {
		return err
	}
	if _, err := in.run("postfix", "check"); err != nil {
		return fmt.Errorf("%w\n%s", err, tail(in.Log(), 20))
	}
	m, err := in.startMaster()
	if err != nil {
		return err
	}
	in.master = m
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	if err := in.waitReady(ctx, m); err != nil {
		return errors.Join(err, in.stop())
	}
	return nil
}

// startMaster runs master(8) as a direct child: postfix start would detach it, postfix start-fg would put a shell in
// between that knows nothing of its end.
func (in *Instance) startMaster() (*master, error) {
	daemons, err := in.Postconf("-xh", "daemon_directory")
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(filepath.Join(strings.TrimSpace(daemons), "master"), "-c", in.ConfigDir())
	cmd.Dir = in.QueueDir() // master expects to be started there
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("cannot start Postfix: %w", err)
	}
	m := &master{pid: cmd.Process.Pid, done: make(chan struct{})}
	go func() {
		defer close(m.done)
		_ = cmd.Wait() // ended by a signal, and that is no news
	}()
	if err := m.startGuard(); err != nil {
		_ = cmd.Process.Kill()
		<-m.done
		return nil, fmt.Errorf("cannot start the guard of Postfix: %w", err)
	}
	return m, nil
}

// startGuard starts a shell that ends Postfix when this process ends in whatever way, which closes the pipe. The
// kernel's parent-death signal would not do: master(8) changes its effective user, and that clears the signal.
func (m *master) startGuard() error {
	m.guard = exec.Command("/bin/sh", "-c", `read -r word || kill -s TERM -- "-$1"`, "guard", strconv.Itoa(m.pid))
	m.guard.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // out of reach of a ^C at the terminal
	var err error
	if m.guardLine, err = m.guard.StdinPipe(); err != nil {
		return err
	}
	return m.guard.Start()
}

// dismissGuard ends the guard without an action of its.
func (m *master) dismissGuard() error {
	_, err := io.WriteString(m.guardLine, "dismissed\n")
	return errors.Join(err, m.guard.Wait())
}

// WaitReady waits until smtpd greets with 220.
func (in *Instance) WaitReady(ctx context.Context) error {
	in.mu.Lock()
	m := in.master
	in.mu.Unlock()
	if m == nil {
		return fmt.Errorf("the Postfix in %s is not running", in.dir)
	}
	return in.waitReady(ctx, m)
}

func (in *Instance) waitReady(ctx context.Context, m *master) error {
	for {
		err := greets(ctx, in.addr)
		if err == nil {
			return nil
		}
		select {
		case <-m.done:
			return fmt.Errorf("postfix ended right after its start:\n%s", tail(in.Log(), 20))
		case <-ctx.Done():
			return fmt.Errorf("postfix does not answer on %s: %w\n%s", in.addr, err, tail(in.Log(), 20))
		case <-time.After(poll):
		}
	}
}

// greets asks one server for its greeting and leaves politely: a client that just goes away is logged as lost.
func greets(ctx context.Context, addr string) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	r := bufio.NewReader(conn)
	line, err := r.ReadString('\n')
	if err != nil {
		return err
	}
	if !strings.HasPrefix(line, "220 ") {
		return fmt.Errorf("unexpected greeting %q", line)
	}
	if _, err := conn.Write([]byte("QUIT\r\n")); err != nil {
		return err
	}
	_, err = r.ReadString('\n')
	return err
}

// Stop ends Postfix and waits until every process of it is gone. Stopping a stopped instance does nothing.
func (in *Instance) Stop() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.stop()
}

func (in *Instance) stop() error {
	m := in.master
	if m == nil {
		return nil
	}
	in.master = nil
	// What postfix stop does, without its pause of a second. master leads the process group of all its services.
	_ = syscall.Kill(m.pid, syscall.SIGTERM)
	deadline := time.Now().Add(stopWithin)
	select {
	case <-m.done:
	case <-time.After(stopWithin):
		_ = syscall.Kill(-m.pid, syscall.SIGKILL)
		<-m.done
	}
	for alive(m.pid) {
		switch late := time.Since(deadline); {
		case late > stopWithin:
			err := fmt.Errorf("processes of the Postfix in %s survive SIGKILL (process group %d)", in.dir, m.pid)
			return errors.Join(err, m.dismissGuard())
		case late > 0:
			_ = syscall.Kill(-m.pid, syscall.SIGKILL)
		}
		<-time.After(poll)
	}
	return m.dismissGuard()
}

// alive reports whether a process of the group still runs. Those that ended and wait for init to notice do not count.
func alive(group int) bool {
	if syscall.Kill(-group, 0) != nil {
		return false
	}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return true
	}
	for _, name := range stats {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // ended meanwhile
		}
		// The name of the program, in parentheses, may hold anything; behind it are the state, the parent and the group.
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		if len(fields) > 2 && fields[0] != "Z" && fields[2] == strconv.Itoa(group) {
			return true
		}
	}
	return false
}

// Running reports whether the instance was started, not stopped, and master(8) is alive.
func (in *Instance) Running() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.master == nil {
		return false
	}
	select {
	case <-in.master.done:
		return false
	default:
		return true
	}
}

// Reload makes a running Postfix read its configuration again, and waits until master(8) has done so.
func (in *Instance) Reload() error {
	if err := in.age(); err != nil {
		return err
	}
	before := strings.Count(in.Log(), reloaded)
	if _, err := in.run("postfix", "reload"); err != nil {
		return err
	}
	return Wait("postfix to reload", func() bool {
		return strings.Count(in.Log(), reloaded) > before
	})
}

const reloaded = ": reload -- version"

// Log is everything the instance has logged since it was built.
func (in *Instance) Log() string {
	text, err := os.ReadFile(in.logFile())
	if err != nil {
		return "" // nothing logged yet
	}
	return string(text)
}

// WaitLog waits until the log has text.
func (in *Instance) WaitLog(text string) error {
	return Wait(fmt.Sprintf("%q in the log of Postfix", text), func() bool {
		return strings.Contains(in.Log(), text)
	})
}

// Wait asks again and again until holds does, or gives up with an error that names what it waited for.
func Wait(what string, holds func() bool) error {
	deadline := time.After(Patience)
	for !holds() {
		select {
		case <-deadline:
			if holds() {
				return nil
			}
			return fmt.Errorf("waited %v for %s", Patience, what)
		case <-time.After(poll):
		}
	}
	return nil
}

// tail returns the last n lines of text.
func tail(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
