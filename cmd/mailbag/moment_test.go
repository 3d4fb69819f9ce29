package main

import (
	"html"
	"os"
	"strings"
	"testing"
	"time"

	"mailbag/cmd/internal/settings"
)

// inZone puts the bills of a workplace into a time zone.
func (w *workplace) inZone(name string) {
	w.t.Helper()
	text := read(w.t, w.path("mailbag.toml")) + "[billing]\ntimezone = \"" + name + "\"\n"
	if err := os.WriteFile(w.path("mailbag.toml"), []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// TestDatesForPeopleAreInTheBillingTimeZone closes a month just after its end, where that is, and reads when.
func TestDatesForPeopleAreInTheBillingTimeZone(t *testing.T) {
	t.Parallel()
	for zone, month := range map[string]struct{ name, begins, adjusted, closed, date, at, json string }{
		"Asia/Kathmandu": {"2026-10", "2026-09-30 18:15:00", "2026-10-31 18:16:00", "2026-10-31 18:20:00",
			"1 November 2026", "1 November 2026, 00:05 UTC+05:45", "2026-10-31T18:20:00Z"},
		"Pacific/Kiritimati": {"2026-10", "2026-09-30 10:00:00", "2026-10-31 10:01:00", "2026-10-31 10:05:00",
			"1 November 2026", "1 November 2026, 00:05 UTC+14:00", "2026-10-31T10:05:00Z"},
		"America/New_York": {"2026-10", "2026-10-01 04:00:00", "2026-11-01 04:01:00", "2026-11-01 05:30:00", // the clock is set back at 06:00
			"1 November 2026", "1 November 2026, 01:30 EDT", "2026-11-01T05:30:00Z"},
		"Pacific/Pago_Pago": {"2026-10", "2026-10-01 11:00:00", "2026-11-01 10:59:00", "2026-11-01 11:05:00",
			"31 October 2026", "1 November 2026, 00:05 SST", "2026-11-01T11:05:00Z"},
	} {
		t.Run(zone, func(t *testing.T) {
			t.Parallel()
			w := newWorkplace(t, storyMail{})
			w.inZone(zone)
			w.at(month.begins)
			w.must("account", "add", "acme", "--mode", "backup", "--domain", "acme.example")
			first := month.name + "-01 00:00:00"
			if out := w.must("account", "history", "acme"); !strings.Contains(out, first) {
				t.Errorf("the account was not added at %s there:\n%s", first, out)
			}
			if out := w.must("account", "show", "acme"); !strings.Contains(out, first) {
				t.Errorf("the account was not created at %s there:\n%s", first, out)
			}
			w.at(month.adjusted)
			w.must("usage", "adjust", "acme", "--month", month.name, "--messages", "5", "--reason", "sent by hand")
			if text := w.must("statement", "acme", "--month", month.name, "--html", "-"); !strings.Contains(text, ", "+month.date+"</td>") {
				t.Errorf("the adjustment was not made on %s there", month.date)
			}
			w.at(month.closed)
			if out := w.must("invoice", "--month", month.name, "--close"); !strings.Contains(out, "closed on "+month.at+" by") {
				t.Errorf("the bill was not closed on %s there:\n%s", month.at, out)
			}
			if text := html.UnescapeString(w.must("statement", "acme", "--month", month.name, "--html", "-")); !strings.Contains(text, "Closed on "+month.at+".") {
				t.Errorf("the statement was not closed on %s there", month.at)
			}
			if out := w.must("invoice", "--month", month.name, "--json"); !strings.Contains(out, `"closed": "`+month.json+`"`) {
				t.Errorf("for programs it was not closed at %s:\n%s", month.json, out)
			}
		})
	}
}

// TestMomentsFollowSummerTime writes times before and after a clock is changed.
func TestMomentsFollowSummerTime(t *testing.T) {
	t.Parallel()
	w := newWorkplace(t, storyMail{})
	w.inZone("America/New_York")
	d, err := (&console{config: w.path("mailbag.toml"), load: withMTA(w.mta), now: time.Now}).open(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	defer d.ledger.Close()
	for utc, want := range map[string]string{
		"2026-03-08T06:59:00Z": "8 March 2026, 01:59 EST", "2026-03-08T07:00:00Z": "8 March 2026, 03:00 EDT",
		"2026-11-01T05:59:00Z": "1 November 2026, 01:59 EDT", "2026-11-01T06:00:00Z": "1 November 2026, 01:00 EST",
	} {
		at, err := time.Parse(time.RFC3339, utc)
		if err != nil {
			t.Fatal(err)
		}
		if got := d.moment(at); got != want {
			t.Errorf("%s is %q, want %q", utc, got, want)
		}
		kathmandu := time.FixedZone("+0545", 20_700) // a machine's own zone plays no part
		if got := d.moment(at.In(kathmandu)); got != want {
			t.Errorf("%s is %q for a machine elsewhere, want %q", utc, got, want)
		}
	}
}

func TestFiguresForPeopleAreGrouped(t *testing.T) {
	t.Parallel()
	for got, want := range map[string]string{
		grouped(0): "0", grouped(-999): "-999", grouped(-123456): "-123,456", grouped(1234567): "1,234,567",
		money(5): "0.05", money(-123456789): "-1,234,567.89", money(99999999999999): "999,999,999,999.99", money(100000): "1,000.00",
		exactSize(1e9): "1 GB", exactSize(1234567): "1,234,567 B", exactSize(1 << 30): "1 GiB", exactSize(0): "0 B",
		signed(-1234567, grouped): "-1,234,567", signed(1000, grouped): "+1,000", signed(0, grouped): "",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func FuzzInstants(f *testing.F) {
	for _, seed := range []string{"", "2026-02-03", "2026-02-03 10:00", "2026-02-03T10:00:01", "2026-02-03T10:00:01+05:45", "2h", "1d12h", "0", "yesterday", "-2h", "9999999d"} {
		f.Add(seed)
	}
	now := time.Date(2026, 2, 3, 12, 0, 0, 0, time.UTC)
	s := settings.Default()
	d := &desk{console: &console{now: func() time.Time { return now }}, settings: s}
	f.Fuzz(func(t *testing.T, text string) {
		at, err := (&instantFlag{text}).at(d)
		switch {
		case err != nil && !at.IsZero(), text == "" && !at.IsZero():
			t.Errorf("%q is %v, %v", text, at, err)
		case err == nil && text != "":
			again, err := (&instantFlag{at.Format(time.RFC3339)}).at(d)
			if err == nil && !again.Equal(at.Truncate(time.Second)) {
				t.Errorf("%q is %v, and what that is written as %v", text, at, again)
			}
		}
	})
}
