package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"mailbag/cmd/internal/readings"
	"mailbag/cmd/internal/settings"
	"mailbag/cmd/internal/wholefile"
)

// parts are all that the doctor looks at: one in which nothing was found has zeros.
var parts = []string{"doctor", "settings", "setup", "ledger", "nodes", "files", "policyd", "turnd", "popd", "units", "notices", "customers",
	"postfix", "exim", "smtp", "certificate", "clock", "disk", "backup", "queue"}

// writeMetrics writes what was found and measured for Prometheus.
func (c *console) writeMetrics(file string, found []diagnosis) error {
	sheet := sheetOf(found, c.now())
	own, _, err := c.load(c.config)
	if err != nil { // which was found, too
		own = settings.Default()
	}
	_, err = c.write(own, file, sheet.Write, func() error {
		var text bytes.Buffer
		if err := sheet.Write(&text); err != nil {
			return err
		}
		// The file is written again and again: it takes the place of its like, and of nothing else.
		if _, err := os.Lstat(file); err == nil {
			if former, err := readings.File(file).Gather(); err != nil || len(former) == 0 {
				return errors.New("it exists already, and has no metrics of the doctor's in it; name another file")
			}
		}
		return wholefile.Replace(file, text.Bytes(), 0o644)
	})
	return err
}

func sheetOf(found []diagnosis, now time.Time) *readings.Sheet {
	sheet := readings.NewSheet()
	sheet.Set(readings.Timestamp, nil, float64(now.Unix()))
	type finding struct {
		part   string
		result verdict
	}
	count := map[finding]int{}
	least := map[string]float64{} // of what was measured several times, as whether mail for an account is accepted
	for _, part := range parts {
		for _, result := range []verdict{well, doubt, illness} {
			count[finding{part, result}] = 0
		}
	}
	for _, d := range found {
		count[finding{d.Part, d.Result}]++
		for _, r := range d.readings {
			one := fmt.Sprint(r.name, r.labels)
			if former, again := least[one]; again && former <= r.value {
				continue
			}
			least[one] = r.value
			labels := prometheus.Labels{}
			for i := 0; i+1 < len(r.labels); i += 2 {
				labels[r.labels[i]] = r.labels[i+1]
			}
			sheet.Set(r.name, labels, r.value)
		}
	}
	for f, n := range count {
		sheet.Set(readings.Findings, prometheus.Labels{"part": f.part, "result": string(f.result)}, float64(n))
	}
	return sheet
}
