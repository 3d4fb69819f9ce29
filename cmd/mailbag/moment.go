package main

import (
	"fmt"
	"strings"
	"time"

	"mailbag/cmd/internal/units"
	"mailbag/meter"
)

// Times for people are in the billing time zone, whatever the machine's is: a month that was closed at 00:05 there was
// not closed in the month before. Programs get them in UTC, by --json.
func (d *desk) local(t time.Time) time.Time { return t.In(d.settings.Billing.Location) }

// stamp is a time in a listing.
func (d *desk) stamp(t time.Time) string { return d.local(t).Format(time.DateTime) }

// date is how a customer reads a day.
func (d *desk) date(t time.Time) string { return d.local(t).Format("2 January 2006") }

// moment is how a customer reads a time.
func (d *desk) moment(t time.Time) string { return moment(d.local(t)) }

// moment names a time and its zone. One without a name of its own is called by its distance from UTC.
func moment(t time.Time) string {
	zone, _ := t.Zone()
	if strings.ContainsAny(zone, "+-") {
		zone = t.Format("UTC-07:00")
	}
	return t.Format("2 January 2006, 15:04 ") + zone
}

// span is how a customer reads a length of time: "5 days", "36 hours".
func span(length time.Duration) string {
	for _, unit := range []struct {
		name   string
		length time.Duration
	}{{"day", 24 * time.Hour}, {"hour", time.Hour}, {"minute", time.Minute}} {
		switch n := length / unit.length; {
		case n == 1 && length == unit.length:
			return "1 " + unit.name
		case n > 1 && length%unit.length == 0:
			return fmt.Sprintf("%d %ss", n, unit.name)
		}
	}
	return units.FormatDuration(length)
}

// monthName is how a customer reads a month.
func monthName(m meter.Month) string { return fmt.Sprintf("%s %d", m.Month, m.Year) }

// instantFlag is a flag for a time, or for how long ago it was.
type instantFlag struct{ text string }

func (f *instantFlag) String() string     { return f.text }
func (f *instantFlag) Type() string       { return "MOMENT" }
func (f *instantFlag) Set(s string) error { f.text = s; return nil }

// at is the time that is meant, zero for none.
func (f *instantFlag) at(d *desk) (time.Time, error) {
	if f.text == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.DateOnly, "2006-01-02 15:04", time.DateTime, "2006-01-02T15:04", "2006-01-02T15:04:05", time.RFC3339} {
		if t, err := time.ParseInLocation(layout, f.text, d.settings.Billing.Location); err == nil {
			return t.UTC(), nil
		}
	}
	ago, err := units.ParseDuration(f.text)
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is no moment; write 2026-02-03, \"2026-02-03 10:00\", or how long ago it was, such as 2h", f.text)
	}
	return d.now().Add(-ago).UTC(), nil
}
