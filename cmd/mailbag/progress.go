package main

import (
	"fmt"
	"strconv"

	"mailbag/cmd/internal/units"
)

// showProgress replaces the line at the end of a terminal; elsewhere it says nothing.
func (c *console) showProgress(format string, args ...any) {
	if c.progress {
		fmt.Fprintf(c.err, "\r\x1b[K"+format, args...)
	}
}

// endProgress takes the line away.
func (c *console) endProgress() {
	if c.progress {
		fmt.Fprint(c.err, "\r\x1b[K")
	}
}

// amount is how an operator is told of mail: "1 message, 4.1 kB".
func amount(messages, bytes int64) string {
	return amountOf(int(messages)) + ", " + units.RoundSize(bytes)
}

func amountOf(messages int) string {
	if messages == 1 {
		return "1 message"
	}
	return grouped(int64(messages)) + " messages"
}

// verb is the form of a verb for so many things.
func verb(n int64, one, several string) string {
	if n == 1 {
		return one
	}
	return several
}

// grouped writes a number with its thousands apart: 350,000.
func grouped(n int64) string {
	digits := strconv.FormatInt(n, 10)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}
