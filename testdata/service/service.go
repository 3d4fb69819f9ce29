// Package service runs mailbag's programs as they are installed, at a directory of their own: with a
// private MTA for the tests and the demo, or alone for measurements.
//
// A [Service] touches nothing outside its directories. Who starts a daemon with it has to stop it;
// the kernel ends it at the latest with the process that started it.
package service

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"mailbag/policy/routes"
	mtatest "mailbag/testdata/mta"
	postfixtest "mailbag/testdata/postfix"
)

// Service is mailbag at a directory. Its own daemon is mailbag-policyd, without which there is nothing.
type Service struct {
	*Daemon
	Turnd  *Daemon
	Popd   *Daemon
	Helper *Daemon // what the MTA asks for that takes privileges with it; nil: nothing

	Config   string // settings file
	Ledger   string
	ODMR     string // address of mailbag-turnd's front end
	ODMRTLS  string // and where TLS begins at once
	POP3     string // address of mailbag-popd
	POP3S    string
	Maildirs string

	bin string
	dir string
	mta mtatest.Instance // nil: none
}

// Programs copies the programs in bin into dir, where the users reach them as whom the daemons run, and returns where they are.
func Programs(bin, dir string) (string, error) {
	there := filepath.Join(dir, "bin")
	if out, err := exec.Command("cp", "-r", bin, there).CombinedOutput(); err != nil {
		return "", fmt.Errorf("the programs in %s cannot be copied: %w: %s", bin, err, out)
	}
	return there, nil
}

