package relay

import (
	"bytes"
	"io"
)

const (
	writeBuffer = 16 << 10 // octets
	writePiece  = 8 << 10  // octets that a line has to take within Limits.Stall
)

// progressWriter writes to the connection and tells the channel what moves.
type progressWriter struct{ *Channel }

func (w *progressWriter) Write(p []byte) (written int, err error) {
	for len(p) > 0 {
		w.mu.Lock()
		w.writing = true // behind DATA no reply is due, and the server has to read all the same
		w.moved()
		w.mu.Unlock()
		n, err := w.conn.Write(p[:min(len(p), writePiece)])
		written += n
		p = p[n:]
		w.mu.Lock()
		w.writing = false
		if err != nil {
			// What the server said before still counts, and the reader finds it.
			w.unsent = err
			w.changed.Broadcast()
		}
		w.moved()
		w.mu.Unlock()
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

// lineLength is what fetchmail takes from the line at a time: its buffer less the final NUL.
const lineLength = 8191 // octets

// A lineWriter makes one write of each line, and of each lineLength octets of a longer one. A client
// that relays between its mail server and us, as fetchmail does in ODMR mode, reads a line at a time and
// waits for its socket in between: over TLS it does not see what is left of a record then, so that a
// record must not hold more than it reads.
type lineWriter struct {
	to     io.Writer
	column int
}

func (w *lineWriter) Write(p []byte) (written int, err error) {
	for len(p) > 0 {
		n := min(len(p), lineLength-w.column)
		if end := bytes.IndexByte(p[:n], '\n'); end >= 0 {
			n = end + 1
		}
		m, err := w.to.Write(p[:n])
		written += m
		if err != nil {
			return written, err
		}
		if w.column += n; p[n-1] == '\n' || w.column == lineLength {
			w.column = 0
		}
		p = p[n:]
	}
	return written, nil
}

// A stuffing doubles the dots that lines begin with (RFC 5321, section 4.5.2).
type stuffing struct {
	to        io.Writer
	lineStart bool // behind CRLF, or at the beginning
	cr        bool // behind CR
}

func (s *stuffing) Write(p []byte) {
	begin := 0
	for i, b := range p {
		if s.lineStart && b == '.' {
			s.to.Write(p[begin:i])
			io.WriteString(s.to, ".")
			begin = i
		}
		s.lineStart = s.cr && b == '\n'
		s.cr = b == '\r'
	}
	s.to.Write(p[begin:])
}
