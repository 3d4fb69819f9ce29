// Package postfix is mailbag's hand on an existing Postfix: it wires the daemons into main.cf and master.cf, checks
// that wiring and takes it back ([Instance.Plan], [Instance.Check], [Instance.PlanRemoval]), and reads and releases
// the queue ([Instance.Queue], [Instance.Release]). Mail of our own it submits as any program does ([Instance.Submit]).
//
// Everything goes through Postfix's own commands (postconf, postqueue, postsuper, postmap, postfix, sendmail), so that no file
// format is guessed. What the operator configured is kept, with its macros as they stand; the former values are
// remembered in a file beside main.cf ([FormerFile]), so that a removal restores them.
//
// It does not notice that somebody else edits main.cf in the same moment; neither does postconf.
//
// Security: changing the configuration and expiring messages need root. Queue IDs and names are checked before they
// become arguments; no shell is involved. The file of former values has what main.cf and master.cf
// have, and who may not read these may not read it.
package postfix

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"mailbag/cmd/internal/mta"
	"mailbag/meter"
	"mailbag/policy/routes"
)

// The errors of package mta in this MTA's words.
var (
	errMissing  = mta.Worded(mta.ErrMissing, "postfix is not installed")
	errTooOld   = mta.Worded(mta.ErrTooOld, "postfix is too old")
	errBroken   = mta.Worded(mta.ErrBroken, "the configuration of Postfix is broken")
	errNotWired = mta.Worded(mta.ErrNotWired, "mailbag is not wired into this Postfix")
	errSilent   = mta.Worded(mta.ErrSilent, "mailbag-policyd does not answer Postfix")
)

// ErrNoTables is a Postfix without the type of table that mailbag writes.
var ErrNoTables = errors.New("postfix cannot read tables of type cdb")

// An Instance is one Postfix on this machine. The zero value is the default one.
type Instance struct {
	ConfigDir string // directory of main.cf; empty: Postfix's default
}

var _ mta.System = Instance{}

// At is the Postfix whose main.cf is in a directory.
func (in Instance) At(configDir string) mta.System { return Instance{configDir} }

// Words are what people call things in Postfix.
func (in Instance) Words() mta.Words {
	return mta.Words{
		Name: "Postfix", Command: "postfix", Unit: "postfix.service", Program: "master",
		Start: "postfix start", Status: "postfix status", Reload: "postfix reload", Test: "postfix check",
		Log:    "journalctl -t postfix/smtpd -t postfix/master, or /var/log/mail.log",
		Unhold: func(mta.Entry) string { return "postsuper -H" }, Delete: "postsuper -d",
		Lingers: "Postfix's smtp processes",
		Refuses: refuses,
		Reach:   "run: postfix set-permissions; systemctl restart mailbag-turnd; its unit needs SupplementaryGroups=postdrop",
	}
}

// refuses is for an @, % or ! in a local part, which means a route, quoted or not, and a hyphen in front, which means an option
// (postconf(5)).
func refuses(local string) string {
	if strings.HasPrefix(local, "-") {
		return "it begins with a hyphen (see allow_min_user in postconf(5))"
	}
	if at := strings.IndexAny(local, "@%!"); at >= 0 {
		return fmt.Sprintf("the %c in its local part means a route to Postfix (see allow_untrusted_routing in postconf(5))", local[at])
	}
	return ""
}

// Places are those of Debian's Postfix, whose chrooted daemons reach sockets in private/ only.
func (in Instance) Places() mta.Places {
	return mta.Places{
		Policy: "/var/spool/postfix/" + PolicySocket, Milter: "/var/spool/postfix/" + MilterSocket,
		Tables: "/var/lib/mailbag/postfix", Group: "postfix",
	}
}

// Tables are the files that Postfix reads.
func (in Instance) Tables(s routes.Sockets, d *meter.Directory) []routes.Table {
	return s.Tables(d)
}

// Oldest Postfix that has everything we need: postsuper -e came with 3.5.
const (
	oldestMajor = 3
	oldestMinor = 5
)

