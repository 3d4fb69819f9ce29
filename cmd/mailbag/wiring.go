package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/spf13/cobra"

	"mailbag/cmd/internal/mta"
	"mailbag/cmd/internal/settings"
	"mailbag/meter"
	"mailbag/turnd/control"
)

// wiringTexts are the help of the commands that wire mailbag into one MTA, and what differs between them.
type wiringTexts struct {
	name, command string // as mta.Words have them
	configDir     bool   // a machine may have several of it
	standsBy      bool   // others' mail depends on mailbag-policyd
	without       string // what it does while mailbag-policyd does not answer

	group, setup, check, remove, stepAside, stepIn, standBy string
}

// A fitter is the commands that wire mailbag into one MTA.
type fitter struct {
	*console
	wiringTexts
	dir string // --config-dir
}

func (c *console) wiringCommand(texts wiringTexts) *cobra.Command {
	f := &fitter{console: c, wiringTexts: texts}
	cmd := group(f.command, fmt.Sprintf("Wire mailbag into %s, check the wiring, take it back", f.name), f.wiringTexts.group,
		f.setupCommand(), f.checkCommand(), f.removeCommand(), f.stepAsideCommand(), f.stepInCommand())
	if f.standsBy {
		cmd.AddCommand(f.standByCommand())
	}
	cmd.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		if os.Geteuid() != 0 && !cmd.HasSubCommands() {
			return fmt.Errorf("%s needs root; use sudo", cmd.CommandPath())
		}
		return nil
	}
	if f.configDir {
		cmd.PersistentFlags().StringVar(&f.dir, "config-dir", "", "`DIR`ectory of main.cf (else MAIL_CONFIG from the environment, else Postfix's default)")
		if err := cmd.MarkPersistentFlagDirname("config-dir"); err != nil {
			panic(err) // only where the flag does not exist
		}
	}
	return cmd
}

// settle reads the settings and finds the MTA that the command is about.
func (f *fitter) settle() (*settings.Settings, mta.System, error) {
	s, system, err := f.load(f.config)
	if err != nil {
		return nil, nil, err
	}
	system, err = f.own(system)
	return s, system, err
}

// atHand finds the MTA that the command is about also where the settings cannot be used: others' mail is not to wait until they are mended.
func (f *fitter) atHand() (mta.System, error) {
	_, system, err := f.load(f.config)
	if err != nil {
		f.note("warning: going on without settings: %v", err)
	}
	return f.own(system)
}

// own is the MTA where it is the one that the command is about.
func (f *fitter) own(system mta.System) (mta.System, error) {
	if w := system.Words(); w.Command != f.command {
		return nil, fmt.Errorf("mailbag runs beside %s on this machine, by what is installed or by mta in the settings, and not beside %s; see: mailbag %s", w.Name, f.name, w.Command)
	}
	if many, ok := system.(interface {
		At(configDir string) mta.System
	}); ok && f.dir != "" {
		system = many.At(f.dir)
	}
	return system, nil
}

func (f *fitter) setupCommand() *cobra.Command {
	var dryRun, force bool
	cmd := &cobra.Command{
		Use:     "setup",
		Short:   "Wire mailbag into " + f.name,
		Long:    f.setup,
		Example: fmt.Sprintf("  mailbag %s setup --dry-run\n  mailbag %[1]s setup", f.command),
		Args:    arguments(),
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "show the changes, make none")
	f.unansweredFlag(cmd, &force)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx := cmd.Context()
		_, system, err := f.settle()
		if err != nil {
			return err
		}
		needs, err := f.needs(ctx)
		if err != nil {
			return err
		}
		unlock, err := system.Lock(ctx)
		if err != nil {
			return err
		}
		defer unlock()
		plan, err := system.Plan(ctx, needs)
		if err != nil {
			return err
		}
		if plan.AsideSince().IsZero() {
			if err := f.answering(ctx, system, needs, force, dryRun); err != nil {
				return err
			}
		}
		f.showPlan(plan)
		if dryRun {
			return nil
		}
		d, err := f.open(ctx, true)
		if err != nil {
			return err
		}
		defer d.ledger.Close()
		if err := d.makeTables(ctx); err != nil {
			return err
		}
		if err := f.apply(ctx, plan); err != nil {
			return err
		}
		if err := f.pointOutFaults(ctx, system, needs); err != nil {
			return err
		}
		return d.pointOutWaiting(ctx)
	}
	return cmd
}

func (f *fitter) unansweredFlag(cmd *cobra.Command, force *bool) {
	cmd.Flags().BoolVar(force, "force", false, fmt.Sprintf("do it although mailbag-policyd does not answer; %s %s until it does", f.name, f.without))
}

// startTime is how long a daemon may take to answer that systemd starts for the question, or that is just being replaced.
const startTime = 15 * time.Second

// The sockets are made anew while no service has them, and are wanted by it.
const restartPolicyd = "systemctl stop mailbag-policyd.socket mailbag-milter.socket mailbag-policyd.service; systemctl start mailbag-policyd.service"

// answering returns nil when mailbag-policyd answers the MTA, or when it need not: by force, or to be shown what would be.
func (f *fitter) answering(ctx context.Context, system mta.System, needs mta.Needs, force, dryRun bool) error {
	asking, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	err := system.Answers(asking, needs)
	switch {
	case !errors.Is(err, mta.ErrSilent) || ctx.Err() != nil:
		return err
	case dryRun:
		f.note("warning: %v; as long as it does not, this is refused without --force; run: %s", err, restartPolicyd)
		return nil
	case force:
		f.note(`warning: %v; %s %s until it does or until "mailbag %s step-aside"; run: %s`, err, f.name, f.without, f.command, restartPolicyd)
		return nil
	}
	return fmt.Errorf("%w; nothing was changed, because %s then %s, which --force risks; see journalctl -u mailbag-policyd, "+
		"and run this again after: %s", err, f.name, f.without, restartPolicyd)
}

