package turn

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"time"
)

// traceLength bounds the Received field that is looked at, in octets. Postfix's own has some 500 at most.
const traceLength = 4096

// A content is a message's content on its way from the MTA. It ends with CRLF, a dot and CRLF, and with
// nothing else (RFC 5321, section 4.1.1.4).
type content struct {
	in     *bufio.Reader
	conn   net.Conn // for its deadline
	size   int64    // octets
	bareLF bool     // an LF without CR was seen

	deadline time.Time
	begun    []byte // read by trace, for copy to begin with
	inLine   bool   // the next octet is not the first of a line
	cr       bool   // behind CR in a line of several pieces
	ended    bool
}

// trace reads the first field of the header, which the MTA has put there, and returns it if it is a Received field of a
// sensible length (section 4.4).
func (c *content) trace() (string, error) {
	for {
		newLine := !c.inLine
		piece, err := c.next()
		if err != nil {
			return "", err
		}
		field := len(c.begun)
		c.begun = append(c.begun, piece...)
		switch {
		case field == 0 && !bytes.HasPrefix(bytes.ToLower(piece), []byte("received:")), len(c.begun) > traceLength:
			return "", nil
		case c.ended, field > 0 && newLine && !strings.ContainsRune(" \t", rune(piece[0])):
			return string(c.begun[:field]), nil
		}
	}
}

// copy copies the content with its dots undone (section 4.5.2) to w, or nowhere where w is nil. Its errors
// are the MTA's connection's; what w says is not looked at.
func (c *content) copy(w io.Writer) error {
	for piece := c.begun; ; {
		if w != nil && len(piece) > 0 {
			w.Write(piece)
		}
		if c.ended {
			return nil
		}
		var err error
		if piece, err = c.next(); err != nil {
			return err
		}
	}
}

// next returns a line, or a piece of a long one, valid until the next call. It is empty at the end.
func (c *content) next() ([]byte, error) {
	if now := time.Now(); c.deadline.Sub(now) < contentIdle/2 {
		c.deadline = now.Add(contentIdle)
		c.conn.SetReadDeadline(c.deadline)
	}
	piece, err := c.in.ReadSlice('\n')
	if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
		return nil, err
	}
	whole := err == nil // it ends in LF
	if !c.inLine && piece[0] == '.' {
		if string(piece) == ".\r\n" {
			c.ended = true
			return nil, nil
		}
		piece = piece[1:]
	}
	if whole {
		crlf := bytes.HasSuffix(piece, []byte("\r\n")) || len(piece) == 1 && c.cr
		c.bareLF = c.bareLF || !crlf
		c.inLine, c.cr = !crlf, false
	} else {
		c.inLine, c.cr = true, piece[len(piece)-1] == '\r'
	}
	c.size += int64(len(piece))
	return piece, nil
}
