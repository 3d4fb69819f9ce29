package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"mailbag/cmd/internal/mta"
	"mailbag/cmd/internal/units"
	"mailbag/meter"
)

// waitingAccount is what waits for an account in --json. Bytes are octets; a message for two accounts is in both.
type waitingAccount struct {
	Account   string     `json:"account"`
	Mode      meter.Mode `json:"mode"`
	Suspended bool       `json:"suspended"`
	meter.Waiting
	Suspects []suspect `json:"suspects,omitempty"`
}

// A suspect is a message under which connections to the customer's server broke, in --json.
type suspect struct {
	ID     string    `json:"id"`
	Bytes  int64     `json:"bytes"`
	Since  time.Time `json:"since"`
	Broken int       `json:"broken"` // connections that it had to itself
}

// shownSuspects is how many of an account are shown.
const shownSuspects = 20

func (c *console) queueCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "queue [NAME]",
		Short: "Show what waits in the MTA's queue for the accounts",
		Long: `Show how many messages wait in the MTA's queue for each account, their size, and since when the oldest
does. Without NAME, accounts for which nothing waits are left out. What the operator put on hold waits for nobody.
Messages under which a connection to the customer's server broke while they went alone are named, with how many did:
they go last in each turn. On Postfix postcat -q shows such a message and postsuper -h puts it on hold, on Exim
exim4 -qGmailbag -Mvc and exim4 -qGmailbag -Mf do.`,
		Example: `  mailbag queue
  mailbag queue bolt --json`,
		Args:              arguments("[NAME]"),
		ValidArgsFunction: c.completeAccounts,
	}
	jsonFlag(cmd, &asJSON)
	cmd.RunE = c.atLedger(func(ctx context.Context, d *desk, _ *cobra.Command, args []string) error {
		list, err := d.queue(ctx, args...)
		switch {
		case err != nil:
			return err
		case asJSON:
			return d.json(list)
		case len(list) == 0:
			d.note("nothing waits for any account")
		default:
			d.showQueue(list)
		}
		return nil
	})
	return cmd
}

// queue sums up what waits for all accounts, or for the named one, in one pass over the queue.
func (d *desk) queue(ctx context.Context, names ...string) ([]waitingAccount, error) {
	all, err := d.ledger.Load(ctx)
	if err != nil {
		return nil, err
	}
	if len(names) > 0 {
		if _, _, err := d.account(ctx, names[0]); err != nil {
			return nil, err
		}
	}
	waiting, err := d.countQueue(ctx, all)
	if errors.Is(err, mta.ErrMissing) {
		d.note("%s is not installed here; this is what the ledger's index has of held mail", d.mta.Words().Name)
		waiting, err = d.countIndex(ctx, all)
	}
	if err != nil {
		return nil, err
	}
	list := []waitingAccount{}
	for a := range all.Accounts() {
		w, waits := waiting[a.ID]
		if len(names) == 0 && waits || len(names) > 0 && a.Name == names[0] {
			suspects, err := d.suspects(ctx, a)
			if err != nil {
				return nil, err
			}
			list = append(list, waitingAccount{a.Name, a.Mode, a.Suspended, w, suspects})
		}
	}
	return list, nil
}

// countQueue counts the messages in the MTA's queue by account.
func (d *desk) countQueue(ctx context.Context, all *meter.Directory) (map[int64]meter.Waiting, error) {
	waiting := map[int64]meter.Waiting{}
	for e, err := range d.mta.Queue(ctx) {
		if err != nil {
			return nil, err
		}
		m := e.Waiting()
		accounts, _ := m.Accounts(all)
		for _, a := range accounts {
			waiting[a.ID] = add(waiting[a.ID], m)
		}
	}
	return waiting, nil
}

// add is what waits with one message more.
func add(w meter.Waiting, m meter.QueuedMessage) meter.Waiting {
	if w.Messages++; w.Messages == 1 || m.Arrived.Before(w.Oldest) {
		w.Oldest = m.Arrived
	}
	w.Bytes += m.Size
	return w
}

// countIndex asks the ledger, which knows held mail only.
func (d *desk) countIndex(ctx context.Context, all *meter.Directory) (map[int64]meter.Waiting, error) {
	waiting := map[int64]meter.Waiting{}
	for a := range all.Accounts() {
		w, err := d.ledger.Waiting(ctx, a.ID)
		if err != nil {
			return nil, err
		}
		if w.Messages > 0 {
			waiting[a.ID] = w
		}
	}
	return waiting, nil
}

func (d *desk) suspects(ctx context.Context, a *meter.Account) ([]suspect, error) {
	messages, err := d.ledger.Suspects(ctx, a.ID, shownSuspects)
	var list []suspect
	for _, m := range messages {
		list = append(list, suspect{m.ID, m.Size, m.Since, m.Suspicion - 1})
	}
	return list, err
}

func (d *desk) showQueue(list []waitingAccount) {
	t := table{heads: []string{"ACCOUNT", "MODE", ">MESSAGES", ">SIZE", "OLDEST"}}
	suspects := table{heads: []string{"ACCOUNT", "SUSPECT", ">SIZE", "SINCE", ">BROKEN CONNECTIONS"}}
	for _, w := range list {
		mode, oldest := string(w.Mode), ""
		if w.Suspended {
			mode += ", suspended"
		}
		if w.Messages > 0 {
			oldest = d.stamp(w.Oldest)
		}
		t.add(w.Account, mode, grouped(w.Messages), units.RoundSize(w.Bytes), oldest)
		for _, s := range w.Suspects {
			suspects.add(w.Account, s.ID, units.RoundSize(s.Bytes), d.stamp(s.Since), grouped(int64(s.Broken)))
		}
	}
	d.table(&t)
	if len(suspects.rows) > 0 {
		d.say("")
		d.table(&suspects)
	}
}
