package turn

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"mailbag/meter"
	"mailbag/turnd/relay"
)

type metrics struct {
	turns      *prometheus.CounterVec
	seconds    *prometheus.HistogramVec
	messages   prometheus.Counter
	bytes      prometheus.Counter
	took       prometheus.Histogram // seconds
	recipients *prometheus.CounterVec
}

// newMetrics registers the metrics; r may be nil.
func newMetrics(r prometheus.Registerer, ts *Turns) (*metrics, error) {
	m := &metrics{
		turns: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "mailbag_turns_total", Help: "Turns that ended."}, []string{"kind", "outcome"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "mailbag_turn_seconds", Help: "Duration of turns.",
			Buckets: prometheus.ExponentialBuckets(0.25, 4, 9)}, []string{"kind"}),
		messages: prometheus.NewCounter(prometheus.CounterOpts{Name: "mailbag_turn_messages_total", Help: "Messages that customers' servers took, for at least one recipient."}),
		bytes:    prometheus.NewCounter(prometheus.CounterOpts{Name: "mailbag_turn_bytes_total", Help: "Octets of their content."}),
		took: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "mailbag_turn_delivery_seconds",
			Help: "From a message's first octet by LMTP to the answers of the customer's server.", Buckets: prometheus.ExponentialBuckets(0.001, 4, 12)}),
		recipients: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "mailbag_turn_recipients_total", Help: "Recipients answered, by what the customers' servers said."}, []string{"result"}),
	}
	// A counter that appears with its first event has no increase to be seen.
	for _, kind := range []meter.TurnKind{meter.TurnATRN, meter.TurnETRN} {
		m.turns.WithLabelValues(string(kind), outcomeDone)
		m.turns.WithLabelValues(string(kind), outcomeOther)
		for _, o := range outcomes {
			m.turns.WithLabelValues(string(kind), o.label)
		}
	}
	if r == nil {
		return m, nil
	}
	open := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "mailbag_turns_open", Help: "Turns open now."}, func() float64 {
		ts.mu.Lock()
		defer ts.mu.Unlock()
		return float64(len(ts.open))
	})
	for _, c := range []prometheus.Collector{m.turns, m.seconds, m.messages, m.bytes, m.took, m.recipients, open} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("cannot register the metrics of package turn: %w", err)
		}
	}
	return m, nil
}

// Outcomes without an error, and with one that is none of the outcomes below.
const (
	outcomeDone  = "done"
	outcomeOther = "other"
)

// outcomes are the labels of what turns end with otherwise.
var outcomes = []struct {
	err   error
	label string
}{
	{ErrNotDelivered, "not_delivered"},
	{ErrSelf, "self"},
	{ErrUnreachable, "unreachable"},
	{relay.ErrStalled, "stalled"},
	{relay.ErrSequence, "out_of_sequence"},
	{relay.ErrRefused, "refused"},
	{ErrLimited, "limited"},
	{relay.ErrLost, "lost"},
}

func (m *metrics) ended(t meter.Turn, err error) {
	label := outcomeDone
	if err != nil {
		label = outcomeOther
	}
	for _, o := range outcomes {
		if errors.Is(err, o.err) {
			label = o.label
			break
		}
	}
	m.turns.WithLabelValues(string(t.Kind), label).Inc()
	m.seconds.WithLabelValues(string(t.Kind)).Observe(t.Ended.Sub(t.Began).Seconds())
}

func (m *metrics) delivered(bytes int64, took time.Duration) {
	m.took.Observe(took.Seconds())
	m.messages.Inc()
	m.bytes.Add(float64(bytes))
}

func (m *metrics) answered(r relay.Reply) {
	result := "refused"
	switch {
	case r.Positive():
		result = "taken"
	case r.Transient():
		result = "deferred"
	}
	m.recipients.WithLabelValues(result).Inc()
}
