package exim

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// A header is what the -H file of a message says of it, as far as it is needed here.
type header struct {
	sender    string
	arrival   time.Time
	size      int64 // octets of the header fields that are sent, and of the blank line behind them
	frozen    bool
	tried     bool // it was
	uncounted bool // mailbag-policyd could not be asked when it came
	delivered map[string]bool
	listed    []string // all recipients that it ever had
}

// Bounds of what is read. Exim has the same one for a line, and lower ones for the others.
const (
	maxLine       = 64 << 10
	maxRecipients = 100_000
	maxVariable   = 16 << 20
	maxFields     = 64 << 20
	maxLines      = 8 << 20 // octets of all lines together
)

var errForeign = errors.New("it is not in the format of a -H file, or not whole")

// readHeader reads a -H file: its name, the one who wrote it, the sender, the time, options, the addresses to which the message
// is not to be delivered any more (a tree), the recipients, and behind a blank line the header fields, each with its
// length. What a later version has as a new option is ignored, as Exim does; anything else is errForeign.
func readHeader(r *bufio.Reader, id string) (header, error) {
	f := spoolFile{r: r}
	h := header{tried: true}
	if f.line() != id+"-H" {
		return header{}, f.foreign("its first line is not its name")
	}
	if words := strings.Fields(f.line()); len(words) < 2 || !number(words[len(words)-1]) || !number(words[len(words)-2]) {
		return header{}, f.foreign("line 2 is not a user with two numbers")
	}
	var ok bool
	if h.sender, ok = bracketed(f.line()); !ok {
		return header{}, f.foreign("line 3 is not a sender in angle brackets")
	}
	arrival, warnings, _ := strings.Cut(f.line(), " ")
	seconds, err := strconv.ParseInt(arrival, 10, 40)
	if err != nil || seconds < 0 || !number(warnings) {
		return header{}, f.foreign("line 4 is not a time and a number")
	}
	h.arrival = time.Unix(seconds, 0).UTC()
	next, ok := f.options(&h)
	if !ok {
		return header{}, f.foreign("an option cannot be read")
	}
	if h.delivered, ok = f.tree(next); !ok {
		return header{}, f.foreign("the addresses that are done cannot be read")
	}
	if h.listed, ok = f.recipients(); !ok {
		return header{}, f.foreign("the recipients cannot be read")
	}
	if h.size, ok = f.fields(); !ok {
		return header{}, f.foreign("the header fields do not end where they should")
	}
	return h, nil
}

// A spoolFile is read up to its first error, after which it has empty lines.
type spoolFile struct {
	r    *bufio.Reader
	read int // octets of lines
	err  error
}

// foreign says what is wrong, and where it could not be read at all that.
func (f *spoolFile) foreign(what string) error {
	if f.err != nil && !errors.Is(f.err, io.EOF) && !errors.Is(f.err, errForeign) {
		return f.err
	}
	return fmt.Errorf("%w: %s", errForeign, what)
}

// line returns the next line without its end. Octets of zero are what a crash of the machine leaves.
func (f *spoolFile) line() string {
	line := f.raw()
	if strings.IndexByte(line, 0) >= 0 {
		f.err = errForeign
		return ""
	}
	return line
}

// raw is a line with whatever is in it.
func (f *spoolFile) raw() string {
	if f.err != nil {
		return ""
	}
	part, err := f.r.ReadSlice('\n')
	f.read += len(part)
	switch {
	case errors.Is(err, bufio.ErrBufferFull), err == nil && f.read > maxLines:
		f.err = f.foreign("its lines are too long")
		return ""
	case err != nil:
		f.err = err
		return ""
	}
	return string(part[:len(part)-1])
}

// skip passes over n octets.
func (f *spoolFile) skip(n int) bool {
	if f.err == nil {
		_, f.err = f.r.Discard(n)
	}
	return f.err == nil
}

// options reads the lines that begin with a hyphen, and returns the one behind them. A second hyphen, and a type of
// quoting in parentheses, say that a value came from outside.
func (f *spoolFile) options(h *header) (next string, ok bool) {
	for {
		line := f.line()
		option, is := strings.CutPrefix(line, "-")
		if !is {
			return line, f.err == nil
		}
		option = strings.TrimPrefix(option, "-")
		if strings.HasPrefix(option, "(") {
			if _, option, ok = strings.Cut(option, ")"); !ok {
				return "", false
			}
		}
		name, value, _ := strings.Cut(option, " ")
		switch name {
		case "received_time_usec":
			if usec, err := strconv.ParseUint(strings.TrimPrefix(value, "."), 10, 32); err == nil && usec < 1_000_000 {
				h.arrival = h.arrival.Truncate(time.Second).Add(time.Duration(usec) * time.Microsecond)
			}
		case "deliver_firsttime":
			h.tried = false
		case "frozen":
			if !number(value) {
				return "", false
			}
			h.frozen = true
		case "acl", "aclc", "aclm": // a name and a length; the value, which may be anything, is on lines of its own
			name, length, _ := strings.Cut(value, " ")
			n, err := strconv.ParseUint(length, 10, 31)
			if err != nil || n > maxVariable || !f.skip(int(n)) || f.line() != "" || f.err != nil {
				return "", false
			}
			h.uncounted = h.uncounted || name == "_mailbag_uncounted" && n > 0
		}
	}
}

