package maildir

import "bytes"

// A meter counts a message as it is stored and as it is sent, without the dots that make it transparent (RFC 1939,
// section 11: the size is of the message itself).
type meter struct {
	stored, sent int64 // octets
	last         byte  // the latest octet; 0: there was none
}

func (m *meter) add(p []byte) {
	if len(p) == 0 {
		return
	}
	m.stored += int64(len(p))
	m.sent += int64(len(p) + bareLFs(p, m.last))
	m.last = p[len(p)-1]
}

// total is the size as sent with what ends the last line.
func (m *meter) total() int64 {
	if m.stored > 0 && m.last != '\n' {
		return m.sent + int64(len("\r\n"))
	}
	return m.sent
}

// bareLFs is how many LFs in p, which the octet last stands before, lack a CR.
func bareLFs(p []byte, last byte) int {
	n := bytes.Count(p, []byte{'\n'})
	if n > 0 && last == '\r' && p[0] == '\n' {
		n--
	}
	if n > 0 && bytes.IndexByte(p, '\r') >= 0 {
		n -= bytes.Count(p, []byte("\r\n"))
	}
	return n
}
