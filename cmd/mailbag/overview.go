package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mailbag/cmd/internal/mta"
	"mailbag/cmd/internal/units"
	"mailbag/meter"
	"mailbag/turnd/turn"
)

// An overview is the state of the whole service, as it is in --json.
type overview struct {
	At        time.Time     `json:"at"`
	Daemons   []daemonState `json:"daemons"`
	OpenTurns []turn.Status `json:"open_turns"` // null: mailbag-turnd does not say
	Month     string        `json:"month"`
	Charge    string        `json:"charge"` // of the month so far
	Currency  string        `json:"currency"`
	OverLimit *someAccounts `json:"over_limit"`
	Silent    *someAccounts `json:"silent"`          // not heard of for as long as [notices] silent says; null: it says that nobody is
	Backup    time.Time     `json:"backup,omitzero"` // the newest copy of the ledger
	meter.Sums
}

// A daemonState says whether a daemon of ours, or the MTA, answers.
type daemonState struct {
	Name    string `json:"name"`
	Answers bool   `json:"answers"`
	Why     string `json:"why,omitempty"` // it does not
}

// someAccounts is how many accounts are so, and the first of them.
type someAccounts struct {
	Accounts int64    `json:"accounts"`
	First    []string `json:"first"`
	first    []meter.Listed
}

const (
	// overviewTime is what daemons have to answer. Those that are well take milliseconds.
	overviewTime = 2 * time.Second
	// shownFirst is how many accounts of a kind are named.
	shownFirst = 3
)

func (c *console) statusCommand() *cobra.Command {
	var asJSON bool
	var seconds int64
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the state of the whole service on one screen",
		Long: `Show the state of the whole service on one screen: whether the daemons and the MTA answer, which turns are open, what waits
and since when, which accounts are above their limit, which customers have not been heard of for as long as [notices]
silent says, the newest backup, and the month so far. What waits for backup accounts' servers is what the MTA's queue had when
mailbag-policyd last looked, at most 5 minutes ago. As a user who may not connect to the daemons' sockets it shows them as
not answering.

With --watch it is shown anew every 2 seconds, or so many as are given, until control-C; what is not a terminal gets one
after the other. What is wrong, and what to do, says mailbag doctor.`,
		Example: "  mailbag status\n  mailbag status --watch=10\n  mailbag status --json",
		Args:    arguments(),
	}
	watch := cmd.Flags().VarPF(&parsed[int64]{to: &seconds, parse: count, kind: "SECONDS"}, "watch", "", "show it anew every so many seconds")
	watch.NoOptDefVal = "2"
	jsonFlag(cmd, &asJSON)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		watched := cmd.Flags().Changed("watch")
		if watched && (seconds < 1 || seconds > 86400) {
			return wrongUsage(cmd, "--watch: %d seconds are not 1 to 86400", seconds)
		}
		return c.atLedger(func(ctx context.Context, d *desk, _ *cobra.Command, _ []string) error {
			for {
				o, err := d.overview(ctx)
				switch {
				case watched && ctx.Err() != nil:
					return nil // whoever ends it has seen enough
				case err != nil:
					return err
				case asJSON:
					err = d.json(o)
				default:
					d.showOverview(o, watched && d.screen)
				}
				if err == nil {
					err = outputError(d.out.Flush())
				}
				if err != nil || !watched {
					return err
				}
				select {
				case <-ctx.Done():
					return nil
				case <-time.After(time.Duration(seconds) * time.Second):
				}
			}
		})(cmd, args)
	}
	return cmd
}

func (d *desk) overview(ctx context.Context) (*overview, error) {
	month, tariff := d.thisMonth(), d.tariff()
	o := &overview{At: d.now().UTC(), Month: month.String(), Currency: tariff.Currency}
	asking, cancel := context.WithTimeout(ctx, overviewTime)
	defer cancel()
	states := begin(ctx, func(context.Context) ([]daemonState, error) { return d.askDaemons(asking), nil })
	turns := begin(ctx, func(context.Context) ([]turn.Status, error) { return d.control().List(asking) })
	over := begin(ctx, func(ctx context.Context) (*someAccounts, error) {
		return d.firstOfAll(ctx, meter.Selection{Month: month, Tariff: tariff, OverLimit: true, Sort: meter.ByBytes})
	})
	silent := begin(ctx, func(ctx context.Context) (*someAccounts, error) {
		if d.settings.Notices.Silent == 0 {
			return nil, nil
		}
		return d.firstOfAll(ctx, meter.Selection{Month: month, Silent: d.settings.Notices.Silent, Sort: meter.ByFetched})
	})
	var err error
	if o.Sums, err = d.ledger.Sums(ctx, month, tariff); err != nil {
		return nil, err
	}
	o.Charge = o.Sums.Charge.String()
	if o.OverLimit, err = over(); err != nil {
		return nil, err
	}
	if o.Silent, err = silent(); err != nil {
		return nil, err
	}
	if _, info, err := newestBackup(backups); err == nil && info != nil {
		o.Backup = info.ModTime().UTC()
	}
	if o.Daemons, err = states(); err != nil {
		return nil, err
	}
	if list, err := turns(); err == nil {
		o.OpenTurns = append([]turn.Status{}, list...)
	}
	return o, nil
}

