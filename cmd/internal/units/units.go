// Package units reads and writes the sizes, durations and amounts of money of the settings file and the command line.
//
// It promises that what Format writes, Parse reads back to the same value, and that a text which is
// ambiguous, negative, too large or not a whole number of octets or nanoseconds is refused with a
// sentence that says what to write instead; nothing is rounded, because bills rest on these numbers.
// It knows no locale: the decimal separator is a point, and there are no thousands separators.
//
// Security: texts longer than 64 octets are refused before they are looked at.
package units

import (
	"fmt"
	"math/big"
)

// maxText is the longest text that is looked at, in octets.
const maxText = 64

var maxInt64 = big.NewRat(1<<63-1, 1)

// scale returns number (digits with an optional fraction) times unit, exactly.
func scale(number string, unit int64) (*big.Rat, bool) {
	r, ok := new(big.Rat).SetString(number)
	if !ok {
		return nil, false
	}
	return r.Mul(r, new(big.Rat).SetInt64(unit)), true
}

// checked says whether text can be a quantity at all; kind names it in the error.
func checked(kind, text string) error {
	switch {
	case text == "":
		return fmt.Errorf("a %s is missing", kind)
	case len(text) > maxText:
		return fmt.Errorf("%s %.16q... is longer than %d characters", kind, text, maxText)
	case text[0] == '-':
		return fmt.Errorf("%s %q is negative", kind, text)
	}
	return nil
}
