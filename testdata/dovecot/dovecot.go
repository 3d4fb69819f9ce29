// Package dovecot runs a private Dovecot, as Debian packages it, for comparisons: on loopback, with a
// configuration of its own, and never the machine's own.
//
// Every user name with every password logs in, to the Maildir of that name below the instance's. The mail
// belongs to the user mail, since Dovecot does not serve root.
package dovecot

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	postfixtest "mailbag/testdata/postfix"
)

// Instance is a Dovecot at a directory.
type Instance struct {
	POP3  string // address
	LMTP  string // path of a socket
	Users string // directory of the Maildirs, by user name

	config string
	log    string
	cmd    *exec.Cmd
}

// New writes the configuration of an instance into dir, which must exist, belong to root and be open to others.
func New(dir string) (*Instance, error) {
	port, err := postfixtest.FreePort()
	if err != nil {
		return nil, err
	}
	in := &Instance{
		POP3:   fmt.Sprintf("127.0.0.1:%d", port),
		LMTP:   filepath.Join(dir, "lmtp"),
		Users:  filepath.Join(dir, "users"),
		config: filepath.Join(dir, "dovecot.conf"),
		log:    filepath.Join(dir, "log"),
	}
	config := fmt.Sprintf(`
base_dir = %[1]s/run
state_dir = %[1]s/state
log_path = %[1]s/log
protocols = pop3 lmtp
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
first_valid_uid = 1
mail_location = maildir:%[2]s/%%u
passdb {
  driver = static
  args = nopassword=y
}
userdb {
  driver = static
  args = uid=mail gid=mail home=%[1]s/home
}
service pop3-login {
  service_count = 0
  inet_listener pop3 {
    port = %[3]d
  }
  inet_listener pop3s {
    port = 0
  }
}
service lmtp {
  unix_listener %[4]s {
    mode = 0666
  }
}
`, dir, in.Users, port, in.LMTP)
	for _, sub := range []string{"run", "state", "home", "users"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	return in, errors.Join(os.WriteFile(in.config, []byte(config), 0o644), in.Own())
}

// Start starts Dovecot and waits until it serves.
func (in *Instance) Start() error {
	in.cmd = exec.Command("dovecot", "-F", "-c", in.config)
	in.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := in.cmd.Start(); err != nil {
		return err
	}
	err := postfixtest.Wait("Dovecot serves", func() bool {
		pop, err := net.Dial("tcp", in.POP3)
		if err != nil {
			return false
		}
		pop.Close()
		lmtp, err := net.Dial("unix", in.LMTP)
		if err != nil {
			return false
		}
		lmtp.Close()
		return true
	})
	if err != nil {
		text, _ := os.ReadFile(in.log)
		return errors.Join(fmt.Errorf("%w\n%s", err, text), in.Stop())
	}
	return nil
}

// Stop ends Dovecot.
func (in *Instance) Stop() error {
	if in.cmd == nil {
		return nil
	}
	_ = in.cmd.Process.Signal(syscall.SIGTERM)
	err := in.cmd.Wait()
	in.cmd = nil
	return err
}

// Own gives all mail to the user mail, whoever put it there, or what is below the given users' Maildirs.
func (in *Instance) Own(users ...string) error {
	mail, err := user.Lookup("mail")
	if err != nil {
		return err
	}
	uid, err := strconv.Atoi(mail.Uid)
	if err != nil {
		return err
	}
	gid, err := strconv.Atoi(mail.Gid)
	if err != nil {
		return err
	}
	if len(users) == 0 {
		users = []string{""}
	}
	for _, user := range users {
		err = errors.Join(err, filepath.WalkDir(filepath.Join(in.Users, user), func(path string, _ os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return os.Lchown(path, uid, gid)
		}))
	}
	return err
}
