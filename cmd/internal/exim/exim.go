// Package exim is mailbag's hand on an existing Exim, as package postfix is on a Postfix. It is an mta.System.
//
// Held mail is in a queue of its own (queue_name "mailbag"), which no queue run of Exim touches. The queue is read from
// the spool's files, in the format that Exim documents ("Format of spool files"); it is changed by Exim's own commands
// alone. A file that Exim did not write whole, or in another format, is passed over with a word in the log.
//
// A delivery needs what Exim gets from its setuid bit, and daemons of ours go without: they run with NoNewPrivileges=. So a
// process that has no privileges, or would be in the way of a delivery, asks mailbag-eximd, which takes queue IDs
// and does the same with them ([Serve]).
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
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"mailbag/cmd/internal/mta"
)

// An Instance is the Exim of this machine. The zero value is Debian's, and does what needs privileges itself as root, and
// through the helper (mailbag-eximd) as any other user.
type Instance struct {
	Socket  string   // of the helper; empty: /run/mailbag/exim.sock
	Command []string // Exim's program, and arguments that it always gets; empty: the one that is installed
}

// DefaultSocket is where mailbag-eximd listens.
const DefaultSocket = "/run/mailbag/exim.sock"

// privileged reports whether deliveries that this process starts can become what they have to: root under
// NoNewPrivileges= has an Exim whose setuid bit is without effect, and that freezes what it cannot deliver.
func privileged() bool {
	noNew, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	return os.Geteuid() == 0 && err == nil && noNew == 0
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
