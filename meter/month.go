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

// Days is the number of days that the month has.
func (m Month) Days() int { return time.Date(m.Year, m.Month+1, 0, 0, 0, 0, 0, time.UTC).Day() }

// day is the key under which usage is kept: the calendar day of t at loc.
func day(t time.Time, loc *time.Location) string { return t.In(loc).Format(time.DateOnly) }

// span is the first and the last day of the month, as keys of usage.
func (m Month) span() (first, last string) {
	return m.String() + "-01", fmt.Sprintf("%s-%02d", m, m.Days())
}
