package main

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"mailbag/cmd/internal/daemon"
	"mailbag/cmd/internal/daemon/daemontest"
	"mailbag/cmd/internal/postfix"
	"mailbag/cmd/internal/readings"
	"mailbag/cmd/internal/settings"
	"mailbag/meter"
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
	if err := testutil.GatherAndCompare(newMetrics(settings.Default).registry, strings.NewReader(want), "mailbag_ledger_commits_total"); err != nil {
		t.Error(err)
	}
}

func TestReadingsOfTheDoctorAreShownBesideTheDaemonsOwn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	at := func(name string) settings.Address {
		return settings.Address{Network: "unix", Address: filepath.Join(dir, name)}
	}
	s := settings.Default()
	s.Database = filepath.Join(dir, "mailbag.db")
	s.Policy = settings.Policy{Listen: at("policy"), Milter: at("milter"), Tables: filepath.Join(dir, "tables"), Metrics: daemontest.Address(t)}
	d := newService(daemontest.Settings(s), postfix.Instance{}, slog.New(slog.NewTextHandler(t.Output(), nil)))
	file := filepath.Join(dir, "metrics.prom")
	d.doctor = readings.File(file)
	stop, ended := daemontest.Start(t, d)
	scrape := func() string {
		answer, err := http.Get("http://" + s.Policy.Metrics.Address + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		if err != nil || answer.StatusCode != http.StatusOK || !strings.Contains(string(text), "\nmailbag_accounts 0\n") {
			t.Fatalf("%s, %v: %s", answer.Status, err, text)
		}
		return string(text)
	}
	for _, c := range []struct{ file, shown string }{
		{"", ""},
		{"# TYPE mailbag_doctor_timestamp_seconds gauge\nmailbag_doctor_timestamp_seconds 5\n", "\nmailbag_doctor_timestamp_seconds 5\n"},
		{"# TYPE mailbag_accounts gauge\nmailbag_accounts 7\n", ""},
	} {
		if c.file != "" {
			if err := os.WriteFile(file, []byte(c.file), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if text := scrape(); !strings.Contains(text, c.shown) || c.shown == "" && strings.Contains(text, "mailbag_doctor") {
			t.Errorf("with the file %q: %s", c.file, text)
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestDashboardAndAlertsNameMetricsThatThereAre(t *testing.T) {
	t.Parallel()
	own := newMetrics(settings.Default)
	own.showTables(func() bool { return true })
	all := own.registry
	var ledger daemon.Ledger
	s := settings.Default()
	s.Database = filepath.Join(t.TempDir(), "mailbag.db")
	opened, _ := ledger.Open(s, slog.New(slog.DiscardHandler), all, nil)
	defer ledger.Close()
	own.showSilent(opened, func() time.Duration { return s.Notices.Silent })
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
	// Of a name that a daemon has as well a scrape would fail.
	for _, m := range readings.Metrics {
		if err := all.Register(prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: m.Name, Help: m.Help}, m.Labels)); err != nil {
			t.Error(err)
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
				t.Errorf("%s names %s, which neither a daemon nor the doctor has", file, name)
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

func TestSilentAccountsAreCounted(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "mailbag.db")
	ledger, err := meter.Open(t.Context(), path, meter.Options{Create: true, Now: func() time.Time { return time.Now().Add(-8 * 24 * time.Hour) }})
	if err != nil {
		t.Fatal(err)
	}
	defer ledger.Close()
	for name, mode := range map[string]meter.Mode{"away": meter.ATRN, "relay": meter.Backup} {
		err := ledger.AddAccount(t.Context(), meter.Account{Name: name, Mode: mode, Domains: []string{name + ".example"}, Recipients: meter.AnyRecipient, Copies: meter.PerRecipient}, nil)
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		path  string
		after time.Duration
		want  string
	}{
		{path, 7 * 24 * time.Hour, "1"}, {path, 9 * 24 * time.Hour, "0"}, {path, 0, "none"}, {path + "-away", 7 * 24 * time.Hour, "none"},
	} {
		m, got := newMetrics(settings.Default), "none"
		m.showSilent(meter.New(c.path, meter.Options{}), func() time.Duration { return c.after })
		families, err := m.registry.Gather()
		for _, f := range families {
			if f.GetName() == "mailbag_accounts_silent" {
				got = fmt.Sprint(f.GetMetric()[0].GetGauge().GetValue())
			}
		}
		if got != c.want || err != nil {
			t.Errorf("for %v in %s: %s are silent, %v; want %s", c.after, c.path, got, err, c.want)
		}
	}
}