func (d *desk) firstOfAll(ctx context.Context, of meter.Selection) (*someAccounts, error) {
	n, err := d.ledger.Count(ctx, of)
	if err != nil {
		return nil, err
	}
	of.Limit = shownFirst
	first, err := d.ledger.Select(ctx, of)
	all := &someAccounts{Accounts: n, First: []string{}, first: first}
	for _, a := range first {
		all.First = append(all.First, a.Name)
	}
	return all, err
}

// askDaemons asks all daemons and the MTA at the same time, each as the doctor does.
func (d *desk) askDaemons(ctx context.Context) []daemonState {
	p := d.patient(pace{all: overviewTime, first: overviewTime}, d.settings, d.mta)
	pop3 := foremost(front{proxies: d.settings.Proxies, ask: askPOP3}, d.settings.POP.Listen)
	if len(pop3) == 0 {
		pop3 = foremost(front{proxies: d.settings.Proxies, tls: true, ask: askPOP3}, d.settings.POP.ListenTLS)
	}
	type asked struct {
		name string
		wait func() (*x509.Certificate, error)
	}
	var all []asked
	for _, daemon := range []struct {
		name   string
		fronts []front
	}{
		{"mailbag-policyd", p.policydFronts()},
		{"mailbag-turnd", []front{{at: d.settings.Turn.Control, ask: askControl}}},
		{"mailbag-popd", pop3},
	} {
		for _, f := range daemon.fronts {
			if !f.at.IsZero() {
				all = append(all, asked{daemon.name, begin(ctx, func(ctx context.Context) (*x509.Certificate, error) {
					leaf, err := f.ask(ctx, f)
					if err != nil {
						err = fmt.Errorf("%s: %w", f.at, err)
					}
					return leaf, err
				})})
			}
		}
	}
	all = append(all, asked{d.mta.Words().Name, begin(ctx, func(ctx context.Context) (*x509.Certificate, error) {
		runs, err := d.mta.Running(ctx)
		if err == nil && !runs {
			err = errors.New("it does not run")
		}
		return nil, err
	})})
	var states []daemonState
	for _, a := range all {
		_, err := a.wait()
		s := daemonState{Name: a.name, Answers: err == nil}
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			s.Why = "no answer in time"
		case errors.Is(err, mta.ErrMissing):
			s.Why = "it is not installed here"
		case err != nil:
			s.Why = err.Error()
		}
		at := slices.IndexFunc(states, func(other daemonState) bool { return other.Name == s.Name })
		switch {
		case at < 0:
			states = append(states, s)
		case states[at].Answers:
			states[at] = s
		}
	}
	return states
}

func (d *desk) showOverview(o *overview, clear bool) {
	if clear {
		fmt.Fprint(d.out, "\x1b[H\x1b[2J")
	}
	d.say("%s  %s accounts, %s suspended", d.stamp(o.At), grouped(o.Accounts), grouped(o.Suspended))
	line := func(name, format string, args ...any) {
		fmt.Fprint(d.out, wrapped(fmt.Sprintf("%-16s  ", name), strings.Repeat(" ", 18), visible(fmt.Sprintf(format, args...))))
	}
	for _, s := range o.Daemons {
		if s.Answers {
			line(s.Name, "answers")
		} else {
			line(s.Name, "DOES NOT ANSWER: %s", s.Why)
		}
	}
	line("open turns", "%s", openTurns(o.OpenTurns))
	waits := false
	for _, mode := range meter.Modes {
		if w := o.Waiting[mode]; w.Messages > 0 {
			waits = true
			line("waiting, "+string(mode), "%s, the oldest since %s", amount(w.Messages, w.Bytes), d.stamp(w.Oldest))
		}
	}
	if !waits {
		line("waiting", "nothing")
	}
	line("above the limit", "%s", namedFirst(o.OverLimit, func(a meter.Listed) string { return a.Name }))
	if o.Silent != nil {
		line("silent for "+units.FormatDuration(d.settings.Notices.Silent), "%s", namedFirst(o.Silent, func(a meter.Listed) string { return fmt.Sprintf("%s (%s)", a.Name, d.fetchedOn(a)) }))
	}
	backup := "none in " + backups
	if !o.Backup.IsZero() {
		backup = d.stamp(o.Backup)
	}
	line("newest backup", "%s", backup)
	line(o.Month, "%s, charge %s %s", amount(o.Usage.Messages, o.Usage.Bytes), money(o.Sums.Charge), o.Currency)
}

func openTurns(turns []turn.Status) string {
	if turns == nil {
		return "not known"
	}
	if len(turns) == 0 {
		return "none"
	}
	var names []string
	for _, t := range turns[:min(len(turns), shownFirst)] {
		names = append(names, t.Account)
	}
	return firstNamed(int64(len(turns)), names)
}

func namedFirst(c *someAccounts, name func(meter.Listed) string) string {
	var names []string
	for _, a := range c.first {
		names = append(names, name(a))
	}
	return firstNamed(c.Accounts, names)
}

// firstNamed is a number, with the first of those that are someAccounts.
func firstNamed(n int64, names []string) string {
	if n == 0 {
		return "none"
	}
	text := fmt.Sprintf("%s: %s", grouped(n), strings.Join(names, ", "))
	if n > int64(len(names)) {
		text += " …"
	}
	return text
}
