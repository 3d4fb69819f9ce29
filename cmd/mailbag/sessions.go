package main

import (
	"cmp"
	"context"

	"github.com/spf13/cobra"

	"mailbag/cmd/internal/units"
	"mailbag/meter"
)

// shownSession is a POP3 session in --json. Seconds is how long it took.
type shownSession struct {
	meter.PopSession
	Seconds float64 `json:"seconds"`
}

// shownSessions is how many sessions are shown where nobody says how many.
const shownSessions = 20

func (c *console) sessionsCommand() *cobra.Command {
	var asJSON bool
	limit := shownSessions
	cmd := &cobra.Command{
		Use:   "sessions [NAME]",
		Short: "Show the POP3 sessions in which mail was fetched",
		Long: `Show the POP3 sessions of all accounts or of one, the latest first: which mailbox, from where, how much
was fetched and deleted, how long it took and how it ended. Those of earlier days that fetched nothing are one line a day.
A session is shown when it is over. Log-ins that failed are in the log of mailbag-popd.`,
		Example: `  mailbag sessions
  mailbag sessions dent --limit 100 --json`,
		Args:              arguments("[NAME]"),
		ValidArgsFunction: c.completeAccounts,
	}
	cmd.Flags().IntVar(&limit, "limit", limit, "show this `NUMBER` of sessions")
	jsonFlag(cmd, &asJSON)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if limit < 1 {
			return wrongUsage(cmd, "--limit: %d is less than 1", limit)
		}
		return c.atLedger(func(ctx context.Context, d *desk, _ *cobra.Command, args []string) error {
			sessions, err := d.sessions(ctx, limit, args...)
			switch {
			case err != nil:
				return err
			case asJSON:
				return d.json(sessions)
			case len(sessions) == 0:
				d.note("there was no session yet")
			default:
				d.showSessions(sessions)
			}
			return nil
		})(cmd, args)
	}
	return cmd
}

func (d *desk) sessions(ctx context.Context, limit int, names ...string) ([]shownSession, error) {
	name := ""
	if len(names) > 0 {
		name = names[0]
	}
	recorded, err := d.ledger.PopSessions(ctx, name, limit)
	if err != nil {
		return nil, err
	}
	if len(recorded) == 0 && name != "" {
		if _, _, err := d.account(ctx, name); err != nil {
			return nil, err
		}
	}
	shown := []shownSession{}
	for _, s := range recorded {
		s.Mailbox = meter.Written(s.Mailbox)
		shown = append(shown, shownSession{s, max(0, s.Ended.Sub(s.Began).Seconds())})
	}
	return shown, nil
}

func (d *desk) showSessions(sessions []shownSession) {
	t := table{heads: []string{"BEGAN", "ACCOUNT", "MAILBOX", "CLIENT", "TLS", ">FETCHED", ">SIZE", ">DELETED", ">TOOK", "OUTCOME"}}
	for _, s := range sessions {
		took, outcome := took(s.Seconds), s.Outcome
		if s.Sessions > 0 {
			took, outcome = "", grouped(s.Sessions)+" "+verb(s.Sessions, "session", "sessions")+" of that day that fetched nothing"
		}
		t.add(d.stamp(s.Began), s.Account, cmp.Or(s.Mailbox, "catch-all"), s.Client,
			cmp.Or(s.TLS, "no"), grouped(s.Fetched), units.RoundSize(s.Bytes), grouped(s.Deleted), took, outcome)
	}
	d.table(&t)
}
