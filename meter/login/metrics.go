package login

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// Results of log-ins, as they are counted.
const (
	resultOK          = "ok"
	resultFailed      = "failed"      // wrong
	resultRefused     = "refused"     // right, and suspended or not allowed here
	resultThrottled   = "throttled"   // not answered, because of too many failures
	resultUnavailable = "unavailable" // not checked
)

var results = []string{resultOK, resultFailed, resultRefused, resultThrottled, resultUnavailable}

// byPassword is the mechanism of log-ins by [Checker.Password], POP3's USER and PASS.
const byPassword = "USER"

type metrics struct{ logins *prometheus.CounterVec }

// newMetrics registers the metrics; r may be nil.
func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "mailbag_logins_total", Help: "Log-ins by mechanism and result.",
	}, []string{"mechanism", "result"})}
	// A counter that appears with its first event has no increase to be seen.
	for _, result := range results {
		m.logins.WithLabelValues(byPassword, result)
		for _, mechanism := range mechanisms {
			m.logins.WithLabelValues(mechanism.name, result)
		}
	}
	if r != nil {
		if err := r.Register(m.logins); err != nil {
			return nil, fmt.Errorf("cannot register the metrics of package login: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) count(mechanism, result string) { m.logins.WithLabelValues(mechanism, result).Inc() }
