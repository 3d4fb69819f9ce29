// Package service runs mailbag's programs as they are installed, at a directory of their own: with a
// private Postfix for the tests and the demo, or alone for measurements.
//
// A [Service] touches nothing outside its directories. Who starts a daemon with it has to stop it;
// the kernel ends it at the latest with the process that started it.
package service

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"mailbag/policy/routes"
	postfixtest "mailbag/testdata/postfix"
)

const patience = 30 * time.Second // for a daemon to come up, or for Postfix to do its part

// Service is mailbag at a directory. Its own daemon is mailbag-policyd, without which there is nothing.
type Service struct {
	*Daemon
	Turnd *Daemon
	Popd  *Daemon

	Config   string // settings file
	Ledger   string
	ODMR     string // address of mailbag-turnd's front end
	ODMRTLS  string // and where TLS begins at once
	POP3     string // address of mailbag-popd
	POP3S    string
	Maildirs string

	bin     string
	dir     string
	postfix *postfixtest.Instance // nil: no Postfix
}

// New writes the settings of a service into dir, which must exist. The programs are in bin. With a
// Postfix its sockets are in that one's private directory, else in dir.
func New(bin, dir string, postfix *postfixtest.Instance) (*Service, error) {
	s := &Service{
		Config:   filepath.Join(dir, "mailbag.toml"),
		Ledger:   filepath.Join(dir, "mailbag.db"),
		Maildirs: filepath.Join(dir, "maildirs"),
		bin:      bin,
		dir:      dir,
		postfix:  postfix,
	}
	var metrics [3]string
	for _, at := range []*string{&s.ODMR, &s.ODMRTLS, &s.POP3, &s.POP3S, &metrics[0], &metrics[1], &metrics[2]} {
		port, err := postfixtest.FreePort()
		if err != nil {
			return nil, err
		}
		*at = fmt.Sprintf("127.0.0.1:%d", port)
	}
	s.Daemon = &Daemon{Program: "mailbag-policyd", Metrics: metrics[0], service: s, sockets: []socket{
		{"policy", "unix", s.Socket("policy")}, {"milter", "unix", s.Socket("milter")}}}
	s.Turnd = &Daemon{Program: "mailbag-turnd", Metrics: metrics[1], service: s, sockets: []socket{{"odmr", "tcp", s.ODMR}}}
	s.Popd = &Daemon{Program: "mailbag-popd", Metrics: metrics[2], service: s, sockets: []socket{
		{"pop3", "tcp", s.POP3}, {"pop3s", "tcp", s.POP3S}, {"deliver", "unix", s.Deliver()}}}
	for _, sub := range []string{"turn", "tls"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	settings := fmt.Sprintf(`database = %q
[tls]
certificate = %q
key         = %q
[policy]
listen  = "unix:%s"
milter  = "unix:%s"
tables  = %q
metrics = %q
[turn]
listen     = [%q]
listen_tls = [%q]
sockets    = %q
control    = "unix:%s"
metrics    = %q
[pop]
listen     = [%q]
listen_tls = [%q]
deliver    = "unix:%s"
maildirs   = %q
metrics    = %q
`, s.Ledger, s.Certificate(), s.Key(), s.Socket("policy"), s.Socket("milter"), s.Tables(), metrics[0],
		s.ODMR, s.ODMRTLS, filepath.Join(dir, "turn"), filepath.Join(dir, "turnd.sock"), metrics[1],
		s.POP3, s.POP3S, s.Deliver(), s.Maildirs, metrics[2])
	return s, os.WriteFile(s.Config, []byte(settings), 0o644)
}

// Certificate and Key are the paths of the service's PEM files. They are there when a test puts them
// there; without them the daemons offer no TLS.
func (s *Service) Certificate() string { return filepath.Join(s.dir, "tls", "fullchain.pem") }
func (s *Service) Key() string         { return filepath.Join(s.dir, "tls", "privkey.pem") }

// Socket is the path of a socket of mailbag-policyd: policy or milter.
func (s *Service) Socket(name string) string {
	if s.postfix != nil {
		return s.postfix.Private("mailbag-" + name)
	}
	return filepath.Join(s.dir, name)
}

// Tables is the directory of the tables that mailbag-policyd writes.
func (s *Service) Tables() string { return filepath.Join(s.dir, "postfix") }

// Deliver is the path of the socket of mailbag-popd through which Postfix delivers.
func (s *Service) Deliver() string { return filepath.Join(s.dir, "deliver.sock") }

// TurnSocket is the path of the socket of an account's turn, which is there while the turn is open.
func (s *Service) TurnSocket(account string) string {
	return filepath.Join(s.dir, "turn", account+".sock")
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

// Lookup returns what one of the tables has for a key, empty where it has nothing.
func (s *Service) Lookup(table, key string) (string, error) {
	value, _, err := routes.Lookup(filepath.Join(s.Tables(), table), key)
	return value, err
}

// Route is the way that mail for a domain takes, empty where it is nobody's here.
func (s *Service) Route(domain string) (string, error) { return s.Lookup(routes.Routes, domain) }

// AwaitDomain waits until mailbag-policyd has told Postfix of the domain, and Postfix knows it. A way to a turn says whose
// the domain is, and has to name the account.
func (s *Service) AwaitDomain(domain, account string) error {
	if err := postfixtest.Wait(patience, domain+" is in force", func() bool {
		way, err := s.Route(domain)
		turn, held := strings.CutPrefix(way, "mailbag-turn:unix:")
		return err == nil && way != "" && (!held || turn == s.TurnSocket(account))
	}); err != nil {
		return err
	}
	if s.postfix == nil {
		return nil
	}
	return s.postfix.Reread()
}
