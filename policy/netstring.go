package policy

import "strconv"

// netstringLimit is the longest lookup request in octets with its framing. Postfix asks for nothing
// longer than an address on a line of its own (line_length_limit, 2,048).
const netstringLimit = 8 << 10

// frameNetstring finds the end of a netstring, length:octets, with the comma at its end.
func frameNetstring(b []byte, _ int) (int, error) {
	n, digits := 0, 0
	for ; digits < len(b) && b[digits] != ':'; digits++ {
		c := b[digits]
		if c < '0' || c > '9' || digits == 1 && b[0] == '0' {
			return 0, badInput("a lookup is not a netstring")
		}
		if n = n*10 + int(c-'0'); n > netstringLimit-len("8192:,") {
			return 0, badInput("a lookup is longer than 8 KiB")
		}
	}
	switch {
	case digits == len(b):
		return 0, nil
	case digits == 0:
		return 0, badInput("a lookup is not a netstring")
	}
	end := digits + 1 + n
	if len(b) <= end {
		return 0, nil
	}
	if b[end] != ',' {
		return 0, badInput("a lookup's length does not fit its text")
	}
	return end + 1, nil
}

// netstringText is what a whole netstring holds.
func netstringText(b []byte) []byte {
	for i, c := range b {
		if c == ':' {
			return b[i+1 : len(b)-1]
		}
	}
	return nil
}

func appendNetstring(b []byte, text string) []byte {
	b = strconv.AppendInt(b, int64(len(text)), 10)
	b = append(b, ':')
	b = append(b, text...)
	return append(b, ',')
}
