package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/spf13/cobra"

	"mailbag/cmd/internal/postfix"
	"mailbag/cmd/internal/settings"
	"mailbag/meter"
	"mailbag/turnd/control"
)

func (c *console) postfixCommand() *cobra.Command {
	var in postfix.Instance
	cmd := group("postfix", "Wire mailbag into Postfix, check the wiring, take it back",
		"These commands need root. They change main.cf and master.cf with postconf, and keep what is there.",
		c.postfixSetupCommand(&in), c.postfixCheckCommand(&in), c.postfixRemoveCommand(&in),
		c.postfixStepAsideCommand(&in), c.postfixStepInCommand(&in), c.postfixStandByCommand(&in))
	cmd.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		if os.Geteuid() != 0 && !cmd.HasSubCommands() {
			return fmt.Errorf("%s needs root; use sudo", cmd.CommandPath())
		}
		return nil
	}
	cmd.PersistentFlags().StringVar(&in.ConfigDir, "config-dir", "", "`DIR`ectory of main.cf (else MAIL_CONFIG from the environment, else Postfix's default)")
	if err := cmd.MarkPersistentFlagDirname("config-dir"); err != nil {
		panic(err) // only where the flag does not exist
	}
	return cmd
}

func (c *console) postfixSetupCommand(in *postfix.Instance) *cobra.Command {
	var dryRun, force bool
	cmd := &cobra.Command{
		Use:   "setup",
		Short: "Wire mailbag into Postfix",
		Long: `Make Postfix know the accounts' domains, ask mailbag-policyd about mail for them and hold it, show what that
changes, and reload Postfix. Running it again changes nothing, unless the accounts need more (recipients that
are verified, a longer hold, or TLS on their mail's way out), or a newer mailbag does. The ledger and the tables that
Postfix reads are made where they are missing.

Every message is shown to mailbag-policyd, which counts it where it is for an account. So Postfix answers 451 to all
mail while it is wired and mailbag-policyd does not run, until "mailbag postfix step-aside". Therefore nothing is
changed unless mailbag-policyd answers at the sockets at which Postfix will ask it, to the user as whom Postfix runs; it
has some seconds for that, as it may have to be started first.

The check of recipients goes into smtpd_recipient_restrictions as late as all mail comes to it: at the end, or
before the first restriction that ends the list, such as permit_mynetworks. Where it is there already, and in
such a place, it stays; the order of what else is there never changes.`,
		Example: "  mailbag postfix setup --dry-run\n  mailbag postfix setup",
		Args:    arguments(),
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "show the changes, make none")
	unansweredFlag(cmd, &force)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx := cmd.Context()
		wiring, err := c.wiring(ctx)
		if err != nil {
			return err
		}
		unlock, err := in.Lock(ctx)
		if err != nil {
			return err
		}
		defer unlock()
		plan, err := in.Plan(ctx, wiring)
		if err != nil {
			return err
		}
		if plan.Aside.IsZero() {
			if err := c.answering(ctx, in, force, dryRun); err != nil {
				return err
			}
		}
		c.showPlan(plan)
		if dryRun {
			return nil
		}
		d, err := c.open(ctx, true)
		if err != nil {
			return err
		}
		defer d.ledger.Close()
		if err := d.makeTables(ctx); err != nil {
			return err
		}
		if err := c.apply(ctx, plan); err != nil {
			return err
		}
		if err := c.pointOutFaults(ctx, in, wiring); err != nil {
			return err
		}
		return d.pointOutWaiting(ctx)
	}
	return cmd
}

func unansweredFlag(cmd *cobra.Command, force *bool) {
	cmd.Flags().BoolVar(force, "force", false, "do it although mailbag-policyd does not answer; Postfix answers 451 to all mail until it does")
}

// startTime is how long a daemon may take to answer that systemd starts for the question, or that is just being replaced.
const startTime = 15 * time.Second

// The sockets are made anew while no service has them, and are wanted by it.
const restartPolicyd = "systemctl stop mailbag-policyd.socket mailbag-milter.socket mailbag-policyd.service; systemctl start mailbag-policyd.service"

