package units

import (
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestSizesAreReadExactly(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{
		"0": 0, "1": 1, "500MB": 500e6, "500mb": 500e6, "1GB": 1e9, "2GiB": 2 << 30, "1.5GB": 1.5e9,
		"1.5GiB": 3 << 29, "10 kB": 10e3, "1KiB": 1024, "7B": 7, "0.5kB": 500, "3TB": 3e12, "2PiB": 2 << 50,
		"9223372036854775807": math.MaxInt64, "9223372036854775.807kB": math.MaxInt64, "1.000": 1,
	} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
}

func TestBadSizesAreRefusedWithTheReason(t *testing.T) {
	t.Parallel()
	for text, reason := range map[string]string{
		"": "missing", "-1": "negative", "-1GB": "negative", "+1": "not a size", "1G": "1GB (powers of 1000) or 1GiB (powers of 1024)",
		"1k": "1kB", "GB": "not a size", "1XB": "unknown unit", "1.5": "whole number", "1.0001kB": "whole number",
		"9223372036854775808": "too large", "10000PB": "too large", "1e9": "not a size", "1/2": "not a size", "1 GB ": "not a size", "0x10": "not a size",
		"1_000": "not a size", "1,5GB": "not a size", strings.Repeat("9", 65): "longer than 64", "１GB": "not a size", "1\n": "not a size",
	} {
		if got, err := ParseSize(text); err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("ParseSize(%q) = %d, %v; want an error with %q", text, got, err, reason)
		}
	}
}

func TestSizesAreWrittenInTheShortestExactForm(t *testing.T) {
	t.Parallel()
	for octets, want := range map[int64]string{
		0: "0B", 1: "1B", 1234: "1234B", 1000: "1kB", 1024: "1KiB", 1e9: "1GB", 2 << 30: "2GiB", 1.5e9: "1500MB", 1024000: "1024kB",
		-5e8: "-500MB", math.MaxInt64: "9223372036854775807B", math.MinInt64: "-8192PiB",
	} {
		if got := FormatSize(octets); got != want {
			t.Errorf("FormatSize(%d) = %q; want %q", octets, got, want)
		}
	}
}

func TestRoundedSizesHaveThreeDigits(t *testing.T) {
	t.Parallel()
	for octets, want := range map[int64]string{
		0: "0 B", 999: "999 B", 1000: "1.00 kB", 1234: "1.23 kB", 45600: "45.6 kB", 999400: "999 kB", 999999: "1.00 MB",
		1e9: "1.00 GB", 123456789012: "123 GB", -1500: "-1.50 kB", 99960: "100 kB",
	} {
		if got := RoundSize(octets); got != want {
			t.Errorf("RoundSize(%d) = %q; want %q", octets, got, want)
		}
	}
}

func TestDurationsAreReadExactly(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"0": 0, "0s": 0, "12h": 12 * time.Hour, "30d": 30 * day, "2w": 14 * day, "1d12h": 36 * time.Hour, "1h30m": 90 * time.Minute,
		"1.5s": 1500 * time.Millisecond, "250ms": 250 * time.Millisecond, "3us": 3000, "3µs": 3000, "9ns": 9, "0.5d": 12 * time.Hour, "400d": 400 * day,
		"9223372036854775807ns": math.MaxInt64,
	} {
		if got, err := ParseDuration(text); err != nil || got != want {
			t.Errorf("ParseDuration(%q) = %s, %v; want %s", text, got, err, want)
		}
	}
}

func TestBadDurationsAreRefusedWithTheReason(t *testing.T) {
	t.Parallel()
	for text, reason := range map[string]string{
		"": "missing", "-5s": "negative", "+5s": "not a duration", "30": "not a duration", "30 d": "not a duration", "d": "not a duration",
		"1y": "unknown unit", "1D": "not a duration", ".5s": "not a duration", "1.s": "not a duration", "106752d": "too long", "106751d23h47m17s": "too long",
		"0.5ns": "nanosecond", "1e3s": "unknown unit", strings.Repeat("1h", 40): "longer than 64",
	} {
		if got, err := ParseDuration(text); err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("ParseDuration(%q) = %s, %v; want an error with %q", text, got, err, reason)
		}
	}
}

