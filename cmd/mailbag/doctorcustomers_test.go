package main

import (
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mailbag/cmd/internal/settings"
	"mailbag/meter"
)

func TestDoctorNamesTheCustomersWhoHaveBeenSilentForLongest(t *testing.T) {
	t.Parallel()
	begun := time.Date(2026, 2, 1, 12, 0, 0, 0, time.UTC)
	at := begun
	now := func() time.Time { return at }
	ledger, err := meter.Open(t.Context(), filepath.Join(t.TempDir(), "mailbag.db"), meter.Options{Create: true, Now: now, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer ledger.Close()
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		a := meter.Account{Name: name, Mode: meter.ATRN, Domains: []string{name + ".example"}, Recipients: meter.AnyRecipient, Copies: meter.PerRecipient}
		if err := ledger.AddAccount(t.Context(), a, nil); err != nil {
			t.Fatal(err)
		}
	}
	all, err := ledger.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	fetched := meter.Turn{Kind: meter.TurnATRN, Began: begun, Ended: begun.Add(time.Hour), Messages: 1, Outcome: "done"}
	if err := ledger.RecordTurn(t.Context(), "one", all.Account("a").ID, fetched); err != nil {
		t.Fatal(err)
	}
	s := settings.Default()
	c := &console{now: now}
	p := &patient{console: c, settings: s, desk: &desk{console: c, settings: s, ledger: ledger}}
	for _, test := range []struct {
		after, silent time.Duration
		want          string
	}{
		{6 * 24 * time.Hour, s.Notices.Silent, "ok nobody who fetches mail has been away for 7d"},
		{8 * 24 * time.Hour, s.Notices.Silent, "warning 5 accounts have not asked for mail for 7d: b, who never did; c, who never did; d, who never did; and 2 more"},
		{8 * 24 * time.Hour, 0, ""},
	} {
		at, s.Notices.Silent = begun.Add(test.after), test.silent
		var got []string
		for _, d := range p.examineCustomers(t.Context()) {
			got = append(got, string(d.Result)+" "+d.Text)
		}
		if strings.Join(got, "\n") != test.want {
			t.Errorf("after %v: %q, want %q", test.after, got, test.want)
		}
	}
}