// Version returns mail_version, such as "3.7.11". The error is mta.ErrMissing, mta.ErrTooOld or mta.ErrBroken.
func (in Instance) Version(ctx context.Context) (string, error) {
	out, err := in.run(ctx, "", "postconf", "-h", "mail_version")
	if errors.Is(err, mta.ErrMissing) {
		return "", err
	}
	if err != nil {
		return "", fmt.Errorf("%w: %w", errBroken, err)
	}
	version := strings.TrimSpace(out)
	if err := recentEnough(version); err != nil {
		return "", err
	}
	return version, nil
}

// recentEnough reads versions such as "3.7.11" and "3.9-20240101".
func recentEnough(version string) error {
	major, rest, _ := strings.Cut(version, ".")
	minor := rest[:len(rest)-len(strings.TrimLeft(rest, "0123456789"))]
	a, errA := strconv.Atoi(major)
	b, errB := strconv.Atoi(minor)
	if errA != nil || errB != nil {
		return fmt.Errorf("%w: cannot read its version %q", errBroken, version)
	}
	if a < oldestMajor || a == oldestMajor && b < oldestMinor {
		return fmt.Errorf("%w: this is Postfix %s, and mailbag needs %d.%d or later; upgrade Postfix", errTooOld, version, oldestMajor, oldestMinor)
	}
	return nil
}

// Sound runs postfix check. The error is mta.ErrBroken with what Postfix says. Needs root.
func (in Instance) Sound(ctx context.Context) error {
	if _, err := in.run(ctx, "", "postfix", "check"); err != nil {
		if errors.Is(err, mta.ErrMissing) {
			return err
		}
		return fmt.Errorf("%w; repair it first: %w", errBroken, err)
	}
	return nil
}

// Running reports whether the mail system runs. Needs root.
func (in Instance) Running(ctx context.Context) (bool, error) {
	_, err := in.run(ctx, "", "postfix", "status")
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return false, ctx.Err()
	}
	return err == nil, err
}

// Reload makes a running Postfix read its configuration again. Needs root.
func (in Instance) Reload(ctx context.Context) error {
	if _, err := in.run(ctx, "", "postfix", "reload"); err != nil {
		return fmt.Errorf("cannot reload Postfix; run postfix reload by hand: %w", err)
	}
	return nil
}

// run executes one of Postfix's commands on this instance and returns its standard output.
func (in Instance) run(ctx context.Context, stdin, name string, args ...string) (string, error) {
	return in.runOn(ctx, strings.NewReader(stdin), name, args...)
}

// runOn is run with an input that, where it is a file, the command gets itself.
func (in Instance) runOn(ctx context.Context, stdin io.Reader, name string, args ...string) (string, error) {
	cmd, err := in.command(ctx, name, args...)
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

func (in Instance) command(ctx context.Context, name string, args ...string) (*exec.Cmd, error) {
	path, err := program(name)
	if err != nil {
		return nil, err
	}
	if in.ConfigDir != "" {
		dir, err := filepath.Abs(in.ConfigDir) // postfix(1) changes its directory
		if err != nil {
			return nil, fmt.Errorf("cannot resolve the configuration directory %s: %w", in.ConfigDir, err)
		}
		flag := "-c"
		if name == "sendmail" { // which has its options from another MTA
			flag = "-C"
		}
		args = append([]string{flag, dir}, args...)
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	return cmd, nil
}

// program finds a command of Postfix. sbin is not on everybody's path, and not on that of a daemon.
func program(name string) (string, error) {
	for _, dir := range []string{"/usr/sbin", "/usr/local/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%w: there is no program %s; install Postfix", errMissing, name)
	}
	return path, nil
}

// failure tells what a command said when it failed.
func failure(cmd *exec.Cmd, err error, diag string) error {
	said := strings.TrimSpace(diag)
	if said == "" {
		said = "it gave no reason"
	}
	return fmt.Errorf("%s failed (%w): %s", strings.Join(append([]string{filepath.Base(cmd.Path)}, cmd.Args[1:]...), " "), err, said)
}
