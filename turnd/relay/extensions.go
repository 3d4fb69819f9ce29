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

	// LIMITS, RFC 9422; 0: none is named.
	MaxMessages   int // MAILMAX: transactions on one connection
	MaxRecipients int // RCPTMAX: recipients of one transaction
}

// Lessons are what a server offers and does not do, as a connection to it taught. What is in them is neither used nor
// offered to others any more.
type Lessons struct {
	Chunking, Pipelining bool
	DSN, EightBit, UTF8  bool
	Size                 bool // the parameter of MAIL; its limit still counts
}

// And is both together.
func (l Lessons) And(more Lessons) Lessons {
	return Lessons{l.Chunking || more.Chunking, l.Pipelining || more.Pipelining, l.DSN || more.DSN,
		l.EightBit || more.EightBit, l.UTF8 || more.UTF8, l.Size || more.Size}
}

// without takes away what does not work.
func (e Extensions) without(l Lessons) Extensions {
	e.Chunking = e.Chunking && !l.Chunking
	e.Pipelining = e.Pipelining && !l.Pipelining
	e.DSN = e.DSN && !l.DSN
	e.EightBit = e.EightBit && !l.EightBit
	e.UTF8 = e.UTF8 && !l.UTF8
	e.Size = e.Size && !l.Size
	return e
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
		case "LIMITS":
			e.limits(words[1:])
		}
	}
	return name, e
}

// limits reads the parameters of LIMITS (RFC 9422, section 3).
func (e *Extensions) limits(parameters []string) {
	for _, p := range parameters {
		name, value, _ := strings.Cut(p, "=")
		n, err := strconv.ParseUint(value, 10, 31)
		if err != nil || n == 0 {
			continue
		}
		switch strings.ToUpper(name) {
		case "MAILMAX":
			e.MaxMessages = int(n)
		case "RCPTMAX":
			e.MaxRecipients = int(n)
		}
	}
}
