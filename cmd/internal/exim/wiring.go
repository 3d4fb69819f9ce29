package exim

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"mailbag/cmd/internal/answer"
	"mailbag/cmd/internal/mta"
	"mailbag/cmd/internal/wholefile"
)

var _ mta.Wiring = Instance{}

const (
	policySocket    = "/run/mailbag/policy.sock"
	tablesDirectory = "/var/lib/mailbag/exim"
)

// Words are what people call things in Exim.
func (in Instance) Words() mta.Words {
	return mta.Words{
		Name: "Exim", Command: "exim", Unit: "exim4.service", Program: "exim4",
		Start: "systemctl start exim4", Status: "systemctl status exim4", Reload: "systemctl reload exim4", Test: "exim4 -bV",
		Log:    "/var/log/exim4/mainlog and /var/log/exim4/paniclog",
		Unhold: unhold, Delete: "exim4 -qGmailbag -Mrm",
		Refuses: refuses,
		Reach:   "run: systemctl restart mailbag-eximd.socket mailbag-turnd; what the helper did: journalctl -u mailbag-eximd",
	}
}

// unhold thaws a message, for which Exim wants to be told its queue.
func unhold(e mta.Entry) string {
	return strings.Join(append([]string{"exim4"}, onMessages(queueOf(e), "-Mt", nil)...), " ")
}

// refuses is for what Debian's check_rcpt says of local parts (CHECK_RCPT_REMOTE_LOCALPARTS): routes, paths and what a
// shell would read.
func refuses(local string) string {
	if strings.ContainsAny(local[:min(len(local), 1)], "./|") || strings.ContainsAny(local, "@%!`#&?") || strings.Contains(local, "/../") {
		return "Debian's Exim takes no such local part from outside (see CHECK_RCPT_REMOTE_LOCALPARTS in acl/30_exim4-config_check_rcpt)"
	}
	return ""
}

// Places are where mailbag and Exim meet, unless the settings say otherwise.
func (in Instance) Places() mta.Places {
	return mta.Places{Policy: policySocket, Tables: tablesDirectory, Group: owner, Helper: "mailbag-eximd"}
}

// FormerLifetimes are none: how long Exim keeps mail of the accounts is said by rules that are ours alone.
func (in Instance) FormerLifetimes(context.Context) (mta.Lifetimes, error) {
	return mta.Lifetimes{}, nil
}

// Answers asks mailbag-policyd as Exim's processes do, or will. The error is mta.ErrSilent.
func (in Instance) Answers(ctx context.Context, n mta.Needs) error {
	path := n.Policy
	if macros, err := in.options(ctx, "macros"); path == "" && err == nil {
		path = macros["MAILBAG_POLICY"]
	}
	path = cmp.Or(strings.TrimPrefix(path, "unix:"), policySocket)
	if err := answer.Policy.Ask(ctx, path, owner, "Exim's"); err != nil {
		return fmt.Errorf("%w: %w", mta.ErrSilent, err)
	}
	return nil
}

// Lock waits until nobody else plans changes of this Exim, and keeps others from it until unlock is called.
func (in Instance) Lock(ctx context.Context) (unlock func(), err error) {
	unlock, err = wholefile.Lock(ctx, confdir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w: there is no directory %s", mta.ErrMissing, confdir)
	case err != nil && ctx.Err() == nil:
		return nil, fmt.Errorf("the configuration of Exim cannot be locked: %w", err)
	}
	return unlock, err
}

// pidFiles are those of Debian's daemon, and of its second one where queue runs have their own.
var pidFiles = []string{"/run/exim4/exim.pid", "/run/exim4/eximqr.pid"}

// daemons are the processes by the files, as far as they are Exim's.
func daemons() []int {
	var out []int
	for _, path := range pidFiles {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			continue
		}
		// An upgrade removes the program of a daemon that still runs.
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		if name := strings.TrimSuffix(filepath.Base(exe), " (deleted)"); err == nil && slices.Contains([]string{"exim4", "exim"}, name) {
			out = append(out, pid)
		}
	}
	return out
}

// Running reports whether Exim's daemon runs.
func (in Instance) Running(context.Context) (bool, error) { return len(daemons()) > 0, nil }

// reload has the daemon read its configuration, which SIGHUP does by executing it anew.
func (in Instance) reload(context.Context) (bool, error) {
	all := daemons()
	for _, pid := range all {
		if err := syscall.Kill(pid, syscall.SIGHUP); err != nil {
			return false, fmt.Errorf("the configuration was changed, but Exim cannot be told to read it: %w; run: systemctl reload exim4", err)
		}
	}
	return len(all) > 0, nil
}
