package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mailbag/cmd/internal/postfix"
	"mailbag/cmd/internal/settings"
	"mailbag/cmd/internal/units"
	"mailbag/meter"
)

// A verdict says how something is.
type verdict string

const (
	well    verdict = "ok"
	doubt   verdict = "warning" // works, but not as it should or not for long
	illness verdict = "failed"  // somebody's mail is not accepted, counted, kept or handed over
)

// A diagnosis is one thing that the doctor looked at, as it is in --json.
type diagnosis struct {
	Part   string  `json:"part"` // what was looked at
	Result verdict `json:"result"`
	Text   string  `json:"text"`             // what is so
	Remedy string  `json:"remedy,omitempty"` // what to do

	readings []reading // what was measured, for monitoring
}

// A reading is a number that the doctor took, as monitoring gets it.
type reading struct {
	name   string   // of the metric, in Prometheus's form
	labels []string // names and values by turns
	value  float64  // times in Unix seconds, sizes in octets, shares from 0 to 1
}

func (c *console) doctorCommand() *cobra.Command {
	var asJSON bool
	var metrics string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look whether the whole service is well",
		Long: `Look at all that has to be right for the service to work: settings, ledger, daemons and what they answer,
Postfix and its wiring, certificate, clock, disk space and what waits for long. One line each, and below it what to do
where something is not well. It asks the daemons what Postfix and customers ask, and changes nothing. It needs root.

Status 0 says that nothing failed, though there may be warnings; 1 that something did. With --metrics what was found is
in the file, and the status says whether that was written. mailbag-doctor.timer has one written every five minutes, which
mailbag-policyd shows with its own metrics.`,
		Example: "  mailbag doctor\n  mailbag doctor --json\n  mailbag doctor --metrics /var/lib/prometheus/node-exporter/mailbag.prom",
		Args:    arguments(),
	}
	jsonFlag(cmd, &asJSON)
	cmd.Flags().StringVar(&metrics, "metrics", "", "`FILE` to write for Prometheus instead; - is stdout")
	if err := cmd.MarkFlagFilename("metrics", "prom"); err != nil {
		panic(err) // only where the flag does not exist
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := together(cmd, "metrics", "json"); err != nil {
			return err
		}
		found := c.examine(cmd.Context())
		if cmd.Flags().Changed("metrics") {
			return c.writeMetrics(metrics, found)
		}
		var err error
		if asJSON {
			err = c.json(found)
		} else {
			c.showDiagnoses(found)
		}
		for _, d := range found {
			if err == nil && d.Result == illness {
				err = errReported
			}
		}
		return err
	}
	return cmd
}

func (c *console) showDiagnoses(found []diagnosis) {
	for _, d := range found {
		c.say("%-8s %-11s %s", d.Result, d.Part, d.Text)
		if d.Remedy != "" {
			c.say("%21s%s", "", d.Remedy)
		}
	}
}

// examine looks at everything. What cannot be looked at without something that failed is left out.
func (c *console) examine(ctx context.Context) []diagnosis {
	s, err := settings.Load(c.config)
	if err != nil {
		return []diagnosis{{Part: "settings", Result: illness, Text: err.Error(), Remedy: "correct them; mailbag-policyd --check validates them"}}
	}
	found := []diagnosis{{Part: "settings", Result: well, Text: "read from " + orDefaults(s.File)}}
	d, err := c.open(ctx, false)
	var all *meter.Directory
	switch {
	case errors.Is(err, meter.ErrNoLedger):
		found = append(found, diagnosis{Part: "ledger", Result: illness, Text: "there is no ledger " + s.Database, Remedy: "run: mailbag postfix setup"})
	case err != nil:
		found = append(found, diagnosis{Part: "ledger", Result: illness, Text: err.Error(), Remedy: "see that the file can be read and written, or restore a backup"})
	default:
		defer d.ledger.Close()
		var of []diagnosis
		of, all = d.examineLedger(ctx)
		found = append(found, of...)
	}
	found = append(found, examineDaemons(ctx, s)...)
	found = append(found, c.examinePostfix(ctx, s)...)
	found = append(found, examineHost(ctx, s, c.now())...)
	if all != nil {
		found = append(found, d.examineQueue(ctx, all)...)
	}
	return found
}

