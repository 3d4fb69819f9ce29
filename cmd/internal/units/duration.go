package units

import (
	"fmt"
	"math/big"
	"regexp"
	"strings"
	"time"
)

// day is 24 hours: a hold time or a retention does not follow daylight saving time.
const day = 24 * time.Hour

var durationUnits = map[string]time.Duration{
	"w": 7 * day, "d": day, "h": time.Hour, "m": time.Minute, "s": time.Second,
	"ms": time.Millisecond, "us": time.Microsecond, "µs": time.Microsecond, "ns": time.Nanosecond,
}

var (
	durationText = regexp.MustCompile(`^([0-9]+(\.[0-9]+)?[a-zµ]+)+$`)
	durationPart = regexp.MustCompile(`([0-9]+(?:\.[0-9]+)?)([a-zµ]+)`)
)

// ParseDuration returns the time that s stands for: "30d", "2w", "12h", "1d12h", "1.5s". A day is
// 24 hours, a week 7 days, "m" are minutes. It takes everything that [time.ParseDuration] takes,
// except a sign and numbers without a digit before the point.
func ParseDuration(s string) (time.Duration, error) {
	if err := checked("duration", s); err != nil {
		return 0, err
	}
	if s == "0" {
		return 0, nil
	}
	if !durationText.MatchString(s) {
		return 0, fmt.Errorf("%q is not a duration: write for example 30d, 12h, 1h30m or 10s", s)
	}
	total := new(big.Rat)
	for _, m := range durationPart.FindAllStringSubmatch(s, -1) {
		unit, ok := durationUnits[m[2]]
		if !ok {
			return 0, fmt.Errorf("duration %q has the unknown unit %q: known are w, d, h, m, s, ms, us and ns", s, m[2])
		}
		part, ok := scale(m[1], int64(unit))
		if !ok {
			return 0, fmt.Errorf("%q is not a duration", s)
		}
		total.Add(total, part)
	}
	switch {
	case total.Cmp(maxInt64) > 0:
		return 0, fmt.Errorf("duration %q is too long: at most %s", s, FormatDuration(1<<63-1))
	case !total.IsInt():
		return 0, fmt.Errorf("duration %q is finer than a nanosecond", s)
	}
	return time.Duration(total.Num().Int64()), nil
}

// FormatDuration writes d without rounding, in days, hours, minutes and seconds, leaving out what
// is zero: "62d", "1d12h", "1m30s", "1.5s", "0s". A negative duration gets a leading minus that
// ParseDuration does not read.
func FormatDuration(d time.Duration) string {
	if d == 0 {
		return "0s"
	}
	var b strings.Builder
	rest := d
	if d < 0 {
		b.WriteByte('-')
	}
	for _, u := range []struct {
		name string
		unit time.Duration
	}{{"d", day}, {"h", time.Hour}, {"m", time.Minute}} {
		if n := rest / u.unit; n != 0 {
			fmt.Fprintf(&b, "%d%s", max(n, -n), u.name)
			rest %= u.unit
		}
	}
	if rest != 0 {
		// What is left is under a minute, where Go's own notation has a single unit.
		b.WriteString(strings.TrimPrefix(rest.String(), "-"))
	}
	return b.String()
}
