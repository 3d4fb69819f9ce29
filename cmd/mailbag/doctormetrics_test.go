package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"mailbag/cmd/internal/readings"
)

func TestMetricsSayWhatWasFoundAndMeasured(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	var text bytes.Buffer
	err := sheetOf([]diagnosis{
		{Part: "disk", Result: doubt, readings: []reading{
			{"mailbag_disk_free_ratio", []string{"directory", "/var/lib/mailbag", "of", "space"}, 0.05},
			{"mailbag_disk_free_ratio", []string{"directory", "/var/lib/mailbag", "of", "inodes"}, 0.5}}},
		{Part: "disk", Result: illness},
		{Part: "disk", Result: illness},
		{Part: "moon", Result: well, readings: slices.Concat(accepts("local", true), accepts("account", true), accepts("account", false), accepts("account", true))},
	}, now).Write(&text)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"mailbag_doctor_timestamp_seconds 1.7e+09",
		`mailbag_disk_free_ratio{directory="/var/lib/mailbag",of="inodes"} 0.5`,
		`mailbag_disk_free_ratio{directory="/var/lib/mailbag",of="space"} 0.05`,
		`mailbag_smtp_accepts{what="account"} 0`,
		`mailbag_smtp_accepts{what="local"} 1`,
		`mailbag_doctor_findings{part="disk",result="failed"} 2`,
		`mailbag_doctor_findings{part="disk",result="warning"} 1`,
		`mailbag_doctor_findings{part="disk",result="ok"} 0`,
		`mailbag_doctor_findings{part="moon",result="ok"} 1`,
		`mailbag_doctor_findings{part="queue",result="failed"} 0`,
	} {
		if !strings.Contains(text.String(), "\n"+want+"\n") {
			t.Errorf("%s is missing in\n%s", want, text.String())
		}
	}
}

// What was found is in the metrics: a run that failed is one that wrote none.
func TestDoctorThatWroteMetricsDidNotFail(t *testing.T) {
	t.Parallel()
	w := newWorkplace(t, storyMail{})
	const ill = `mailbag_doctor_findings{part="setup",result="failed"} 1`
	if out := w.must("doctor", "--metrics", "-"); !strings.Contains(out, ill) {
		t.Errorf("%s is missing in\n%s", ill, out)
	}
	if out := w.must("doctor", "--metrics", w.path("metrics.prom")); out != "" {
		t.Errorf("besides the file it wrote %q", out)
	}
	w.must("doctor", "--metrics", w.path("metrics.prom"))
	shown, err := readings.File(w.path("metrics.prom")).Gather()
	if err != nil || len(shown) == 0 {
		t.Errorf("the file has %v, %v", shown, err)
	}
	if status, _, errs := w.run("doctor", "--metrics", w.path("none/metrics.prom")); status != failed || !strings.Contains(errs, "none does not exist") {
		t.Errorf("without the directory: %d %s", status, errs)
	}
	other := w.path("other")
	if err := os.WriteFile(other, []byte("something else\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	status, _, errs := w.run("doctor", "--metrics", other)
	if kept, err := os.ReadFile(other); status != failed || !strings.Contains(errs, "other cannot be written: it exists already") || string(kept) != "something else\n" {
		t.Errorf("over another file: %d %s, and %q, %v is in it", status, errs, kept, err)
	}
	if status, _, errs := w.run("doctor", "--metrics", w.path("mailbag.db-wal")); status != failed || !strings.Contains(errs, "belongs to the ledger") {
		t.Errorf("as a file of the ledger: %d %s", status, errs)
	}
	w.must("doctor", "--metrics", os.DevNull)
	if status, _, errs := w.run("doctor", "--metrics", "-", "--json"); status != misuse {
		t.Errorf("with --json: %d %s", status, errs)
	}
}

// A part that is not known has no zero before the first finding, and a metric that is not known cannot be set.
func TestPartsAndMetricsOfTheDoctorAreKnown(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("doctor*.go")
	if err != nil {
		t.Fatal(err)
	}
	var known []string
	for _, m := range readings.Metrics {
		known = append(known, m.Name)
	}
	found := 0
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`\bPart: *"([a-z ]+)"|"(mailbag_[a-z_]+)"`).FindAllSubmatch(source, -1) {
			part, metric := string(m[1]), string(m[2])
			if part != "" {
				found++
				if !slices.Contains(parts, part) {
					t.Errorf("%s: the part %q is not in parts", file, part)
				}
			} else if !slices.Contains(known, metric) && !strings.Contains(string(source), `sums["`+metric+`"]`) {
				t.Errorf("%s: %s is not in readings.Metrics", file, metric)
			}
		}
	}
	if found < 8 {
		t.Errorf("%d parts were found in %v", found, files)
	}
}
