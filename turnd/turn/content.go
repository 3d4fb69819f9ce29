package turn

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"time"
)

// A content is a message's content on its way from the MTA. It ends with CRLF, a dot and CRLF, and with
// nothing else (RFC 5321, section 4.1.1.4).
type content struct {
	in     *bufio.Reader
	conn   net.Conn // for its deadline
	size   int64    // octets
	bareLF bool     // an LF without CR was seen
}

// copy copies the content with its dots undone (section 4.5.2) to w, or nowhere where w is nil. Its errors
// are the MTA's connection's; what w says is not looked at.
func (c *content) copy(w io.Writer) error {
	lineStart, cr := true, false
	var deadline time.Time
	for {
		if now := time.Now(); deadline.Sub(now) < contentIdle/2 {
			deadline = now.Add(contentIdle)
			c.conn.SetReadDeadline(deadline)
		}
		piece, err := c.in.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
		whole := err == nil // it ends in LF
		if lineStart && piece[0] == '.' {
			if string(piece) == ".\r\n" {
				return nil
			}
			piece = piece[1:]
		}
		if whole {
			crlf := bytes.HasSuffix(piece, []byte("\r\n")) || len(piece) == 1 && cr
			c.bareLF = c.bareLF || !crlf
			lineStart, cr = crlf, false
		} else {
			lineStart, cr = false, piece[len(piece)-1] == '\r'
		}
		c.size += int64(len(piece))
		if w != nil && len(piece) > 0 {
			w.Write(piece)
		}
	}
}