// tree reads a binary tree in its prefix form: whether there is a left and a right branch, and an address.
func (f *spoolFile) tree(line string) (map[string]bool, bool) {
	if line == "XX" {
		return nil, true
	}
	all := map[string]bool{}
	for left := 1; left > 0; left-- {
		if len(line) < 4 || line[2] != ' ' {
			return nil, false
		}
		for _, branch := range line[:2] {
			switch branch {
			case 'Y':
				left++
			case 'N':
			default:
				return nil, false
			}
		}
		all[line[3:]] = true
		if left > 1 {
			line = f.line()
		}
	}
	return all, f.err == nil
}

func (f *spoolFile) recipients() ([]string, bool) {
	count, err := strconv.ParseUint(f.line(), 10, 31)
	if err != nil || count > maxRecipients {
		return nil, false
	}
	var all []string
	for range count {
		address, ok := address(f.line())
		if !ok {
			return nil, false
		}
		all = append(all, address)
	}
	return all, f.line() == "" && f.err == nil
}

// address takes away what may stand behind an address: for DSN the original recipient with its length and flags (bit 2 of
// the number behind "#"), and for a one-time alias where errors go, with its length and the number of the parent (bit 1).
func address(line string) (string, bool) {
	rest := strings.TrimRight(line, "0123456789")
	flags := line[len(rest):]
	if rest, is := strings.CutSuffix(rest, "#"); is && flags != "" {
		bits, err := strconv.ParseUint(flags, 10, 2)
		ok := err == nil && bits > 0
		for ; ok && bits > 0; bits &= bits - 1 {
			rest, ok = cutCounted(rest)
		}
		return rest, ok && rest != ""
	}
	// Nothing else can end an address: a domain has neither. Exim 3 and the first of Exim 4 wrote numbers so.
	if last := rest[max(0, len(rest)-1):]; last == " " || last == "," && flags != "" {
		return "", false
	}
	return line, line != ""
}

// cutCounted takes away a text with its length and a number behind it: "REST TEXT LENGTH,NUMBER".
func cutCounted(s string) (rest string, ok bool) {
	at := strings.LastIndexByte(s, ' ')
	length, n, both := strings.Cut(s[at+1:], ",")
	count, err := strconv.ParseUint(length, 10, 31)
	if _, err2 := strconv.Atoi(n); at < 0 || !both || err != nil || err2 != nil {
		return "", false
	}
	end := at - int(count) - 1
	if end < 0 || s[end] != ' ' {
		return "", false
	}
	return s[:end], true
}

// fields adds up the header fields: a length, a space or a letter (an asterisk has one that is not sent), a space, and
// the field with its end.
func (f *spoolFile) fields() (int64, bool) {
	size := int64(1) // of the blank line
	for {
		c := f.octet()
		if errors.Is(f.err, io.EOF) {
			return size, true
		}
		length := 0
		for ; '0' <= c && c <= '9' && length < maxFields; c = f.octet() {
			length = 10*length + int(c-'0')
		}
		if length == 0 || f.octet() != ' ' || !f.skip(length-1) || f.octet() != '\n' || f.err != nil {
			return 0, false
		}
		if c != '*' {
			size += int64(length)
		}
	}
}

// octet returns the next one.
func (f *spoolFile) octet() byte {
	var c byte
	if f.err == nil {
		c, f.err = f.r.ReadByte()
	}
	return c
}

// bracketed takes off angle brackets.
func bracketed(s string) (string, bool) {
	if len(s) < 2 || s[0] != '<' || s[len(s)-1] != '>' {
		return "", false
	}
	return s[1 : len(s)-1], true
}

// number reports whether s is a decimal number, which may be negative: there are such groups.
func number(s string) bool {
	_, err := strconv.ParseInt(s, 10, 64)
	return err == nil
}

// readJournal reads a -J file into the addresses that are done: those to which the message was delivered since the -H file was written.
// A last line without its end was not written whole, nor was one with octets of zero; that delivery is one that Exim may repeat.
func readJournal(r *bufio.Reader, done map[string]bool) (map[string]bool, error) {
	f := spoolFile{r: r}
	for {
		line := f.raw()
		switch {
		case errors.Is(f.err, io.EOF):
			return done, nil
		case f.err != nil:
			return nil, f.err
		}
		if done == nil {
			done = map[string]bool{}
		}
		done[line] = true
	}
}