// pointOutWaiting says whose mail waits because the daemon that takes it is away. Nobody else's mail suffers from that.
func (d *desk) pointOutWaiting(ctx context.Context) error {
	boxed, err := d.ledger.Count(ctx, meter.Selection{Modes: []meter.Mode{meter.POP3}})
	if err != nil {
		return err
	}
	held, err := d.ledger.Count(ctx, meter.Selection{Modes: []meter.Mode{meter.ETRN, meter.ATRN}})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	if boxed > 0 {
		conn, err := new(net.Dialer).DialContext(ctx, d.settings.POP.Deliver.Network, d.settings.POP.Deliver.Address)
		if err != nil {
			d.note("warning: mailbag-popd does not answer, and mail for mailboxes waits until it does: %v; see: systemctl status mailbag-popd mailbag-deliver.socket", err)
		} else {
			conn.Close()
		}
	}
	if held > 0 {
		if _, err := control.NewClient(d.settings.Turn.Control.Address).List(ctx); err != nil {
			d.note("warning: mailbag-turnd does not answer, and held mail waits until it does: %v; see: systemctl status mailbag-turnd mailbag-turnd-control.socket", err)
		}
	}
	return nil
}

// showPlan writes what a plan changes.
func (f *fitter) showPlan(plan mta.Plan) {
	if plan.Empty() {
		f.say("nothing is to be changed")
	} else {
		fmt.Fprint(f.out, plan.Diff())
	}
	if since := plan.AsideSince(); !since.IsZero() {
		f.say(`mailbag stands aside since %s; "mailbag %s step-in" ends that`, since.Format(time.RFC3339), f.command)
	}
}

func (f *fitter) apply(ctx context.Context, plan mta.Plan) error {
	if err := outputError(f.out.Flush()); err != nil { // the operator sees the changes before they are made
		return err
	}
	reloaded, err := plan.Apply(ctx)
	switch {
	case err != nil:
		return err
	case reloaded:
		f.say("%s was reloaded", f.name)
	case !plan.Empty():
		f.say("%s does not run; the changes are in force when it starts", f.name)
	}
	return nil
}

// pointOutFaults says what is still to be done after setup.
func (f *fitter) pointOutFaults(ctx context.Context, system mta.System, needs mta.Needs) error {
	findings, err := system.Check(ctx, needs)
	if err != nil {
		return err
	}
	for _, found := range findings {
		if found.Severity != mta.Hint {
			f.note("%s: %s; %s", found.Severity, found.Text, found.Remedy)
		}
	}
	return nil
}

func (f *fitter) checkCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "check",
		Short:   fmt.Sprintf("Compare %s with what mailbag needs", f.name),
		Long:    f.check,
		Example: fmt.Sprintf("  mailbag %s check", f.command),
		Args:    arguments(),
	}
	jsonFlag(cmd, &asJSON)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		_, system, err := f.settle()
		if err != nil {
			return err
		}
		needs, err := f.needs(cmd.Context())
		if err != nil {
			return err
		}
		findings, err := system.Check(cmd.Context(), needs)
		if err != nil {
			return err
		}
		if asJSON {
			err = f.json(append([]mta.Finding{}, findings...))
		} else {
			f.showFindings(findings)
		}
		for _, found := range findings {
			if err == nil && found.Severity == mta.Fault {
				err = errReported
			}
		}
		return err
	}
	return cmd
}

func (f *fitter) showFindings(findings []mta.Finding) {
	if len(findings) == 0 {
		f.say("%s is as mailbag needs it", f.name)
	}
	for _, found := range findings {
		f.say("%s: %s", found.Severity, found.Text)
		f.say("    %s", found.Remedy)
	}
}

func (f *fitter) removeCommand() *cobra.Command {
	var dryRun, back bool
	cmd := &cobra.Command{
		Use:     "remove",
		Short:   "Take the wiring back",
		Long:    f.remove,
		Example: fmt.Sprintf("  mailbag %s remove --dry-run\n  mailbag %[1]s remove", f.command),
		Args:    arguments(),
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "show the changes, make none")
	returnFlag(cmd, &back)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx := cmd.Context()
		s, system, err := f.settle()
		if err != nil {
			return err
		}
		unlock, err := system.Lock(ctx)
		if err != nil {
			return err
		}
		defer unlock()
		plan, err := system.PlanRemoval(ctx, needsOf(s))
		if err != nil {
			return err
		}
		if !dryRun && !plan.Empty() {
			if err := f.emptyAll(ctx, system, back); err != nil {
				return err
			}
		}
		f.showPlan(plan)
		if dryRun {
			return nil
		}
		return f.apply(ctx, plan)
	}
	return cmd
}

// emptyAll returns nil when no mail waits for any account.
func (c *console) emptyAll(ctx context.Context, system mta.System, back bool) error {
	d, err := c.open(ctx, false)
	if errors.Is(err, meter.ErrNoLedger) {
		c.note("there is no ledger that says whose mail may wait; going on without")
		return nil
	}
	if err != nil {
		return err
	}
	defer d.ledger.Close()
	d.mta = system
	all, err := d.ledger.Load(ctx)
	if err != nil {
		return err
	}
	s := scope{what: "accounts of mailbag"}
	for a := range all.Accounts() {
		s.accounts = append(s.accounts, a)
		s.domains = append(s.domains, a.Domains...)
	}
	return d.emptyQueue(ctx, s, back)
}