func TestDurationsAreWrittenInDaysHoursMinutesAndSeconds(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		0: "0s", 62 * day: "62d", 36 * time.Hour: "1d12h", 12 * time.Hour: "12h", 90 * time.Second: "1m30s", 1500 * time.Millisecond: "1.5s",
		-90 * time.Second: "-1m30s", day + 1: "1d1ns", math.MinInt64: "-106751d23h47m16.854775808s",
	} {
		if got := FormatDuration(d); got != want {
			t.Errorf("FormatDuration(%d) = %q; want %q", d, got, want)
		}
	}
}

func TestAmountsAreReadExactly(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{"0": 0, "10": 1000, "10.00": 1000, "0.05": 5, "999999999999.99": 99999999999999, "007": 700} {
		if got, err := ParseMoney(text); err != nil || got != want {
			t.Errorf("ParseMoney(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
	for text, reason := range map[string]string{
		"": "missing", "-1": "negative", "10.5": "not an amount", "10.000": "not an amount", ".50": "not an amount", "10,00": "not an amount",
		"1e3": "not an amount", "+1": "not an amount", "1000000000000": "twelve digits", "$10": "not an amount", " 1": "not an amount", "１": "not an amount",
	} {
		if got, err := ParseMoney(text); err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("ParseMoney(%q) = %d, %v; want an error with %q", text, got, err, reason)
		}
	}
}

func TestDifferencesHaveASign(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{"+5MB": 5e6, "-5MB": -5e6, "5": 5, "-0": 0} {
		if got, err := ParseDifference(text, ParseSize); err != nil || got != want {
			t.Errorf("ParseDifference(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "+", "-", "--5", "+-5", "-five"} {
		if got, err := ParseDifference(text, ParseSize); err == nil {
			t.Errorf("ParseDifference(%q) = %d", text, got)
		}
	}
}

func TestEverySizeIsReadBackAsWritten(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64Range(0, math.MaxInt64).Draw(t, "octets")
		if got, err := ParseSize(FormatSize(n)); err != nil || got != n {
			t.Fatalf("%d is written %q and read back as %d, %v", n, FormatSize(n), got, err)
		}
	})
}

func TestEveryDurationIsReadBackAsWritten(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64Range(0, math.MaxInt64).Draw(t, "nanoseconds"))
		if got, err := ParseDuration(FormatDuration(d)); err != nil || got != d {
			t.Fatalf("%d is written %q and read back as %d, %v", d, FormatDuration(d), got, err)
		}
	})
}

// What Go reads as a duration without a sign means the same here.
func TestGoDurationsMeanTheSame(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64Range(0, math.MaxInt64).Draw(t, "nanoseconds"))
		if got, err := ParseDuration(d.String()); err != nil || got != d {
			t.Fatalf("Go's %q is read as %s, %v", d, got, err)
		}
	})
}

func FuzzParseSize(f *testing.F) {
	for _, seed := range []string{"", "0", "500MB", "1GB", "1.5GB", "2GiB", "1G", "-1", "9223372036854775808", "1.0001kB", "1e9", "1 GB", "\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n, err := ParseSize(text)
		if err != nil {
			return
		}
		if n < 0 {
			t.Fatalf("%q is read as the negative %d", text, n)
		}
		if again, err := ParseSize(FormatSize(n)); err != nil || again != n {
			t.Fatalf("%q is %d, written %q, read back as %d, %v", text, n, FormatSize(n), again, err)
		}
	})
}

func FuzzParseDuration(f *testing.F) {
	for _, seed := range []string{"", "0", "12h", "30d", "2w", "1h30m", "1.5s", "-5s", "106752d", "0.5ns", "3µs", "1y", "\xc2"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d, err := ParseDuration(text)
		if err != nil {
			return
		}
		if d < 0 {
			t.Fatalf("%q is read as the negative %s", text, d)
		}
		if again, err := ParseDuration(FormatDuration(d)); err != nil || again != d {
			t.Fatalf("%q is %s, written %q, read back as %s, %v", text, d, FormatDuration(d), again, err)
		}
	})
}

func FuzzParseMoney(f *testing.F) {
	for _, seed := range []string{"", "0", "10.00", "10.5", "-1", "999999999999.99", "1e9", "\xff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n, err := ParseMoney(text)
		if err == nil && (n < 0 || n > 99999999999999) {
			t.Fatalf("%q is read as %d", text, n)
		}
	})
}
