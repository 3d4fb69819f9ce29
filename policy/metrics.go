package policy

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// A kind is what a decision is counted as.
type kind int

const (
	passed   kind = iota // DUNNO
	rejected             // for good
	deferred             // for now
	limited              // the account's limit is reached
	full                 // as much waits for the account as may
	verified             // left to Postfix's recipient verification
	flushed              // ETRN accepted
)

var (
	kinds    = []string{"passed", "rejected", "deferred", "limited", "full", "verified", "flushed"}
	states   = []string{"RCPT", "VRFY", "ETRN", endOfMessage, cancel, "other"}
	sockets  = []string{"policy", "milter"}
	outcomes = []string{"recorded", "repeated", "foreign", "deferred", "limited", "full", "unheard"}
)

// metrics are resolved beforehand: a request costs one addition.
type metrics struct {
	requests    [][]prometheus.Counter // by state and kind
	messages    map[string]prometheus.Counter
	connections map[string]prometheus.Gauge
	refused     map[string]prometheus.Counter
	bad         map[string]prometheus.Counter
	broken      map[string]prometheus.Counter
}

// newMetrics registers the metrics; r may be nil.
func newMetrics(r prometheus.Registerer) (*metrics, error) {
	requests := counters("requests_total", "Policy requests answered.", "state", "decision")
	messages := counters("milter_messages_total", "Messages that came to their end.", "result")
	refused := counters("refused_connections_total", "Connections closed because too many were open.", "socket")
	bad := counters("bad_requests_total", "Connections closed because of what was sent, or for taking too long.", "socket")
	broken := counters("broken_connections_total", "Connections that failed.", "socket")
	connections := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "mailbag_policy_connections", Help: "Connections open now.",
	}, []string{"socket"})
	if r != nil {
		for _, c := range []prometheus.Collector{requests, messages, refused, bad, broken, connections} {
			if err := r.Register(c); err != nil {
				return nil, fmt.Errorf("cannot register the metrics of package policy: %w", err)
			}
		}
	}

	m := &metrics{
		messages:    map[string]prometheus.Counter{},
		connections: map[string]prometheus.Gauge{},
		refused:     map[string]prometheus.Counter{},
		bad:         map[string]prometheus.Counter{},
		broken:      map[string]prometheus.Counter{},
	}
	for _, state := range states {
		var row []prometheus.Counter
		for _, k := range kinds {
			row = append(row, requests.WithLabelValues(state, k))
		}
		m.requests = append(m.requests, row)
	}
	for _, outcome := range outcomes {
		m.messages[outcome] = messages.WithLabelValues(outcome)
	}
	for _, socket := range sockets {
		m.connections[socket] = connections.WithLabelValues(socket)
		m.refused[socket] = refused.WithLabelValues(socket)
		m.bad[socket] = bad.WithLabelValues(socket)
		m.broken[socket] = broken.WithLabelValues(socket)
	}
	return m, nil
}

func counters(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "mailbag_policy_" + name, Help: help}, labels)
}

// answered counts one request.
func (m *metrics) answered(state []byte, k kind) {
	row := len(states) - 1
	for i, s := range states[:row] {
		if string(state) == s {
			row = i
		}
	}
	m.requests[row][k].Inc()
}
