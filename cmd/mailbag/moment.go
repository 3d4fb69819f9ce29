package main

import (
	"fmt"
	"strings"
	"time"

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

// monthName is how a customer reads a month.
func monthName(m meter.Month) string { return fmt.Sprintf("%s %d", m.Month, m.Year) }
