// Package service runs mailbag's programs as they are installed, at a directory of their own: with a
// private Postfix for the tests and the demo, or alone for measurements.
//
// A [Service] touches nothing outside its directories. Who starts a daemon with it has to stop it;
// the kernel ends it at the latest with the process that started it.
package service

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	postfixtest "mailbag/testdata/postfix"
)

const patience = 30 * time.Second // for a daemon to come up, or for Postfix to do its part

// Service is mailbag at a directory.
type Service struct {
	Config  string // settings file
	Ledger  string
	Metrics string // address of mailbag-policyd's metrics

	bin     string
	dir     string
	postfix *postfixtest.Instance // nil: no Postfix

	mu      sync.Mutex
	policyd *exec.Cmd // nil while it is down
	log     syncBuffer
	sockets []*os.File // held for the daemon, see HoldSockets
}

// New writes the settings of a service into dir, which must exist. The programs are in bin. With a
// Postfix its sockets are in that one's private directory, else in dir.
func New(bin, dir string, postfix *postfixtest.Instance) (*Service, error) {
	port, err := postfixtest.FreePort()
	if err != nil {
		return nil, err
	}
	s := &Service{
		Config:  filepath.Join(dir, "mailbag.toml"),
		Ledger:  filepath.Join(dir, "mailbag.db"),
		Metrics: fmt.Sprintf("127.0.0.1:%d", port),
		bin:     bin,
		dir:     dir,
		postfix: postfix,
	}
	settings := fmt.Sprintf(`database = %q
[policy]
listen  = "unix:%s"
lookup  = "unix:%s"
milter  = "unix:%s"
metrics = %q
[turn]
sockets = %q
[pop]
deliver = "unix:%s"
`, s.Ledger, s.Socket("policy"), s.Socket("lookup"), s.Socket("milter"), s.Metrics,
		filepath.Join(dir, "turn"), filepath.Join(dir, "deliver.sock"))
	return s, os.WriteFile(s.Config, []byte(settings), 0o644)
}

// Socket is the path of a socket of mailbag-policyd: policy, lookup or milter.
func (s *Service) Socket(name string) string {
	if s.postfix != nil {
		return s.postfix.Private("mailbag-" + name)
	}
	return filepath.Join(s.dir, name)
}

// Command is one of the programs, at this service.
func (s *Service) Command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.bin, program), args...)
	cmd.Env = append(os.Environ(), "MAILBAG_CONFIG="+s.Config)
	if s.postfix != nil {
		cmd.Env = append(cmd.Env, "MAIL_CONFIG="+s.postfix.ConfigDir())
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// Mailbag runs the command line and returns what it prints on both streams. The error has them too.
func (s *Service) Mailbag(args ...string) (out, errs string, err error) {
	cmd := s.Command("mailbag", args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), stderr.String(), fmt.Errorf("mailbag %s: %w\n%s%s", strings.Join(args, " "), err, &stdout, &stderr)
	}
	return stdout.String(), stderr.String(), nil
}

// Wire runs mailbag postfix setup.
func (s *Service) Wire() error {
	if _, _, err := s.Mailbag("postfix", "setup", "--config-dir", s.postfix.ConfigDir()); err != nil {
		return err
	}
	return s.settle()
}

// settle backdates main.cf: every program of Postfix waits while it is younger than a second or two.
func (s *Service) settle() error {
	past := time.Now().Add(-time.Minute)
	return os.Chtimes(filepath.Join(s.postfix.ConfigDir(), "main.cf"), past, past)
}

// Start starts mailbag-policyd and waits until it serves.
func (s *Service) Start() error {
	if err := s.Launch(); err != nil {
		return err
	}
	return postfixtest.Wait(patience, "mailbag-policyd serves", func() bool {
		_, err := s.Metric("mailbag_build_info")
		return err == nil
	})
}

// Launch starts mailbag-policyd without waiting, with the sockets that are held for it.
func (s *Service) Launch() error {
	cmd := s.Command("mailbag-policyd")
	if s.sockets != nil {
		// As systemd does it (sd_listen_fds(3)); only the process itself knows its ID.
		cmd.Args = []string{"sh", "-c", `LISTEN_PID=$$ exec "$0"`, cmd.Path}
		cmd.Path = "/bin/sh"
		cmd.ExtraFiles = s.sockets
		cmd.Env = append(cmd.Env, fmt.Sprint("LISTEN_FDS=", len(s.sockets)), "LISTEN_FDNAMES=policy:lookup:milter")
	}
	cmd.Stdout, cmd.Stderr = &s.log, &s.log
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.policyd != nil {
		return errors.New("mailbag-policyd runs already")
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	s.policyd = cmd
	return nil
}

// HoldSockets opens the sockets of mailbag-policyd for it, as systemd does, so that they outlive it. It
// must not run.
func (s *Service) HoldSockets() error {
	for _, name := range []string{"policy", "lookup", "milter"} {
		path := s.Socket(name)
		listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			return err
		}
		listener.SetUnlinkOnClose(false)
		file, err := listener.File()
		if err := errors.Join(err, listener.Close(), os.Chmod(path, 0o666)); err != nil {
			return err
		}
		s.sockets = append(s.sockets, file)
	}
	return nil
}

// Stop ends mailbag-policyd in the graceful way, and says how it ended. Stopping what does not run is
// no error.
func (s *Service) Stop() error { return s.end(syscall.SIGTERM) }

// Kill ends mailbag-policyd with no chance to finish anything.
func (s *Service) Kill() { _ = s.end(syscall.SIGKILL) }

func (s *Service) end(signal syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.policyd == nil {
		return nil
	}
	_ = s.policyd.Process.Signal(signal) // it may have ended by itself; Wait tells
	err := s.policyd.Wait()
	s.policyd = nil
	return err
}

// PID is the process ID of mailbag-policyd, 0 while it is down.
func (s *Service) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.policyd == nil {
		return 0
	}
	return s.policyd.Process.Pid
}

// Log is what mailbag-policyd has logged.
func (s *Service) Log() string { return s.log.String() }

// Lookup asks the lookup socket as Postfix would, for example "relay-domains acme.example".
func (s *Service) Lookup(request string) (string, error) {
	conn, err := net.DialTimeout("unix", s.Socket("lookup"), patience)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	fmt.Fprintf(conn, "%d:%s,", len(request), request)
	var n int
	if _, err := fmt.Fscanf(conn, "%d:", &n); err != nil {
		return "", err
	}
	reply := make([]byte, n)
	_, err = io.ReadFull(conn, reply)
	return string(reply), err
}

// AwaitDomain waits until mailbag-policyd knows the domain as the account's.
func (s *Service) AwaitDomain(domain, account string) error {
	return postfixtest.Wait(patience, domain+" is in force", func() bool {
		reply, err := s.Lookup("relay-domains " + domain)
		return err == nil && reply == "OK "+account
	})
}

// Metric reads the first sample of mailbag-policyd's metrics whose name and labels begin with name.
func (s *Service) Metric(name string) (float64, error) {
	client := http.Client{Timeout: patience}
	defer client.CloseIdleConnections()
	response, err := client.Get("http://" + s.Metrics + "/metrics")
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	page, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(page) {
		if fields := strings.Fields(string(line)); len(fields) == 2 && strings.HasPrefix(fields[0], name) {
			return strconv.ParseFloat(fields[1], 64)
		}
	}
	return 0, fmt.Errorf("mailbag-policyd has no metric %s", name)
}

// syncBuffer is a buffer that a process writes while somebody reads.
type syncBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}
