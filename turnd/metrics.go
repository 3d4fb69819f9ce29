package turnd

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// verbs are the commands that are counted by their names.
var verbs = []string{"EHLO", "HELO", "STARTTLS", "AUTH", "ATRN", "ETRN", "NOOP", "RSET", "HELP", "QUIT"}

type metrics struct {
	connections prometheus.Gauge
	refused     prometheus.Counter
	replies     *prometheus.CounterVec
}

// newMetrics registers the metrics; r may be nil.
func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		connections: prometheus.NewGauge(prometheus.GaugeOpts{Name: "mailbag_odmr_connections", Help: "Connections of customers open now, those in a turn among them."}),
		refused:     prometheus.NewCounter(prometheus.CounterOpts{Name: "mailbag_odmr_refused_connections_total", Help: "Connections closed because too many were open."}),
		replies:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: "mailbag_odmr_replies_total", Help: "Replies by the command that they answer and their code."}, []string{"command", "code"}),
	}
	if r != nil {
		for _, c := range []prometheus.Collector{m.connections, m.refused, m.replies} {
			if err := r.Register(c); err != nil {
				return nil, fmt.Errorf("cannot register the metrics of package turnd: %w", err)
			}
		}
	}
	return m, nil
}

func (m *metrics) answered(verb string, code int) {
	if !slices.Contains(verbs, verb) {
		verb = "other"
	}
	m.replies.WithLabelValues(verb, strconv.Itoa(code)).Inc()
}
