package turn

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// Of a counter that appears with its first event nobody sees an increase.
func TestEveryOutcomeOfATurnIsShownBeforeOneEnds(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	if _, err := New(Config{Metrics: registry}); err != nil {
		t.Fatal(err)
	}
	n, err := testutil.GatherAndCount(registry, "mailbag_turns_total")
	if want := 2 * (len(outcomes) + 2); err != nil || n != want {
		t.Errorf("there are %d, %v, want %d", n, err, want)
	}
}
