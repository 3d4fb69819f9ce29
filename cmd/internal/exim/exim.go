// Package exim is mailbag's hand on an existing Exim, as package postfix is on a Postfix. It is an mta.System.
//
// Held mail is in a queue of its own (queue_name "mailbag"), which no queue run of Exim touches. The queue is read from
// the spool's files, in the format that Exim documents ("Format of spool files"); it is changed by Exim's own commands
// alone. A file that Exim did not write whole, or in another format, is passed over with a word in the log.
//
// A delivery needs what Exim gets from its setuid bit, and daemons of ours go without: they run with NoNewPrivileges=. So a
// process that has no privileges, or would be in the way of a delivery, asks mailbag-eximd, which takes queue IDs
// and does the same with them ([Server]).
//
// Security: what becomes an argument of Exim is a queue ID, checked to the letter, or a constant; no shell is involved.
// Addresses are read and never written.
package exim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"mailbag/cmd/internal/mta"
)

// An Instance is the Exim of this machine. The zero value is Debian's, and does what needs privileges itself as root, and
// through the helper (mailbag-eximd) as any other user.
type Instance struct {
	Socket  string   // of the helper; empty: /run/mailbag/exim.sock
	Command []string // Exim's program, and arguments that it always gets; empty: the one that is installed

	helps bool // it is the helper's own
}

var _ mta.Queue = Instance{}

// DefaultSocket is where mailbag-eximd listens.
const DefaultSocket = "/run/mailbag/exim.sock"

// privileged reports whether Exim, started from here, can become whom it has to: it does not need the helper. Root under
// NoNewPrivileges= has an Exim whose setuid bit is without effect, and that freezes what it cannot deliver.
func (in Instance) privileged() bool { return (in.helps || os.Geteuid() == 0) && !noNewPrivileges() }

func noNewPrivileges() bool {
	no, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	return err != nil || no != 0
}

// BecomeOwner makes this process, which is root's, one of the user and group that Exim runs as. They may do with Exim's queue
// what root may, by Exim's setuid bit, and nothing else.
func (in Instance) BecomeOwner(ctx context.Context) error {
	o, err := in.options(ctx, "exim_user", "exim_group")
	if err != nil {
		return err
	}
	uid, gid, err := userNumbers(o["exim_user"], o["exim_group"])
	if err != nil {
		return fmt.Errorf("as whom Exim runs cannot be found out: %w", err)
	}
	for _, step := range []error{syscall.Setgroups([]int{gid}), syscall.Setresgid(gid, gid, gid), syscall.Setresuid(uid, uid, uid)} {
		if step != nil {
			return fmt.Errorf("this process cannot become Exim's user %s: %w", o["exim_user"], step)
		}
	}
	return nil
}

// userNumbers finds the numbers of a user and a group, which may be their numbers already.
func userNumbers(name, group string) (uid, gid int, err error) {
	if u, err := user.Lookup(name); err == nil {
		name = u.Uid
	}
	if g, err := user.LookupGroup(group); err == nil {
		group = g.Gid
	}
	uid, err = strconv.Atoi(name)
	if err == nil {
		gid, err = strconv.Atoi(group)
	}
	return uid, gid, err
}

// run executes Exim and returns its standard output.
func (in Instance) run(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
	cmd, err := in.command(ctx, args...)
	if err != nil {
		return "", err
	}
	var out, diag bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &diag
	if err := cmd.Run(); err != nil {
		return out.String(), failure(cmd, err, diag.String())
	}
	return out.String(), nil
}

func (in Instance) command(ctx context.Context, args ...string) (*exec.Cmd, error) {
	line := in.Command
	if len(line) == 0 {
		path, err := program()
		if err != nil {
			return nil, err
		}
		line = []string{path}
	}
	cmd := exec.CommandContext(ctx, line[0], append(line[1:len(line):len(line)], args...)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	return cmd, nil
}

// program finds Exim. sbin is not on everybody's path.
func program() (string, error) {
	for _, dir := range []string{"/usr/sbin", "/usr/local/sbin", "/usr/exim/bin"} {
		for _, name := range []string{"exim4", "exim"} {
			if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
				return path, nil
			}
		}
	}
	return "", fmt.Errorf("%w: there is no program exim4; install Exim", mta.ErrMissing)
}

// maxSaid is how much of what Exim said is kept for an error, in octets.
const maxSaid = 400

// errNoReason is a failure of which Exim said nothing on its standard error.
var errNoReason = errors.New("it gave no reason")

// failure tells what Exim said when it failed. The IDs of the messages are left out.
func failure(cmd *exec.Cmd, err error, diag string) error {
	words := []string{filepath.Base(cmd.Path)}
	for _, w := range cmd.Args[1:] {
		if !IsID(w) {
			words = append(words, w)
		}
	}
	if said := strings.TrimSpace(diag); said != "" {
		return fmt.Errorf("%s failed (%w): %.*s", strings.Join(words, " "), err, maxSaid, said)
	}
	return fmt.Errorf("%s failed (%w): %w", strings.Join(words, " "), err, errNoReason)
}
