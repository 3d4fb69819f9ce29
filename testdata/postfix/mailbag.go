package postfixtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Name is that of the command group of mailbag that wires the instance.
func (in *Instance) Name() string { return "postfix" }

func (in *Instance) String() string { return "Postfix" }

// Command is a program that finds this instance where it looks for the machine's Postfix (MAIL_CONFIG).
func (in *Instance) Command(path string, args ...string) *exec.Cmd {
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), "MAIL_CONFIG="+in.ConfigDir())
	return cmd
}

// Wiring are the arguments with which mailbag is told to set up this instance, or to check it.
func (in *Instance) Wiring(verb string) []string {
	return []string{"postfix", verb, "--config-dir", in.ConfigDir()}
}

// Socket is where mailbag-policyd listens for this instance, by the name "policy" or "milter".
func (in *Instance) Socket(name string) string { return in.Private("mailbag-" + name) }

// Tables is the directory of mailbag's tables.
func (in *Instance) Tables() string { return in.Path("tables") }

// Settings are the lines of [policy] that say where both are.
func (in *Instance) Settings() string {
	return fmt.Sprintf("listen = \"unix:%s\"\nmilter = \"unix:%s\"\ntables = %q\n", in.Socket("policy"), in.Socket("milter"), in.Tables())
}

// Held is the account for whose turns mail waits that takes a way in a table; held is false for another way.
func (in *Instance) Held(way string) (account string, held bool) {
	socket, held := strings.CutPrefix(way, "mailbag-turn:unix:")
	return strings.TrimSuffix(filepath.Base(socket), ".sock"), held
}

// User is root: the machine's Postfix knows no user of mailbag's.
func (in *Instance) User() int { return 0 }

// Helper is none.
func (in *Instance) Helper() (program, socket string) { return "", "" }

// Gid is the group with which Postfix delivers.
func (in *Instance) Gid() int {
	_, gid, _ := postfixUser() // the instance was built with it
	return gid
}

// HoldAll puts all messages on hold, or takes them off hold.
func (in *Instance) HoldAll(on bool) error {
	option := "-H"
	if on {
		option = "-h"
	}
	_, err := in.run("postsuper", option, "ALL")
	return err
}

// Settle has main.cf count as old: see age.
func (in *Instance) Settle() error { return in.age() }

// Close is Stop.
func (in *Instance) Close() error { return in.Stop() }

// Sendmail submits a message, with CRLF line ends, as a program of the host does.
func (in *Instance) Sendmail(data, from string, to ...string) error {
	cmd := exec.Command("/usr/sbin/sendmail", append([]string{"-C", in.ConfigDir(), "-G", "-i", "-f", from, "--"}, to...)...)
	cmd.Stdin = strings.NewReader(strings.ReplaceAll(data, "\r\n", "\n"))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("sendmail: %w: %s", err, out)
	}
	return nil
}

// Notified counts the messages, as logged, that tell senders of a failure.
func (in *Instance) Notified() int {
	return strings.Count(in.Log(), "sender non-delivery notification:")
}

// Bounced counts the recipients, as logged, that were given up.
func (in *Instance) Bounced() int { return strings.Count(in.Log(), "status=bounced") }