// answering returns nil when mailbag-policyd answers Postfix, or when it need not: by force, or to be shown what would be.
func (c *console) answering(ctx context.Context, in *postfix.Instance, force, dryRun bool) error {
	asking, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	err := in.Answers(asking)
	switch {
	case !errors.Is(err, postfix.ErrSilent) || ctx.Err() != nil:
		return err
	case dryRun:
		c.note("warning: %v; as long as it does not, this is refused without --force; run: %s", err, restartPolicyd)
		return nil
	case force:
		c.note(`warning: %v; Postfix answers 451 to all mail, others' too, until it does or until "mailbag postfix step-aside"; run: %s`, err, restartPolicyd)
		return nil
	}
	return fmt.Errorf("%w; nothing was changed, because Postfix would answer 451 to all mail, which --force risks; see journalctl -u mailbag-policyd, "+
		"and run this again after: %s", err, restartPolicyd)
}

// pointOutWaiting says whose mail waits because the daemon that takes it is away. Nobody else's mail suffers from that.
func (d *desk) pointOutWaiting(ctx context.Context) error {
	all, err := d.ledger.Load(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	modes := map[meter.Mode]bool{}
	for a := range all.Accounts() {
		modes[a.Mode] = true
	}
	if modes[meter.POP3] {
		conn, err := new(net.Dialer).DialContext(ctx, d.settings.POP.Deliver.Network, d.settings.POP.Deliver.Address)
		if err != nil {
			d.note("warning: mailbag-popd does not answer, and mail for mailboxes waits until it does: %v; see: systemctl status mailbag-popd mailbag-deliver.socket", err)
		} else {
			conn.Close()
		}
	}
	if modes[meter.ETRN] || modes[meter.ATRN] {
		if _, err := control.NewClient(d.settings.Turn.Control.Address).List(ctx); err != nil {
			d.note("warning: mailbag-turnd does not answer, and held mail waits until it does: %v; see: systemctl status mailbag-turnd mailbag-turnd-control.socket", err)
		}
	}
	return nil
}

// showPlan writes what a plan changes.
func (c *console) showPlan(plan *postfix.Plan) {
	if plan.Empty() {
		c.say("nothing is to be changed")
	} else {
		fmt.Fprint(c.out, plan.Diff())
	}
	c.showAside(plan)
}

func (c *console) apply(ctx context.Context, plan *postfix.Plan) error {
	if err := outputError(c.out.Flush()); err != nil { // the operator sees the changes before they are made
		return err
	}
	reloaded, err := plan.Apply(ctx)
	switch {
	case err != nil:
		return err
	case reloaded:
		c.say("Postfix was reloaded")
	case !plan.Empty():
		c.say("Postfix does not run; the changes are in force when it starts")
	}
	return nil
}

// pointOutFaults says what is still to be done after setup.
func (c *console) pointOutFaults(ctx context.Context, in *postfix.Instance, wiring postfix.Wiring) error {
	findings, err := in.Check(ctx, wiring)
	if err != nil {
		return err
	}
	for _, f := range findings {
		if f.Severity != postfix.Hint {
			c.note("%s: %s; %s", f.Severity, f.Text, f.Remedy)
		}
	}
	return nil
}

func (c *console) postfixCheckCommand(in *postfix.Instance) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Compare Postfix with what mailbag needs",
		Long: `Compare Postfix with what mailbag needs, and name what is missing or works against it. Status 1 says
that there is a fault: mail would be lost, refused, kept or counted in another way than it should be.`,
		Example: "  mailbag postfix check",
		Args:    arguments(),
	}
	jsonFlag(cmd, &asJSON)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		wiring, err := c.wiring(cmd.Context())
		if err != nil {
			return err
		}
		findings, err := in.Check(cmd.Context(), wiring)
		if err != nil {
			return err
		}
		if asJSON {
			err = c.json(append([]postfix.Finding{}, findings...))
		} else {
			c.showFindings(findings)
		}
		for _, f := range findings {
			if err == nil && f.Severity == postfix.Fault {
				err = errReported
			}
		}
		return err
	}
	return cmd
}

func (c *console) showFindings(findings []postfix.Finding) {
	if len(findings) == 0 {
		c.say("Postfix is as mailbag needs it")
	}
	for _, f := range findings {
		c.say("%s: %s", f.Severity, f.Text)
		c.say("    %s", f.Remedy)
	}
}

