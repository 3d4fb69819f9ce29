package units

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
)

var moneyText = regexp.MustCompile(`^([0-9]{1,12})(?:\.([0-9]{2}))?$`)

// ParseMoney returns the hundredths that s stands for: "10.00", "0.05" or "10". The largest amount has
// twelve digits before the point, so that sums of a year's bills stay far from overflow.
func ParseMoney(s string) (int64, error) {
	if err := checked("amount", s); err != nil {
		return 0, err
	}
	m := moneyText.FindStringSubmatch(s)
	if m == nil {
		return 0, fmt.Errorf(`%q is not an amount: write for example "10.00" or "10", at most twelve digits before the point`, s)
	}
	whole, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil {
		return 0, err
	}
	cents, err := strconv.ParseInt("0"+m[2], 10, 64)
	return whole*100 + cents, err
}

// ParseDifference returns the change that s stands for: "+5", "-5" or "5" of a quantity that parse reads.
func ParseDifference(s string, parse func(string) (int64, error)) (int64, error) {
	negative := false
	switch {
	case s == "":
		return 0, errors.New("a number is missing")
	case s[0] == '-':
		negative = true
		s = s[1:]
	case s[0] == '+':
		s = s[1:]
	}
	n, err := parse(s)
	if negative {
		n = -n
	}
	return n, err
}
