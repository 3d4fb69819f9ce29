package units

import (
	"fmt"
	"math/big"
	"regexp"
	"strconv"
	"strings"
)

// sizeUnits is every unit of a size, largest first within its family. A unit is read in upper or
// lower case and written as here. Decimal units are those of IEC 80000-13: 1 GB is 10^9 octets.
var sizeUnits = []struct {
	name   string
	octets int64
}{
	{"PB", 1e15}, {"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3},
	{"PiB", 1 << 50}, {"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"B", 1},
}

var sizeText = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]*)$`)

// ParseSize returns the octets that s stands for: "1000000", "500MB", "1.5GB" (decimal units),
// "2GiB" (binary units). It refuses the single letters K, M, G, T and P, which mean 1000 to some
// and 1024 to others.
func ParseSize(s string) (int64, error) {
	if err := checked("size", s); err != nil {
		return 0, err
	}
	m := sizeText.FindStringSubmatch(s)
	if m == nil {
		return 0, fmt.Errorf("%q is not a size: write for example 500MB, 1.5GB, 2GiB or plain octets", s)
	}
	number, name := m[1], m[2]
	octets, err := sizeUnit(s, number, name)
	if err != nil {
		return 0, err
	}
	r, ok := scale(number, octets)
	switch {
	case !ok:
		return 0, fmt.Errorf("%q is not a size", s)
	case r.Cmp(maxInt64) > 0:
		return 0, fmt.Errorf("size %q is too large: at most %d octets", s, int64(1<<63-1))
	case !r.IsInt():
		return 0, fmt.Errorf("size %q is not a whole number of octets", s)
	}
	return r.Num().Int64(), nil
}

func sizeUnit(s, number, name string) (int64, error) {
	if name == "" {
		return 1, nil
	}
	for _, u := range sizeUnits {
		if strings.EqualFold(u.name, name) {
			return u.octets, nil
		}
	}
	if len(name) == 1 && strings.Contains("KMGTP", strings.ToUpper(name)) {
		letter := strings.ToUpper(name)
		decimal := letter
		if letter == "K" {
			decimal = "k"
		}
		return 0, fmt.Errorf("size %q is ambiguous: write %s%sB (powers of 1000) or %s%siB (powers of 1024)", s, number, decimal, number, letter)
	}
	return 0, fmt.Errorf("size %q has the unknown unit %q: known are kB, MB, GB, TB, PB (powers of 1000), KiB, MiB, GiB, TiB, PiB (powers of 1024) and B", s, name)
}

// FormatSize writes octets without rounding, in the unit that gives the shortest text and, of two,
// the decimal one: 1000000000 is "1GB", 2147483648 is "2GiB", 1234 is "1234B". A negative number,
// which only a difference of sizes can be, gets a leading minus that ParseSize does not read.
func FormatSize(octets int64) string {
	n := new(big.Int).Abs(big.NewInt(octets))
	best := ""
	for _, u := range sizeUnits {
		quotient, rest := new(big.Int).QuoRem(n, big.NewInt(u.octets), new(big.Int))
		if rest.Sign() != 0 || quotient.Sign() == 0 && u.octets != 1 {
			continue
		}
		if text := quotient.String() + u.name; best == "" || len(text) < len(best) {
			best = text
		}
	}
	if octets < 0 {
		best = "-" + best
	}
	return best
}

// RoundSize writes octets for a reader, to three digits in decimal units: "1.23 GB", "45.6 kB".
// It is not meant to be read back.
func RoundSize(octets int64) string {
	for _, u := range sizeUnits[:5] {
		// 999.5 and more would be shown as 1000 of the unit below.
		if value := float64(octets) / float64(u.octets); value >= 0.9995 || value <= -0.9995 {
			return threeDigits(value) + " " + u.name
		}
	}
	return strconv.FormatInt(octets, 10) + " B"
}

func threeDigits(value float64) string {
	for decimals := 2; decimals > 0; decimals-- {
		text := strconv.FormatFloat(value, 'f', decimals, 64)
		if len(strings.TrimPrefix(text, "-")) <= 4 {
			return text
		}
	}
	return strconv.FormatFloat(value, 'f', 0, 64)
}
