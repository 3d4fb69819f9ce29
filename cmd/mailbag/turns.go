package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mailbag/cmd/internal/units"
	"mailbag/meter"
	"mailbag/turnd/control"
)

// shownTurn is a turn in --json. Seconds is how long it took, or has taken so far.
type shownTurn struct {
	meter.Turn
	Seconds float64 `json:"seconds"`
	Running bool    `json:"running"`
}

// shownTurns is how many turns that are over are shown where nobody says how many.
const shownTurns = 20

func (c *console) turnsCommand() *cobra.Command {
	var asJSON bool
	limit := shownTurns
	cmd := &cobra.Command{
		Use:   "turns [NAME]",
		Short: "Show the turns in which held mail was handed over",
		Long: `Show the turns of all accounts or of one, the latest first: who asked, from where, over how many connections,
how much was taken, how long it took and how it ended. Those that are open are among them, as they are now.
Messages under which a connection broke while they went alone are named as suspects.`,
		Example: `  mailbag turns
  mailbag turns bolt --limit 100 --json`,
		Args:              arguments("[NAME]"),
		ValidArgsFunction: c.completeAccounts,
	}
	cmd.Flags().IntVar(&limit, "limit", limit, "show this `NUMBER` of turns that are over")
	jsonFlag(cmd, &asJSON)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if limit < 1 {
			return wrongUsage(cmd, "--limit: %d is less than 1", limit)
		}
		return c.atLedger(func(ctx context.Context, d *desk, _ *cobra.Command, args []string) error {
			turns, err := d.turns(ctx, limit, args...)
			switch {
			case err != nil:
				return err
			case asJSON:
				return d.json(turns)
			case len(turns) == 0:
				d.note("there was no turn yet")
			default:
				d.showTurns(turns)
			}
			return nil
		})(cmd, args)
	}
	return cmd
}

// turns are those that are open, as mailbag-turnd has them, and the latest of those that are over, as the
// ledger does; the latest first.
func (d *desk) turns(ctx context.Context, limit int, names ...string) ([]shownTurn, error) {
	name := ""
	if len(names) > 0 {
		name = names[0]
	}
	running, err := d.control().List(ctx)
	down := errors.Is(err, control.ErrDown)
	if err != nil && !down {
		return nil, err
	}
	shown := []shownTurn{}
	for _, s := range running {
		if name == "" || s.Account == name {
			shown = append(shown, shownTurn{Running: true, Turn: meter.Turn{Account: s.Account, Kind: s.Kind, Client: s.Client, Peer: s.Peer, TLS: s.TLS,
				Began: s.Began.UTC(), Messages: s.Messages, Bytes: s.Bytes, Connections: s.Connections, Suspects: s.Suspects}})
		}
	}
	// The ledger has those that are open as well; so many more are asked for.
	recorded, err := d.ledger.Turns(ctx, name, limit+len(shown))
	if err != nil {
		return nil, err
	}
	unfinished := 0
	for _, t := range recorded {
		if t.Ended.IsZero() {
			unfinished++
			if !down {
				continue
			}
		}
		// What the ledger has as over may have been open a moment ago.
		shown = slices.DeleteFunc(shown, func(s shownTurn) bool {
			return s.Running && s.Account == t.Account && s.Began.UnixMilli() == t.Began.UnixMilli()
		})
		if limit--; limit < 0 {
			break
		}
		shown = append(shown, shownTurn{Turn: t, Running: t.Ended.IsZero()})
	}
	if len(shown) == 0 && name != "" {
		if _, _, err := d.account(ctx, name); err != nil {
			return nil, err
		}
	}
	if down && unfinished > 0 {
		d.note("mailbag-turnd does not answer at %s; what is shown as open may be over", d.settings.Turn.Control)
	}
	for i, t := range shown {
		end := t.Ended
		if t.Running {
			end = d.now()
		}
		shown[i].Seconds = max(0, end.Sub(t.Began).Seconds())
	}
	slices.SortStableFunc(shown, func(a, b shownTurn) int {
		return cmp.Or(b.Began.Compare(a.Began), cmp.Compare(a.Account, b.Account))
	})
	return shown, nil
}

func (d *desk) showTurns(turns []shownTurn) {
	t := table{heads: []string{"BEGAN", "ACCOUNT", "BY", "CLIENT", "PEER", "TLS", ">CONNECTIONS", ">MESSAGES", ">SIZE", ">TOOK", "OUTCOME"}}
	for _, turn := range turns {
		outcome := turn.Outcome
		if turn.Running {
			outcome = "open"
		}
		if len(turn.Suspects) > 0 {
			outcome += "; suspected: " + strings.Join(turn.Suspects, " ")
		}
		t.add(d.stamp(turn.Began), turn.Account, string(turn.Kind),
			cmp.Or(turn.Client, "operator"), turn.Peer, cmp.Or(turn.TLS, "no"), grouped(int64(turn.Connections)),
			grouped(turn.Messages), units.RoundSize(turn.Bytes), took(turn.Seconds), outcome)
	}
	d.table(&t)
}

// took writes how long something took for a reader.
func took(seconds float64) string {
	if seconds < 10 {
		return fmt.Sprintf("%.1fs", seconds)
	}
	return units.FormatDuration(time.Duration(seconds) * time.Second)
}
