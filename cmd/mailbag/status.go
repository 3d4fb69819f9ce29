package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"mailbag/meter"
)

// Exit statuses.
const (
	done   = 0
	failed = 1
	misuse = 2
)

// A usageError says that a command was called wrongly.
type usageError struct {
	command string
	err     error
}

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func wrongUsage(cmd *cobra.Command, format string, args ...any) error {
	return usageError{cmd.CommandPath(), fmt.Errorf(format, args...)}
}

// errReported ends a command with status 1 that has said all there is to say.
var errReported = errors.New("reported already")

// together refuses a flag that is given with one of others that it makes no sense with.
func together(cmd *cobra.Command, flag string, others ...string) error {
	for _, other := range others {
		if cmd.Flags().Changed(flag) && cmd.Flags().Changed(other) {
			return wrongUsage(cmd, "--%s and --%s do not go together", flag, other)
		}
	}
	return nil
}

// report says on stderr how a command ended, where it did not end well, and returns its status.
func (c *console) report(err error) int {
	var wrong usageError
	switch {
	case err == nil:
		return done
	case errors.Is(err, errReported), errors.Is(err, syscall.EPIPE):
		return failed
	case errors.As(err, &wrong):
		fmt.Fprintf(c.err, "mailbag: %s; see %q\n", sentence(err), wrong.command+" --help")
		return misuse
	}
	fmt.Fprintf(c.err, "mailbag: %s%s\n", sentence(err), advice(err))
	return failed
}

// sentence is the error in the operator's words, without the marks that programs tell errors by.
func sentence(err error) string {
	text := strings.TrimPrefix(err.Error(), meter.ErrInvalid.Error()+": ")
	if errors.Is(err, context.Canceled) {
		text = strings.ReplaceAll(text, context.Canceled.Error(), "interrupted")
	}
	return text
}

// advice is what to do about an error of the ledger; other errors say it themselves.
func advice(err error) string {
	if meter.WasMoved(err) {
		return ""
	}
	for _, known := range []struct {
		err  error
		todo string
	}{
		{meter.ErrNoLedger, `"mailbag postfix setup", "mailbag exim setup" or "mailbag account add" makes it, --config names other settings`},
		{meter.ErrSettings, `see database and [cluster] in the settings`},
		{meter.ErrUnavailable, `see that it can be written by you and its disk is not full, or that most of its nodes run, and try again`},
		{meter.ErrNoAccount, `"mailbag account list" shows all`},
		{meter.ErrNameTaken, `choose another name`},
		{meter.ErrDomainTaken, `"mailbag domain remove" takes it from there`},
		{meter.ErrNoDomain, `"mailbag account show" lists the account's domains, "mailbag domain add" adds one`},
		{meter.ErrNoNetwork, `"mailbag account show" lists the account's networks`},
		{meter.ErrMailboxTaken, `"mailbag passwd" gives it a new password`},
		{meter.ErrMonthClosed, `adjust a month that is open`},
		{meter.ErrNoPlan, `"mailbag plan list" shows all, "mailbag plan add" adds one`},
		{meter.ErrPlanTaken, `"mailbag plan show" shows it, "mailbag plan set" changes it`},
		{meter.ErrPlanInUse, `"mailbag account set NAME --plan OTHER" gives one another, --plan '' none`},
		{meter.ErrNoMailbox, `"mailbag mailbox list" shows those of an account`},
	} {
		if errors.Is(err, known.err) {
			return "; " + known.todo
		}
	}
	return ""
}

// outputError makes a failed write to stdout readable.
func outputError(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("the output could not be written: %w", err)
}

// arguments checks that a command has the arguments that its use line names. The name of one that
// may be missing is in brackets, that of one that may come again ends in dots.
func arguments(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		for i, name := range names {
			if i >= len(args) && name[0] != '[' {
				return wrongUsage(cmd, "the argument %s is missing", strings.TrimSuffix(name, "..."))
			}
		}
		if repeated := len(names) > 0 && strings.HasSuffix(names[len(names)-1], "..."); len(args) > len(names) && !repeated {
			return wrongUsage(cmd, "the argument %q is one too many", args[len(names)])
		}
		return nil
	}
}
