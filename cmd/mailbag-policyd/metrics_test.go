package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"mailbag/cmd/internal/daemon"
	"mailbag/cmd/internal/settings"
	"mailbag/meter/login"
	"mailbag/policy"
	"mailbag/popd"
	odmr "mailbag/turnd"
	"mailbag/turnd/turn"
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

func TestDashboardAndAlertsNameMetricsThatThereAre(t *testing.T) {
	t.Parallel()
	own := newMetrics()
	own.showTables(func() bool { return true })
	all := own.registry
	var ledger daemon.Ledger
	s := settings.Default()
	s.Database = filepath.Join(t.TempDir(), "mailbag.db")
	ledger.Open(s, slog.New(slog.DiscardHandler), all, nil)
	defer ledger.Close()
	for _, register := range []func() error{
		func() error { _, err := policy.New(policy.Config{Metrics: all}); return err },
		func() error { _, err := odmr.New(odmr.Config{Metrics: all}); return err },
		func() error { _, err := turn.New(turn.Config{Metrics: all}); return err },
		func() error { _, err := popd.New(popd.Config{Metrics: all}); return err },
		func() error { _, err := login.New(login.Config{Metrics: all}); return err },
	} {
		if err := register(); err != nil {
			t.Fatal(err)
		}
	}
	known := descriptions(all)
	files, err := filepath.Glob("../../contrib/*/*.*")
	if err != nil {
		t.Fatal(err)
	}
	named := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range regexp.MustCompile(`\bmailbag_[a-z_]+`).FindAllString(string(text), -1) {
			named++
			family := regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(name, "")
			if !strings.Contains(known, `fqName: "`+name+`"`) && !strings.Contains(known, `fqName: "`+family+`"`) {
				t.Errorf("%s names %s, which no daemon has", file, name)
			}
		}
	}
	if named < 20 {
		t.Errorf("%d names were found in %v", named, files)
	}
}

// descriptions are those of all metrics, also of those that have no value yet.
func descriptions(of *prometheus.Registry) string {
	each := make(chan *prometheus.Desc)
	go func() {
		defer close(each)
		of.Describe(each)
	}()
	var all strings.Builder
	for d := range each {
		all.WriteString(d.String() + "\n")
	}
	return all.String()
}
