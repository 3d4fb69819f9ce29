package trace

import (
	"bytes"
	"context"
	"strconv"
	"strings"
	"time"

	"mailbag/cmd/internal/mta"
)

// A Note is a line of the log of one of mailbag's daemons: its attributes, as package slog writes them.
type Note struct {
	At     time.Time // UTC
	Fields map[string]string
}

// Notes are the lines with a message that were written since then.
func Notes(ctx context.Context, sources []Source, since time.Time, message string) ([]Note, error) {
	needle := []byte("msg=" + strconv.Quote(message) + " ")
	var all []Note
	err := scan(ctx, &Search{Sources: sources}, since, func(b block) (notes []Note) {
		if !bytes.Contains(b.text, needle) {
			return nil
		}
		for line := range b.lines() {
			if n, ok := readNote(line, needle, b.now); ok && !n.At.Before(since) {
				notes = append(notes, n)
			}
		}
		return notes
	}, func(notes []Note) { all = append(all, notes...) })
	return all, err
}

// readNote reads "TIME HOST PROGRAM[PID]: level=… msg=… KEY=VALUE…", or, as a daemon writes it to a file, "time=… level=…".
// Where anything else stands before the message, it is a stranger's: an MTA's log has what other servers reply.
func readNote(line, needle []byte, now time.Time) (n Note, ok bool) {
	at := bytes.Index(line, needle)
	if at < 0 {
		return n, false
	}
	before := line[:at]
	words := 1 // behind the time: the level, and in front of it host and program
	if own, is := bytes.CutPrefix(before, []byte("time=")); is {
		word, rest, _ := bytes.Cut(own, []byte{' '})
		t, err := time.Parse(time.RFC3339Nano, string(word))
		n.At, before, ok = t.UTC(), rest, err == nil
	} else {
		n.At, before, ok = mta.ReadStamp(before, now)
		words = 3
	}
	n.Fields = attributes(string(line[at+len(needle):]))
	return n, ok && len(bytes.Fields(before)) == words
}

// attributes reads KEY=VALUE pairs, of which a value with a space is quoted as Go does it.
func attributes(s string) map[string]string {
	fields := map[string]string{}
	for s != "" {
		key, rest, ok := strings.Cut(s, "=")
		if !ok {
			break
		}
		value, err := strconv.QuotedPrefix(rest)
		if err == nil {
			rest = rest[len(value):]
			value, _ = strconv.Unquote(value)
		} else {
			value, _, _ = strings.Cut(rest, " ")
			rest = rest[len(value):]
		}
		fields[key] = value
		s = strings.TrimPrefix(rest, " ")
	}
	return fields
}
