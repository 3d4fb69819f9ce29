package popd

import (
	"fmt"
	"maps"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"mailbag/meter"
)

type metrics struct {
	connections map[string]prometheus.Gauge
	turned      map[string]prometheus.Counter
	deliveries  *prometheus.CounterVec // by code
	octets      prometheus.Counter     // delivered
	stored      prometheus.Histogram   // seconds
	commands    *prometheus.CounterVec // by command and result
	sessions    *prometheus.CounterVec // by outcome
	fetched     prometheus.Counter
	sent        prometheus.Counter // octets
	deleted     prometheus.Counter
}

// newMetrics registers the metrics; r may be nil.
func newMetrics(r prometheus.Registerer) (*metrics, error) {
	connections := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "mailbag_pop_connections", Help: "Connections open now.",
	}, []string{"socket"})
	turned := counters("refused_connections_total", "Connections closed because too many were open.", "socket")
	m := &metrics{
		connections: map[string]prometheus.Gauge{},
		turned:      map[string]prometheus.Counter{},
		deliveries:  counters("deliveries_total", "Recipients answered by LMTP, by reply code.", "code"),
		octets:      counter("delivered_octets_total", "Octets stored."),
		stored: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "mailbag_pop_delivery_seconds",
			Help: "From a message's first octet by LMTP to the replies, when it is on the disk.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 16)}),
		commands: counters("commands_total", "POP3 commands answered.", "command", "result"),
		sessions: counters("sessions_total", "Sessions that were logged in, by how they ended.", "outcome"),
		fetched:  counter("fetched_messages_total", "Messages sent by RETR."),
		sent:     counter("fetched_octets_total", "Octets of messages sent."),
		deleted:  counter("deleted_messages_total", "Messages deleted at QUIT."),
	}
	if r != nil {
		for _, c := range []prometheus.Collector{connections, turned, m.deliveries, m.octets, m.stored, m.commands, m.sessions, m.fetched, m.sent, m.deleted} {
			if err := r.Register(c); err != nil {
				return nil, fmt.Errorf("cannot register the metrics of package popd: %w", err)
			}
		}
	}
	for _, socket := range []string{"deliver", "pop3"} {
		m.connections[socket] = connections.WithLabelValues(socket)
		m.turned[socket] = turned.WithLabelValues(socket)
	}
	for _, word := range append(slices.Sorted(maps.Keys(commands)), otherCommand) {
		m.commands.WithLabelValues(word, "ok")
		m.commands.WithLabelValues(word, "refused")
	}
	return m, nil
}

// otherCommand stands for what clients say that is no command.
const otherCommand = "other"

func counters(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "mailbag_pop_" + name, Help: help}, labels)
}

func counter(name, help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Name: "mailbag_pop_" + name, Help: help})
}

func (m *metrics) refused(code int) { m.deliveries.WithLabelValues(fmt.Sprint(code)).Inc() }

func (m *metrics) delivered(octets int64) {
	m.deliveries.WithLabelValues("250").Inc()
	m.octets.Add(float64(octets))
}

// answered counts a command.
func (m *metrics) answered(word string, refused bool) {
	result := "ok"
	if refused {
		result = "refused"
	}
	m.commands.WithLabelValues(word, result).Inc()
}

// ended counts and records a session.
func (s *Server) ended(r *meter.PopSession, err error) {
	outcome := "broken"
	if err == errQuit {
		outcome = "done"
	}
	s.metrics.sessions.WithLabelValues(outcome).Inc()
	s.metrics.fetched.Add(float64(r.Fetched))
	s.metrics.sent.Add(float64(r.Bytes))
	s.metrics.deleted.Add(float64(r.Deleted))
	s.log.Info("session ended", "account", r.Account, "mailbox", r.Mailbox, "client", r.Client, "tls", r.TLS,
		"fetched", r.Fetched, "bytes", r.Bytes, "deleted", r.Deleted, "outcome", r.Outcome)
	s.journal.add(*r)
}
