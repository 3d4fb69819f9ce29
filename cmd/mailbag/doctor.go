package main

import (
	"strings"
	"time"

	"github.com/spf13/cobra"
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
	cause    cause     // what hangs on it where it is an illness
	after    []cause   // with any of these it is no news
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
	var within time.Duration
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look whether the whole service is well",
		Long: `Look at all that has to be right for the service to work: settings, ledger and its backups, owners and
modes, the daemons, their units and timers, the MTA and its wiring, certificate, clock, disk space and what waits for long.
One line each, and below it what to do where something is not well; what follows from that is left out. It asks what
the MTA and customers ask: by SMTP, up to RCPT, for an address of an account of each kind and for postmaster, by LMTP, POP3 and
ETRN's port, and has mailbag-turnd list the queue and ask for a release. No message is sent, counted or touched. It
needs root, and takes 5 seconds at the most; on a machine that is too busy for that --within gives it more.

Status 0 says that nothing failed, though there may be warnings; 1 that something did. With --metrics what was found is
in the file, and the status says whether that was written; then it takes up to 25 seconds on a busy machine, and does not
look for damage in a ledger of more than 64 MiB, which mailbag-backup.service does each night. mailbag-doctor.timer has one
written every five minutes, which mailbag-policyd shows with its own metrics.`,
		Example: "  mailbag doctor\n  mailbag doctor --json\n  mailbag doctor --metrics /var/lib/prometheus/node-exporter/mailbag.prom",
		Args:    arguments(),
	}
	jsonFlag(cmd, &asJSON)
	cmd.Flags().StringVar(&metrics, "metrics", "", "`FILE` to write for Prometheus instead; - is stdout")
	cmd.Flags().DurationVar(&within, "within", 5*time.Second, "the `TIME` that it may take, as 30s")
	if err := cmd.MarkFlagFilename("metrics", "prom"); err != nil {
		panic(err) // only where the flag does not exist
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := together(cmd, "metrics", "json", "within"); err != nil {
			return err
		}
		if within < time.Second || within > 10*time.Minute {
			return wrongUsage(cmd, "--within %v is not 1s to 10m", within)
		}
		if cmd.Flags().Changed("metrics") {
			return c.writeMetrics(metrics, c.examine(cmd.Context(), byClock))
		}
		found := c.examine(cmd.Context(), byHand(within))
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
		c.say("%-8s %-11s %s", d.Result, d.Part, strings.ReplaceAll(d.Text, "\n", "\n"+strings.Repeat(" ", 21)))
		if d.Remedy != "" {
			c.say("%21s%s", "", d.Remedy)
		}
	}
}