func (c *console) postfixRemoveCommand(in *postfix.Instance) *cobra.Command {
	var dryRun, back bool
	cmd := &cobra.Command{
		Use:   "remove",
		Short: "Take the wiring back",
		Long: `Take the wiring back, and restore what was there before it. Refused while mail of any account waits in
Postfix's queue, because Postfix would not know where to deliver it: have it delivered first, or
return it to the senders. The ledger stays.`,
		Example: "  mailbag postfix remove --dry-run\n  mailbag postfix remove",
		Args:    arguments(),
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "show the changes, make none")
	returnFlag(cmd, &back)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx := cmd.Context()
		s, err := settings.Load(c.config)
		if err != nil {
			return err
		}
		unlock, err := in.Lock(ctx)
		if err != nil {
			return err
		}
		defer unlock()
		plan, err := in.PlanRemoval(ctx, postfix.Tables(s.Policy.Tables))
		if err != nil {
			return err
		}
		if !dryRun && !plan.Empty() {
			if err := c.emptyAll(ctx, *in, back); err != nil {
				return err
			}
		}
		c.showPlan(plan)
		if dryRun {
			return nil
		}
		return c.apply(ctx, plan)
	}
	return cmd
}

// emptyAll returns nil when no mail waits for any account.
func (c *console) emptyAll(ctx context.Context, in postfix.Instance, back bool) error {
	d, err := c.open(ctx, false)
	if errors.Is(err, meter.ErrNoLedger) {
		c.note("there is no ledger that says whose mail may wait; going on without")
		return nil
	}
	if err != nil {
		return err
	}
	defer d.ledger.Close()
	d.mta = in
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

// wiring is what the accounts need of Postfix; without a ledger that is the least.
func (c *console) wiring(ctx context.Context) (postfix.Wiring, error) {
	d, err := c.open(ctx, false)
	if errors.Is(err, meter.ErrNoLedger) {
		s, err := settings.Load(c.config)
		if err != nil {
			return postfix.Wiring{}, err
		}
		return postfix.Wiring{Tables: postfix.Tables(s.Policy.Tables)}, nil
	}
	if err != nil {
		return postfix.Wiring{}, err
	}
	defer d.ledger.Close()
	return d.wiring(ctx)
}

func (d *desk) wiring(ctx context.Context) (postfix.Wiring, error) {
	all, err := d.ledger.Load(ctx)
	if err != nil {
		return postfix.Wiring{}, err
	}
	w := postfix.Wiring{Tables: postfix.Tables(d.settings.Policy.Tables)}
	for a := range all.Accounts() {
		w.LongestHold = max(w.LongestHold, a.HoldTime())
		w.Verify = w.Verify || a.Recipients == meter.VerifiedRecipient
		if a.Mode == meter.Backup { // other mail leaves by mailbag-turnd, or not at all
			w.RequireTLS = w.RequireTLS || a.TLS == meter.TLSRequire
			w.VerifyTLS = w.VerifyTLS || a.TLS == meter.TLSVerify
		}
		w.Domains = append(w.Domains, a.Domains...)
	}
	return w, nil
}

// lifetime is Postfix's own maximal_queue_lifetime, which setup raises only for longer holds.
const lifetime = 5 * 24 * time.Hour

// pointOutSetup says that Postfix does not fit new or changed accounts yet, where it can be seen that it does not.
func (d *desk) pointOutSetup(ctx context.Context, accounts ...*meter.Account) {
	var unfit []string
	encrypted := false
	for _, a := range accounts {
		encrypts := a.Mode == meter.Backup && a.TLS.Mandatory()
		if encrypts || a.Recipients == meter.VerifiedRecipient || a.HoldTime() > lifetime {
			unfit = append(unfit, a.Name)
			encrypted = encrypted || encrypts
		}
	}
	if len(unfit) == 0 {
		return
	}
	wiring, err := d.wiring(ctx)
	if err != nil {
		return
	}
	if plan, err := d.mta.Plan(ctx, wiring); err == nil && !plan.Empty() {
		d.note(`Postfix does not fit %s yet; run "mailbag postfix setup" (again), with --dry-run to see what it changes%s`, few(unfit),
			map[bool]string{true: "; until then " + verb(int64(len(unfit)), "its", "their") + " mail can leave in the clear"}[encrypted])
	}
}

// refuseConflicts refuses domains that Postfix would deliver in another way. Where Postfix is not
// installed there is nothing to be in conflict with; of one that is broken "postfix check" will tell.
func (d *desk) refuseConflicts(ctx context.Context, domains ...string) error {
	conflicts, err := d.mta.Conflicts(ctx, domains...)
	switch {
	case errors.Is(err, postfix.ErrMissing):
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		d.note(`warning: it cannot be seen whether Postfix has %s already, in mydestination for one: %v; "mailbag postfix check" tells when that is repaired`, few(domains), err)
		return nil
	case len(conflicts) > 0:
		return fmt.Errorf("%s; take it out of %s first, nothing was changed", conflicts[0], conflicts[0].Parameter)
	}
	return nil
}
