package main

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"mailbag/cmd/internal/daemon"
	"mailbag/meter"
)

// metrics are what the daemon shows besides those of package policy.
type metrics struct {
	registry   *prometheus.Registry
	commits    *prometheus.CounterVec
	messages   prometheus.Counter
	seconds    prometheus.Histogram
	batches    prometheus.Histogram
	queued     prometheus.Gauge
	added      prometheus.Counter
	removed    prometheus.Counter
	reconciles prometheus.Gauge
}

// Results of commits.
const (
	commitDone   = "done"
	commitFailed = "failed"
)

func newMetrics(now daemon.Settings) *metrics {
	m := &metrics{
		registry: daemon.NewRegistry(program, now),
		commits:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "mailbag_ledger_commits_total", Help: "Commits of accepted messages, each of one or more."}, []string{"result"}),
		messages: prometheus.NewCounter(prometheus.CounterOpts{Name: "mailbag_ledger_messages_total", Help: "Accepted messages that were written to the ledger."}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "mailbag_ledger_commit_seconds", Help: "Duration of a commit.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14)}),
		batches: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "mailbag_ledger_batch_messages", Help: "Messages of a commit.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 11)}),
		queued:     prometheus.NewGauge(prometheus.GaugeOpts{Name: "mailbag_queue_messages", Help: "Messages in the MTA's queue at the last pass, of anybody."}),
		added:      prometheus.NewCounter(prometheus.CounterOpts{Name: "mailbag_waiting_added_total", Help: "Waiting messages that only a pass over the queue found."}),
		removed:    prometheus.NewCounter(prometheus.CounterOpts{Name: "mailbag_waiting_removed_total", Help: "Messages that a pass over the queue found not to wait any more."}),
		reconciles: prometheus.NewGauge(prometheus.GaugeOpts{Name: "mailbag_queue_pass_timestamp_seconds", Help: "When the last pass over the queue ended, Unix time; 0: none yet."}),
	}
	// A counter that appears with its first event has no increase to be seen.
	m.commits.WithLabelValues(commitDone)
	m.commits.WithLabelValues(commitFailed)
	m.registry.MustRegister(m.commits, m.messages, m.seconds, m.batches, m.queued, m.added, m.removed, m.reconciles)
	return m
}

// showTables shows whether the tables that the MTA reads are those of the accounts.
func (m *metrics) showTables(current func() bool) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "mailbag_tables_current", Help: "1 while the tables that the MTA reads are those of the accounts, else 0."}, func() float64 {
		if current() {
			return 1
		}
		return 0
	}))
}

// showSilent shows how many accounts have not fetched for the time that is said then; 0: nothing.
func (m *metrics) showSilent(ledger *meter.Ledger, after func() time.Duration) {
	m.registry.MustRegister(&silent{prometheus.NewDesc("mailbag_accounts_silent", "Accounts in service whose customers have not asked for mail for as long as notices.silent says.", nil, nil), ledger, after})
}

// silent counts when it is asked. Without the ledger nothing is known, and nothing shown.
type silent struct {
	desc   *prometheus.Desc
	ledger *meter.Ledger
	after  func() time.Duration
}

func (s *silent) Describe(to chan<- *prometheus.Desc) { to <- s.desc }

func (s *silent) Collect(to chan<- prometheus.Metric) {
	after := s.after()
	if after == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), countTime)
	defer cancel()
	if n, err := s.ledger.Count(ctx, meter.Selection{Silent: after}); err == nil {
		to <- prometheus.MustNewConstMetric(s.desc, prometheus.GaugeValue, float64(n))
	}
}

// countTime is for a count of accounts, well within what Prometheus waits for an answer.
const countTime = 3 * time.Second

func (m *metrics) committed(batch int, took time.Duration, err error) {
	m.seconds.Observe(took.Seconds())
	m.batches.Observe(float64(batch))
	if err != nil {
		m.commits.WithLabelValues(commitFailed).Inc()
		return
	}
	m.commits.WithLabelValues(commitDone).Inc()
	m.messages.Add(float64(batch))
}

func (m *metrics) reconciled(r meter.Reconciled) {
	m.queued.Set(float64(r.Queued))
	m.added.Add(float64(r.Added))
	m.removed.Add(float64(r.Removed))
	m.reconciles.SetToCurrentTime()
}
