package turn

import (
	"bufio"
	"errors"
	"slices"
	"strings"

	"mailbag/turnd/relay"
)

var errLongLine = errors.New("the line is too long")

// readCommand reads a line without its end. After errLongLine the next line may be read.
func readCommand(in *bufio.Reader) (string, error) {
	var long []byte
	for {
		part, err := in.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			if len(long) <= commandLine {
				long = append(long, part...)
			}
			continue
		}
		if err != nil {
			return "", err
		}
		if len(long)+len(part) > commandLine {
			return "", errLongLine
		}
		return strings.TrimSuffix(strings.TrimSuffix(string(long)+string(part), "\n"), "\r"), nil
	}
}

func splitVerb(line string) (verb, rest string) {
	verb, rest, _ = strings.Cut(line, " ")
	return strings.ToUpper(verb), strings.TrimLeft(rest, " ")
}

// A path is what MAIL or RCPT names.
type path struct {
	text   string // in angle brackets, with its parameters behind it, as it was given
	domain string // empty: the null reverse-path, or a recipient without one
}

// A parameter is one that MAIL or RCPT may have, where it was offered.
type parameter struct {
	name    string
	offered func(relay.Extensions) bool
}

var (
	mailParameters = []parameter{
		{"SIZE", func(e relay.Extensions) bool { return e.Size }},
		{"BODY", func(e relay.Extensions) bool { return e.EightBit }},
		{"SMTPUTF8", func(e relay.Extensions) bool { return e.UTF8 }},
		{"RET", func(e relay.Extensions) bool { return e.DSN }},
		{"ENVID", func(e relay.Extensions) bool { return e.DSN }},
	}
	rcptParameters = []parameter{
		{"NOTIFY", func(e relay.Extensions) bool { return e.DSN }},
		{"ORCPT", func(e relay.Extensions) bool { return e.DSN }},
	}
)

// What is wrong with a path, as replies.
var (
	errSyntax    = errors.New("501 5.5.4 The address cannot be understood, write <user@domain>")
	errRoute     = errors.New("550 5.1.3 Source routes are not taken")
	errParameter = errors.New("555 5.5.4 A parameter is not known, or was not offered")
)

// parsePath reads the arguments of MAIL and RCPT (RFC 5321, sections 4.1.1.2 and 4.1.1.3). The path goes
// on to another server as it is, so it has no octet in it that could end a line there, and quoted
// local parts and UTF-8 (RFC 6531) stay what they are.
func parsePath(keyword, arguments string, offered relay.Extensions, known []parameter) (path, error) {
	if len(arguments) < len(keyword) || !strings.EqualFold(arguments[:len(keyword)], keyword) {
		return path{}, errSyntax
	}
	arguments = strings.Trim(arguments[len(keyword):], " ")
	end := pathEnd(arguments)
	if end < 0 {
		return path{}, errSyntax
	}
	address, parameters := arguments[1:end], arguments[end+1:]
	if parameters != "" && parameters[0] != ' ' {
		return path{}, errSyntax
	}
	p := path{text: arguments[:end+1]}
	if address == "" {
		if keyword != "FROM:" {
			return path{}, errSyntax
		}
	} else if address[0] == '@' {
		return path{}, errRoute
	} else if at := strings.LastIndexByte(address, '@'); at >= 0 {
		p.domain = address[at+1:]
	}
	for _, word := range strings.Fields(parameters) {
		if !offeredParameter(word, offered, known) {
			return path{}, errParameter
		}
		p.text += " " + word
	}
	return p, nil
}

// pathEnd returns where the closing bracket of a path is, -1 where there is none or the path has
// control characters.
func pathEnd(s string) int {
	if s == "" || s[0] != '<' {
		return -1
	}
	quoted := false
	for i := 1; i < len(s); i++ {
		c := s[i]
		switch {
		case c < ' ' || c == 0x7f:
			return -1
		case quoted && c == '\\':
			if i++; i < len(s) && (s[i] < ' ' || s[i] == 0x7f) {
				return -1
			}
		case c == '"':
			quoted = !quoted
		case c == '>' && !quoted:
			return i
		case (c == ' ' || c == '<') && !quoted:
			return -1
		}
	}
	return -1
}

func offeredParameter(word string, offered relay.Extensions, known []parameter) bool {
	for i := 0; i < len(word); i++ {
		if word[i] <= ' ' || word[i] == 0x7f {
			return false
		}
	}
	name, _, _ := strings.Cut(word, "=")
	for _, p := range known {
		if strings.EqualFold(name, p.name) {
			return p.offered(offered)
		}
	}
	return false
}

// xforwardID returns the queue ID that XFORWARD names in IDENT, or else what it was.
func xforwardID(attributes, id string) string {
	for _, attribute := range strings.Fields(attributes) {
		name, value, _ := strings.Cut(attribute, "=")
		if strings.EqualFold(name, "IDENT") && plainID(value) {
			return value
		}
	}
	return id
}

// traceID returns the queue ID in the MTA's own Received field, or none. Both Postfix and Exim have "id X" on a line of
// its own or on the one that begins with "by". The client's name, which may be anything, is on other lines.
func traceID(field string) string {
	for line := range strings.Lines(field) {
		words := strings.Fields(line)
		if len(words) < 2 || words[0] != "by" && words[0] != "id" {
			continue
		}
		if i := slices.Index(words[:len(words)-1], "id"); i >= 0 {
			if id := strings.TrimSuffix(words[i+1], ";"); plainID(id) {
				return id
			}
		}
	}
	return ""
}

// plainID reports whether s has the form of a queue ID, Postfix's or Exim's.
func plainID(s string) bool {
	if s == "" || len(s) > 32 {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && c != '-' {
			return false
		}
	}
	return true
}
