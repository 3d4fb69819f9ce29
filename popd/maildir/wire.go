package maildir

import "bytes"

// A Wire turns a message as it is stored into what POP3 sends (RFC 1939, section 3): lines end with CRLF, and
// one that begins with a dot gets another. Its zero value is at the beginning of a message.
type Wire struct {
	within bool // a line was begun
	cr     bool // and its latest octet was a CR
}

// Append appends the next octets of a message to dst.
func (w *Wire) Append(dst, p []byte) []byte {
	for len(p) > 0 {
		if !w.within && p[0] == '.' {
			dst = append(dst, '.')
		}
		end := bytes.IndexByte(p, '\n')
		if end < 0 {
			w.within, w.cr = true, p[len(p)-1] == '\r'
			return append(dst, p...)
		}
		if end > 0 {
			w.cr = p[end-1] == '\r'
		}
		dst = append(dst, p[:end]...)
		if !w.cr {
			dst = append(dst, '\r')
		}
		dst = append(dst, '\n')
		p = p[end+1:]
		w.within, w.cr = false, false
	}
	return dst
}

// End ends the last line where the message does not.
func (w *Wire) End(dst []byte) []byte {
	if w.within {
		dst = append(dst, "\r\n"...)
	}
	*w = Wire{}
	return dst
}
