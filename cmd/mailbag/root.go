package main

import (
	"bufio"
	"context"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"mailbag/cmd/internal/mta"
	"mailbag/cmd/internal/settings"
	"mailbag/cmd/internal/version"
)

// A loader reads the settings and tells which MTA they mean, as [host.Load] does.
type loader func(file string) (*settings.Settings, mta.System, error)

// run executes one command line on this process's streams, beside an MTA, and by a clock, and returns the
// exit status.
func run(args []string, in, out, errs *os.File, load loader, now func() time.Time) int {
	// Whoever reads our output may stop early: that is a failed write, not the death of a command
	// half-way through its work. Catching the signal, rather than ignoring it, keeps it as it is for
	// the MTA's programs.
	broken := make(chan os.Signal, 1)
	signal.Notify(broken, syscall.SIGPIPE)
	defer signal.Stop(broken)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	stdout, _ := out.Stat() // without it no file is taken for stdout
	c := &console{in: in, out: bufio.NewWriter(out), stdout: stdout, screen: term.IsTerminal(int(out.Fd())), err: errs, progress: term.IsTerminal(int(errs.Fd())),
		load: load, now: now}
	if term.IsTerminal(int(in.Fd())) {
		c.secret = terminal{in: in, prompts: errs}
	}
	return c.run(ctx, args)
}

// run executes one command line and returns the exit status.
func (c *console) run(ctx context.Context, args []string) int {
	root := c.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if flushErr := c.out.Flush(); err == nil {
		err = outputError(flushErr)
	}
	return c.report(err)
}

func (c *console) root() *cobra.Command {
	root := group("mailbag", "Mail bagging beside Postfix or Exim: accounts, usage and wiring",
		`mailbag keeps mail for customers whose own mail server is not always reachable.

Each customer is an account with one or more domains and a mode: backup (relayed to the customer's
server, retried while it is away), etrn and atrn (held until the customer asks for it) or pop3
(put into mailboxes that the customer fetches).`)
	root.Example = `  mailbag postfix setup
  mailbag account add acme --mode backup --domain acme.example --host mail.acme.example
  mailbag usage --month 2026-02 --json`
	root.Version = version.Line("mailbag")
	root.SetVersionTemplate("{{.Version}}\n")
	root.SilenceErrors, root.SilenceUsage = true, true
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetIn(c.in)
	root.SetOut(c.out)
	root.SetErr(c.err)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usageError{cmd.CommandPath(), err} })
	root.PersistentFlags().StringVar(&c.config, "config", "",
		"settings `FILE` (else "+settings.Environment+" from the environment, else "+settings.DefaultFile+")")
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	if err := root.MarkPersistentFlagFilename("config", "toml"); err != nil {
		panic(err) // only where the flag does not exist
	}
	root.AddCommand(c.findCommand(), c.statusCommand(), c.accountCommand(), c.passwdCommand(), c.domainCommand(), c.networkCommand(),
		c.mailboxCommand(), c.recipientCommand(), c.planCommand(), c.usageCommand(), c.invoiceCommand(), c.statementCommand(),
		c.queueCommand(), c.flushCommand(), c.turnsCommand(), c.sessionsCommand(), c.traceCommand(), c.expireCommand(), c.notifyCommand(),
		c.wiringCommand(onPostfix), c.wiringCommand(onExim), c.doctorCommand(), c.databaseCommand(), c.completionCommand(), c.manualCommand())
	return root
}

// group is a command that only has others below it, and alone shows which.
func group(use, short, long string, commands ...*cobra.Command) *cobra.Command {
	g := &cobra.Command{Use: use, Short: short, Long: long, SuggestionsMinimumDistance: 2}
	g.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		if similar := cmd.SuggestionsFor(args[0]); len(similar) > 0 {
			return wrongUsage(cmd, "%q has no command %q, perhaps %q is meant", cmd.CommandPath(), args[0], similar[0])
		}
		return wrongUsage(cmd, "%q has no command %q", cmd.CommandPath(), args[0])
	}
	g.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	g.AddCommand(commands...)
	return g
}

// console is what one command line reads from and writes to.
type console struct {
	in       io.Reader
	out      *bufio.Writer
	stdout   fs.FileInfo // what out leads to
	screen   bool        // which is a terminal
	err      io.Writer
	secret   secretReader // nil: nobody is there to be asked
	progress bool         // somebody watches stderr
	config   string       // --config
	load     loader
	now      func() time.Time // for the ledger and what is reckoned from it
}
