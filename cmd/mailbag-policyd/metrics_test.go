package main

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// Of a counter that appears with its first event nobody sees an increase.
func TestCommitsThatFailAreShownBeforeOneDoes(t *testing.T) {
	t.Parallel()
	want := `
# HELP mailbag_ledger_commits_total Commits of accepted messages, each of one or more.
# TYPE mailbag_ledger_commits_total counter
mailbag_ledger_commits_total{result="done"} 0
mailbag_ledger_commits_total{result="failed"} 0
`
	if err := testutil.GatherAndCompare(newMetrics().registry, strings.NewReader(want), "mailbag_ledger_commits_total"); err != nil {
		t.Error(err)
	}
}