// New writes the settings of a service into dir, which must exist. The programs are in bin; the users of the daemons have to
// reach both. With an MTA they meet where that one says, else in dir.
func New(bin, dir string, mta mtatest.Instance) (*Service, error) {
	s := &Service{
		Config:   filepath.Join(dir, "mailbag.toml"),
		Ledger:   filepath.Join(dir, "mailbag.db"),
		Maildirs: filepath.Join(dir, "maildirs"),
		bin:      bin,
		dir:      dir,
		mta:      mta,
	}
	var metrics [3]string
	for _, at := range []*string{&s.ODMR, &s.ODMRTLS, &s.POP3, &s.POP3S, &metrics[0], &metrics[1], &metrics[2]} {
		port, err := postfixtest.FreePort()
		if err != nil {
			return nil, err
		}
		*at = fmt.Sprintf("127.0.0.1:%d", port)
	}
	s.Daemon = &Daemon{Program: "mailbag-policyd", Metrics: metrics[0], service: s}
	for _, name := range []string{"policy", "milter"} {
		if at := s.Socket(name); at != "" {
			s.Daemon.sockets = append(s.Daemon.sockets, socket{name, "unix", at})
		}
	}
	s.Turnd = &Daemon{Program: "mailbag-turnd", Metrics: metrics[1], service: s, sockets: []socket{{"odmr", "tcp", s.ODMR}}}
	s.Popd = &Daemon{Program: "mailbag-popd", Metrics: metrics[2], service: s, sockets: []socket{
		{"pop3", "tcp", s.POP3}, {"pop3s", "tcp", s.POP3S}, {"deliver", "unix", s.Deliver()}}}
	if mta != nil {
		if program, at := mta.Helper(); program != "" {
			s.Helper = &Daemon{Program: program, service: s, sockets: []socket{{"", "unix", at}}}
		}
	}
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
metrics = %q
%s[turn]
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
`, s.Ledger, s.Certificate(), s.Key(), metrics[0], s.meeting(),
		s.ODMR, s.ODMRTLS, filepath.Join(dir, "turn"), filepath.Join(dir, "turnd.sock"), metrics[1],
		s.POP3, s.POP3S, s.Deliver(), s.Maildirs, metrics[2])
	return s, errors.Join(os.WriteFile(s.Config, []byte(settings), 0o644), s.own())
}

// own gives the directories to those who use them, as the package does. What is made in them inherits their group.
func (s *Service) own() error {
	if s.mta == nil || s.mta.User() == 0 {
		return nil
	}
	give := func(dir string, user, group int) error {
		return errors.Join(os.Chown(dir, user, group), os.Chmod(dir, 0o755|os.ModeSetgid))
	}
	// The sockets of turns and deliveries are for the MTA, the certificates for the daemons.
	user := s.mta.User()
	return errors.Join(give(s.dir, user, s.mta.Gid()), give(filepath.Join(s.dir, "turn"), user, s.mta.Gid()), give(filepath.Join(s.dir, "tls"), 0, user))
}

// Daemons are all of the service's, in the order in which they are ended.
func (s *Service) Daemons() []*Daemon {
	all := []*Daemon{s.Popd, s.Turnd, s.Daemon}
	if s.Helper != nil {
		all = append(all, s.Helper)
	}
	return all
}

// Start starts mailbag-policyd, and before it the helper that it asks, unless that runs.
func (s *Service) Start() error {
	if s.Helper != nil && s.Helper.PID() == 0 {
		if err := s.Helper.Start(); err != nil {
			return err
		}
	}
	return s.Daemon.Start()
}

// Certificate and Key are the paths of the service's PEM files. They are there when a test puts them
// there; without them the daemons offer no TLS.
func (s *Service) Certificate() string { return filepath.Join(s.dir, "tls", "fullchain.pem") }
func (s *Service) Key() string         { return filepath.Join(s.dir, "tls", "privkey.pem") }

// meeting are the lines of [policy] that say where the MTA and mailbag meet.
func (s *Service) meeting() string {
	if s.mta != nil {
		return s.mta.Settings()
	}
	return fmt.Sprintf("listen = \"unix:%s\"\nmilter = \"unix:%s\"\ntables = %q\n", s.Socket("policy"), s.Socket("milter"), s.Tables())
}

// Socket is the path of a socket of mailbag-policyd: policy or milter. It is empty where the MTA has no use for it.
func (s *Service) Socket(name string) string {
	if s.mta != nil {
		return s.mta.Socket(name)
	}
	return filepath.Join(s.dir, name)
}

// Tables is the directory of the tables that mailbag-policyd writes.
func (s *Service) Tables() string {
	if s.mta != nil {
		return s.mta.Tables()
	}
	return filepath.Join(s.dir, "tables")
}

// Deliver is the path of the socket of mailbag-popd through which the MTA delivers.
func (s *Service) Deliver() string { return filepath.Join(s.dir, "deliver.sock") }

// TurnSocket is the path of the socket of an account's turn, which is there while the turn is open.
func (s *Service) TurnSocket(account string) string {
	return filepath.Join(s.dir, "turn", account+".sock")
}

// Command is one of the programs, at this service.
func (s *Service) Command(program string, args ...string) *exec.Cmd {
	return s.command(filepath.Join(s.bin, program), args...)
}

// daemon is one of the daemons as its unit starts it: with mailbag's user and no way to more, the helper with its capabilities.
func (s *Service) daemon(program string) *exec.Cmd {
	if s.mta == nil || s.mta.User() == 0 {
		return s.Command(program)
	}
	path := filepath.Join(s.bin, program)
	if s.Helper != nil && program == s.Helper.Program {
		return s.command("/usr/bin/setpriv", "--bounding-set=-all,+chown,+dac_override,+fowner,+setgid,+setuid", path)
	}
	user := strconv.Itoa(s.mta.User())
	return s.command("/usr/bin/setpriv", "--reuid="+user, "--regid="+user, "--clear-groups", "--bounding-set=-all", "--no-new-privs",
		"--pdeathsig=KILL", path)
}

func (s *Service) command(path string, args ...string) *exec.Cmd {
	var cmd *exec.Cmd
	if s.mta != nil {
		cmd = s.mta.Command(path, args...)
	} else {
		cmd = exec.Command(path, args...)
	}
	cmd.Env = append(cmd.Environ(), "MAILBAG_CONFIG="+s.Config)
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

// Wire makes mailbag part of the MTA's configuration.
func (s *Service) Wire() error {
	if _, _, err := s.Mailbag(s.mta.Wiring("setup")...); err != nil {
		return err
	}
	return s.mta.Settle()
}

// Lookup returns what one of the tables has for a key, empty where it has nothing.
func (s *Service) Lookup(table, key string) (string, error) {
	value, _, err := routes.Lookup(filepath.Join(s.Tables(), table), key)
	return value, err
}

// Route is the way that mail for a domain takes, empty where it is nobody's here.
func (s *Service) Route(domain string) (string, error) { return s.Lookup(routes.Routes, domain) }

// AwaitDomain waits until mailbag-policyd has told the MTA of the domain, and the MTA knows it. A way to a turn says whose
// the domain is, and has to name the account.
func (s *Service) AwaitDomain(domain, account string) error {
	if err := postfixtest.Wait(domain+" is in force", func() bool {
		way, err := s.Route(domain)
		if s.mta == nil || err != nil || way == "" {
			return err == nil && way != ""
		}
		whose, held := s.mta.Held(way)
		return !held || whose == account
	}); err != nil {
		return err
	}
	if s.mta == nil {
		return nil
	}
	return s.mta.Reread()
}
