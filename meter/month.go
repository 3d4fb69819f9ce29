package meter

import (
	"fmt"
	"time"
)

// A Month is a calendar month in the billing time zone.
type Month struct {
	Year  int
	Month time.Month
}

// MonthOf is the month in which t falls at loc.
func MonthOf(t time.Time, loc *time.Location) Month {
	t = t.In(loc)
	return Month{t.Year(), t.Month()}
}

// ParseMonth reads YYYY-MM.
func ParseMonth(s string) (Month, error) {
	t, err := time.Parse("2006-01", s)
	if err != nil {
		return Month{}, fmt.Errorf("%q is not a month: write it as YYYY-MM, for example 2026-02", s)
	}
	return Month{t.Year(), t.Month()}, nil
}

// String is the month as YYYY-MM.
func (m Month) String() string { return fmt.Sprintf("%04d-%02d", m.Year, m.Month) }

// Next is the month after it.
func (m Month) Next() Month {
	if m.Month == time.December {
		return Month{m.Year + 1, time.January}
	}
	return Month{m.Year, m.Month + 1}
}

// Previous is the month before it.
func (m Month) Previous() Month {
	if m.Month == time.January {
		return Month{m.Year - 1, time.December}
	}
	return Month{m.Year, m.Month - 1}
}

// Before reports whether the month is earlier than another.
func (m Month) Before(other Month) bool {
	return m.Year < other.Year || m.Year == other.Year && m.Month < other.Month
}

// quarter divides every change of the clock that a time zone makes.
const quarter = 15 * time.Minute

// Start is the month's first moment at loc, also where the clock is changed at that midnight.
func (m Month) Start(loc *time.Location) time.Time { return m.dayStart(1, loc) }

// dayStart is the first moment at loc of the month's n-th day; of a day that a time zone has left out, that of the next.
func (m Month) dayStart(n int, loc *time.Location) time.Time {
	start := time.Date(m.Year, m.Month, n, 0, 0, 0, 0, loc)
	key := time.Date(m.Year, m.Month, n, 0, 0, 0, 0, time.UTC).Format(time.DateOnly)
	for day(start, loc) < key { // there is no such midnight
		start = start.Add(quarter)
	}
	for day(start.Add(-quarter), loc) >= key { // there are two, or the day begins earlier
		start = start.Add(-quarter)
	}
	return start
}

// Days is the number of days that the month has.
func (m Month) Days() int { return time.Date(m.Year, m.Month+1, 0, 0, 0, 0, 0, time.UTC).Day() }

// day is the key under which usage is kept: the calendar day of t at loc.
func day(t time.Time, loc *time.Location) string { return t.In(loc).Format(time.DateOnly) }

// span is the first and the last day of the month, as keys of usage.
func (m Month) span() (first, last string) {
	return m.String() + "-01", fmt.Sprintf("%s-%02d", m, m.Days())
}
