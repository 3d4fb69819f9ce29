package main

import (
	"strconv"
	"strings"

	"mailbag/cmd/internal/units"
	"mailbag/meter"
)

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
func grouped(n int64) string { return thousands(strconv.FormatInt(n, 10)) }

// money writes an amount with its thousands apart: 1,234,567.89.
func money(c meter.Cents) string { return thousands(c.String()) }

// exactSize writes a size that was agreed on, such as a limit: 1 GB, 1,234,567 B. It is not rounded.
func exactSize(octets int64) string {
	text := units.FormatSize(octets)
	unit := strings.TrimLeft(text, "-0123456789")
	return thousands(strings.TrimSuffix(text, unit)) + " " + unit
}

// thousands sets the thousands of a decimal number apart.
func thousands(number string) string {
	digits, negative := strings.CutPrefix(number, "-")
	whole, _, _ := strings.Cut(digits, ".")
	text := digits[len(whole):]
	for ; len(whole) > 3; whole = whole[:len(whole)-3] {
		text = "," + whole[len(whole)-3:] + text
	}
	if negative {
		whole = "-" + whole
	}
	return whole + text
}

// signed writes a difference with its sign, and nothing where there is none.
func signed(n int64, format func(int64) string) string {
	switch {
	case n > 0:
		return "+" + format(n)
	case n < 0:
		return "-" + format(-n)
	}
	return ""
}
