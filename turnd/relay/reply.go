package relay

import (
	"bufio"
	"errors"
	"fmt"
	"strings"
)

// Bounds of a reply. RFC 5321, section 4.5.3.1.5, allows a line 512 octets; servers write longer ones.
const (
	maxReplyLine  = 4096 // octets
	maxReplyLines = 128
	maxReplyText  = 4096 // octets that are kept, line ends included
)

// A Reply is what a server said to a command (RFC 5321, section 4.2). The zero Reply is none.
type Reply struct {
	Code int
	Text string // without the code, printable ASCII; its lines joined by "\n"
}

// Positive reports whether the command was done (2yz).
func (r Reply) Positive() bool { return r.Code/100 == 2 }

// Transient reports whether the command may succeed another time (4yz).
func (r Reply) Transient() bool { return r.Code/100 == 4 }

// speaksOfMessage reports whether a refusal can be about the message at all. A server that does not know a command, or does
// not expect it (500, 502, 503, 504), or wants TLS or a log-in first (530, 538), has not looked at it.
func (r Reply) speaksOfMessage() bool {
	switch r.Code {
	case 500, 502, 503, 504, 530, 538:
		return false
	}
	return true
}

// protocolLimit reports whether the reply says that a bound of the protocol was met (RFC 3463, section 3.6), such as
// the recipients of one connection.
func (r Reply) protocolLimit() bool { return strings.HasPrefix(r.Text, "4.5.") }

// parameterRefused reports whether a reply to MAIL or RCPT may be about a parameter of it (RFC 5321, section 4.1.1.11;
// servers that are not expected to get one say that it is a syntax error).
func (r Reply) parameterRefused() bool {
	switch r.Code {
	case 500, 501, 502, 503, 504, 555:
		return true
	}
	return false
}

func (r Reply) String() string {
	return fmt.Sprintf("%d %s", r.Code, strings.ReplaceAll(r.Text, "\n", " "))
}

var errReply = errors.New("the server's reply cannot be understood")

// readReply reads one reply with all its lines. The error is errReply, or the connection's.
func readReply(in *bufio.Reader) (Reply, error) {
	var r Reply
	var text strings.Builder
	for n := 1; ; n++ {
		line, err := readLine(in)
		if err != nil {
			return Reply{}, err
		}
		code, more, rest, err := parseReplyLine(line)
		if err != nil {
			return Reply{}, err
		}
		if n > maxReplyLines {
			return Reply{}, fmt.Errorf("%w: it has more than %d lines", errReply, maxReplyLines)
		}
		r.Code = code // of the last line, where they differ, as other clients have it
		if room := maxReplyText - text.Len(); room > 0 {
			if n > 1 {
				text.WriteByte('\n')
			}
			text.WriteString(printable(rest[:min(len(rest), room)]))
		}
		if !more {
			r.Text = text.String()
			return r, nil
		}
	}
}

// readLine reads a line without its end; a bare LF ends one too. The line is valid until the next read.
func readLine(in *bufio.Reader) ([]byte, error) {
	line, err := in.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		long := append([]byte(nil), line...)
		for errors.Is(err, bufio.ErrBufferFull) && len(long) <= maxReplyLine {
			line, err = in.ReadSlice('\n')
			long = append(long, line...)
		}
		line = long
	}
	if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
		return nil, err
	}
	if len(line) > maxReplyLine {
		return nil, fmt.Errorf("%w: it has a line longer than %d octets", errReply, maxReplyLine)
	}
	line = line[:len(line)-1]
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	return line, nil
}

// parseReplyLine reads Reply-line (RFC 5321, section 4.2): a code from 200 to 599, a hyphen where more
// lines follow, and text.
func parseReplyLine(line []byte) (code int, more bool, text []byte, err error) {
	bad := func() (int, bool, []byte, error) {
		return 0, false, nil, fmt.Errorf("%w: %.80q", errReply, line)
	}
	if len(line) < 3 || line[0] < '2' || line[0] > '5' {
		return bad()
	}
	for _, c := range line[:3] {
		if c < '0' || c > '9' {
			return bad()
		}
		code = code*10 + int(c-'0')
	}
	if len(line) == 3 { // section 4.2.1: text may be missing, and the space with it
		return code, false, nil, nil
	}
	switch line[3] {
	case ' ':
	case '-':
		more = true
	default:
		return bad()
	}
	return code, more, line[4:], nil
}

// printable replaces what must not get into another protocol or a log.
func printable(b []byte) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, string(b))
}
