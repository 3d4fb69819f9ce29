package turnd

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"unicode/utf8"

	"mailbag/meter"
)

// A command is one line of a client.
type command struct {
	verb string // upper case
	args string // behind the verb, without the spaces around
}

// maxVerb is the longest verb that is looked at, in octets; the longest known one has 8.
const maxVerb = 20

var errSyntax = errors.New("not a command")

// parseCommand reads a line without its line end (RFC 5321, section 4.1.1: a verb, and arguments behind a
// space). An option character of ETRN may follow without a space (RFC 1985, section 5.1).
func parseCommand(line []byte) (command, error) {
	if !utf8.Valid(line) || bytes.ContainsFunc(line, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
		return command{}, errSyntax
	}
	end := bytes.IndexFunc(line, func(r rune) bool { return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') })
	if end < 0 {
		end = len(line)
	}
	c := command{verb: strings.ToUpper(string(line[:end]))}
	rest := string(line[end:])
	switch {
	case end == 0, end > maxVerb:
		return command{}, errSyntax
	case rest == "", rest[0] == ' ', rest[0] == '\t':
	case c.verb == "ETRN" && strings.IndexByte("@#", rest[0]) >= 0:
	default:
		return command{}, errSyntax
	}
	c.args = strings.Trim(rest, " \t")
	return c, nil
}

var (
	errNoDomain = errors.New("a domain is missing")
	errDomain   = errors.New("not a domain")
	errNode     = errors.New("not a node")
)

// parseDomains reads the argument of ATRN, domains with commas between them (RFC 2645, section 5.2.1), into
// normalized ones without repeats. No argument stands for all domains, which is nil.
func parseDomains(args string) ([]string, error) {
	if args == "" {
		return nil, nil
	}
	var domains []string
	for text := range strings.SplitSeq(args, ",") {
		text = strings.Trim(text, " \t")
		if text == "" {
			return nil, errNoDomain
		}
		domain, err := meter.NormalizeDomain(text)
		if err != nil {
			return nil, errDomain
		}
		if !slices.Contains(domains, domain) {
			domains = append(domains, domain)
		}
	}
	return domains, nil
}

// A node is the argument of ETRN (RFC 1985, section 5.1).
type node struct {
	option byte   // 0, '@': with all subdomains, '#': a queue of that name
	name   string // a normalized domain, or the name of an account
}

func (n node) String() string {
	if n.option == 0 {
		return n.name
	}
	return string(n.option) + n.name
}

// parseNode reads the argument of ETRN. What it returns is safe to repeat in a reply.
func parseNode(args string) (node, error) {
	if args == "" {
		return node{}, errNode
	}
	var n node
	if args[0] == '@' || args[0] == '#' {
		n.option, args = args[0], args[1:]
	}
	if n.option == '#' {
		if n.name = strings.ToLower(args); !meter.ValidName(n.name) {
			return node{}, errNode
		}
		return n, nil
	}
	var err error
	if n.name, err = meter.NormalizeDomain(args); err != nil {
		return node{}, errNode
	}
	return n, nil
}

// parseAuth reads the argument of AUTH (RFC 4954, section 4): a mechanism, and maybe an initial response in base64.
func parseAuth(args string) (mechanism, initial string, ok bool) {
	words := strings.Fields(args)
	switch len(words) {
	case 1:
		return words[0], "", true
	case 2:
		return words[0], words[1], true
	}
	return "", "", false
}
