package turnd

import (
	"bufio"
	"fmt"
)

// A reply is what the server says to a command: a code (RFC 5321, section 4.2), an enhanced status code
// (RFC 3463) where one belongs (RFC 2034, section 4: not in a greeting, not to EHLO and HELO, not in 3yz), and a
// line of text at least.
type reply struct {
	code   int
	status string
	lines  []string
	close  bool // the connection ends with it
}

func say(code int, status, format string, args ...any) reply {
	return reply{code: code, status: status, lines: []string{fmt.Sprintf(format, args...)}}
}

// bye is a reply with which the connection ends.
func bye(status, format string, args ...any) reply {
	r := say(421, status, format, args...)
	r.close = true
	return r
}

var (
	ok             = say(250, "2.0.0", "OK")
	syntaxError    = say(500, "5.5.2", "Syntax error, this is not a command")
	notImplemented = say(502, "5.5.1", "Command not implemented here, try HELP")
	noArguments    = say(501, "5.5.4", "The command takes no argument")
	lineTooLong    = say(500, "5.5.2", "The line is longer than %d octets", maxLine)
	sayEHLO        = say(503, "5.5.1", "Say EHLO first")
	tooMany        = bye("4.7.0", "Too many commands, please come again")
	shuttingDown   = bye("4.3.2", "This service is being stopped, please come again later")
)

// write puts the reply into w. The buffer keeps an error for its next flush.
func (r reply) write(w *bufio.Writer) {
	for i, line := range r.lines {
		sep := byte(' ')
		if i < len(r.lines)-1 {
			sep = '-'
		}
		fmt.Fprintf(w, "%03d%c", r.code, sep)
		if r.status != "" {
			w.WriteString(r.status + " ")
		}
		w.WriteString(line)
		w.WriteString("\r\n")
	}
}
