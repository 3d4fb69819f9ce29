// Package readings brings what "mailbag doctor" found and measured to Prometheus: the doctor, who is root and runs by the
// clock, writes a file in the text format, and mailbag-policyd shows what is in it beside its own metrics.
//
// It promises that nothing in that file, nor its absence, makes a scrape fail: mailbag_doctor_timestamp_seconds tells how old the
// readings are, and is not there where they are not. Security: the file belongs to root; whoever reads it believes it
// no more than that it has gauges of the names in [Metrics].
package readings

import (
	"fmt"
	"io"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
)

// Names of what every examination has.
const (
	Findings  = "mailbag_doctor_findings"
	Timestamp = "mailbag_doctor_timestamp_seconds"
)

// Metrics are all that there are. Times are Unix time, shares from 0 to 1.
var Metrics = []struct {
	Name, Help string
	Labels     []string
}{
	{Findings, "What the doctor found in its last examination, by the part that it looked at.", []string{"part", "result"}},
	{Timestamp, "When the doctor examined the service last, Unix time.", nil},
	{"mailbag_smtp_accepts", "1 where the MTA accepted such a recipient when the doctor tried, else 0.", []string{"what"}},
	{"mailbag_unit_ok", "1 while a unit of systemd is in force and its last run did not fail, else 0.", []string{"unit"}},
	{"mailbag_disk_free_ratio", "Share of a file system's space, or of its inodes, that is free.", []string{"directory", "of"}},
	{"mailbag_certificate_end_timestamp_seconds", "When the certificate that customers get ends, Unix time.", nil},
	{"mailbag_backup_timestamp_seconds", "When the newest backup of the ledger was made, Unix time; 0: there is none.", nil},
	{"mailbag_waiting_oldest_ratio", "For how long the oldest message waits, as a share of its account's hold time; 0: none waits.", nil},
}

// A Sheet is what one examination found and measured.
type Sheet struct {
	registry *prometheus.Registry
	gauges   map[string]*prometheus.GaugeVec
}

// NewSheet returns an empty one.
func NewSheet() *Sheet {
	s := &Sheet{prometheus.NewRegistry(), map[string]*prometheus.GaugeVec{}}
	for _, m := range Metrics {
		g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: m.Name, Help: m.Help}, m.Labels)
		s.registry.MustRegister(g)
		s.gauges[m.Name] = g
	}
	return s
}

// Set notes a value. It panics for a name that is not in [Metrics], or with other labels than are there.
func (s *Sheet) Set(name string, labels prometheus.Labels, value float64) {
	s.gauges[name].With(labels).Set(value)
}

// Write writes what was noted in Prometheus's text format.
func (s *Sheet) Write(w io.Writer) error {
	families, err := s.registry.Gather()
	if err != nil {
		return fmt.Errorf("the readings are no metrics: %w", err)
	}
	e := expfmt.NewEncoder(w, expfmt.NewFormat(expfmt.TypeTextPlain))
	for _, f := range families {
		if err := e.Encode(f); err != nil {
			return err
		}
	}
	return nil
}