func orDefaults(file string) string {
	if file == "" {
		return "nowhere: all is default"
	}
	return file
}

func (d *desk) examineLedger(ctx context.Context) ([]diagnosis, *meter.Directory) {
	faults, err := d.ledger.Check(ctx)
	var all *meter.Directory
	if err == nil {
		all, err = d.ledger.Load(ctx)
	}
	switch {
	case err != nil:
		return []diagnosis{{Part: "ledger", Result: illness, Text: err.Error(), Remedy: "see that the file can be read and written, or restore a backup"}}, nil
	case len(faults) > 0:
		return []diagnosis{{Part: "ledger", Result: illness, Text: strings.Join(faults, "; "), Remedy: "stop the daemons, keep a copy of the file, and restore the latest backup that is sound"}}, all
	}
	return []diagnosis{{Part: "ledger", Result: well, Text: fmt.Sprintf("%s is sound and has %s accounts", d.settings.Database, grouped(int64(all.Len())))}}, all
}

// examinePostfix has Postfix look at itself, and compares it with what the accounts need.
func (c *console) examinePostfix(ctx context.Context, s *settings.Settings) []diagnosis {
	var in postfix.Instance
	if err := in.Sound(ctx); err != nil {
		return []diagnosis{{Part: "postfix", Result: illness, Text: err.Error(), Remedy: "correct Postfix's configuration; postfix check looks at it"}}
	}
	wiring, err := c.wiring(ctx)
	if err != nil {
		return nil // of the ledger enough was said
	}
	findings, err := in.Check(ctx, wiring)
	if err != nil {
		return []diagnosis{{Part: "postfix", Result: illness, Text: err.Error(), Remedy: "run as root: mailbag postfix check"}}
	}
	var found []diagnosis
	for _, f := range findings {
		switch f.Severity {
		case postfix.Fault:
			found = append(found, diagnosis{Part: "postfix", Result: illness, Text: f.Text, Remedy: f.Remedy})
		case postfix.Warning:
			found = append(found, diagnosis{Part: "postfix", Result: doubt, Text: f.Text, Remedy: f.Remedy})
		}
	}
	id, err := in.Identity(ctx)
	if err != nil {
		return append(found, diagnosis{Part: "postfix", Result: illness, Text: err.Error(), Remedy: "run as root: mailbag postfix check"})
	}
	found = append(found, examineDelivery(s, id.Owner)...)
	if found == nil {
		found = []diagnosis{{Part: "postfix", Result: well, Text: "as mailbag needs it"}}
	}
	return found
}

// examineQueue names accounts whose mail waits for so long that it may soon go back to its senders.
func (d *desk) examineQueue(ctx context.Context, all *meter.Directory) []diagnosis {
	list, err := d.queue(ctx)
	if err != nil {
		return []diagnosis{{Part: "queue", Result: illness, Text: err.Error(), Remedy: "see that Postfix runs, and run this as root"}}
	}
	var found []diagnosis
	var messages int64
	for _, w := range list {
		messages += w.Messages
		a := all.Account(w.Account)
		if age := d.now().Sub(w.Oldest); w.Messages > 0 && age > a.HoldTime()/2 {
			found = append(found, diagnosis{Part: "queue", Result: doubt, Text: fmt.Sprintf("%s for %s, the oldest for %s of the %s after which it goes back",
				amountOf(int(w.Messages)), a.Name, units.FormatDuration(age.Truncate(time.Hour)), units.FormatDuration(a.HoldTime())), Remedy: "tell the customer, and see what mailbag turns " + a.Name + " shows"})
		}
	}
	if found == nil {
		found = []diagnosis{{Part: "queue", Result: well, Text: fmt.Sprintf("%s, none for long", amountOf(int(messages)))}}
	}
	return found
}
