package relay

import (
	"strconv"
	"strings"
)

// Extensions are those of a server's EHLO reply (RFC 5321, section 4.1.1.1) that matter here.
type Extensions struct {
	Size       bool  // RFC 1870
	SizeLimit  int64 // octets; 0: none is named
	EightBit   bool  // 8BITMIME, RFC 6152
	UTF8       bool  // SMTPUTF8, RFC 6531
	DSN        bool  // RFC 3461
	Chunking   bool  // RFC 3030
	Pipelining bool  // RFC 2920
	StartTLS   bool  // RFC 3207
}

// parseExtensions reads a positive reply to EHLO. What is not known or not well formed is passed over: a
// server is not worse for offering more.
func parseExtensions(r Reply) (name string, e Extensions) {
	lines := strings.Split(r.Text, "\n")
	name, _, _ = strings.Cut(lines[0], " ")
	for _, line := range lines[1:] {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		switch strings.ToUpper(words[0]) {
		case "SIZE":
			e.Size = true
			if len(words) > 1 {
				if n, err := strconv.ParseInt(words[1], 10, 64); err == nil && n > 0 {
					e.SizeLimit = n
				}
			}
		case "8BITMIME":
			e.EightBit = true
		case "SMTPUTF8":
			e.UTF8 = true
		case "DSN":
			e.DSN = true
		case "CHUNKING":
			e.Chunking = true
		case "PIPELINING":
			e.Pipelining = true
		case "STARTTLS":
			e.StartTLS = true
		}
	}
	return name, e
}
