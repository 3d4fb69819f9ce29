package mta

import (
	"bytes"
	"strconv"
	"time"
)

// A Log is what an MTA writes of its messages, and how it is read. Its lines are text that strangers have a part in: one that
// cannot be read is none of the MTA's.
type Log struct {
	Files   []string // where it may be, with what was rotated, as filepath.Glob takes it
	Journal string   // what selects its lines for journalctl(1), where there are no such files

	// MessageID finds the queue ID of the message that a line is about, empty where it is about none. It looks at few
	// octets and does not copy.
	MessageID func(line []byte) []byte

	// Event reads a line. now is when the line was there at the latest, from which a time without a year has one. ok is
	// false for lines that tell nothing of a message.
	Event func(line []byte, now time.Time) (e Event, ok bool)
}

// An EventKind is what a line of the log tells.
type EventKind string

const (
	Came      EventKind = "came"      // a part of what is known of the message's arrival
	Refused   EventKind = "refused"   // one recipient, or the message
	Queued    EventKind = "queued"    // it is not tried before somebody asks for it
	Delivered EventKind = "delivered" // to one recipient's next host, mailbox or program
	Deferred  EventKind = "deferred"  // for one recipient, for now
	Failed    EventKind = "failed"    // for one recipient, for good
	Discarded EventKind = "discarded" // as configured, for one recipient or all
	Held      EventKind = "held"      // put on hold by the operator or a filter
	Unheld    EventKind = "unheld"
	Expired   EventKind = "expired"  // given up, for all that wait
	Notified  EventKind = "notified" // the sender was, by another message, ID Text
	Deleted   EventKind = "deleted"  // by the operator
	Gone      EventKind = "gone"     // from the queue, as nobody waits for it any more
)

// An Event is one line of a log. What a line does not tell is empty.
type Event struct {
	Kind      EventKind
	At        time.Time // UTC
	Instance  string    // of several of this MTA on a host
	ID        string    // queue ID; empty: it was refused before it had one
	Sender    string    // reverse-path; "<>" for the null one
	Recipient string
	Original  string // what the recipient was before an alias
	All       string // recipients of a message that came, apart by spaces, where the MTA says so then
	Client    string // host and address
	Size      int64  // octets, as the MTA counts
	MessageID string // the field's, with its brackets
	Relay     string // where it went
	Text      string // reply, or reason
}

// ReadStamp reads the time with which a line of a log begins: traditional (RFC 3164), RFC 3339, seconds since 1970, or a
// date and a time, as Exim writes them. Where it has no zone it is the machine's. A time without a year is the last such
// time that is not after now.
func ReadStamp(line []byte, now time.Time) (at time.Time, rest []byte, ok bool) {
	switch {
	case len(line) < 16:
	case line[0] >= 'A' && line[0] <= 'Z':
		return traditional(line, now)
	case line[4] == '-' && line[10] == 'T':
		return spelled(time.RFC3339Nano, line, 1)
	case line[4] == '-' && line[10] == ' ':
		return dated(line)
	default:
		return counted(line)
	}
	return at, nil, false
}

// traditional is "Nov  2 08:15:44 ".
func traditional(line []byte, now time.Time) (at time.Time, rest []byte, ok bool) {
	const length = len(time.Stamp)
	if line[length] != ' ' {
		return at, nil, false
	}
	t, err := time.Parse(time.Stamp, string(line[:length]))
	if err != nil {
		return at, nil, false
	}
	now = now.In(time.Local)
	for year := now.Year() + 1; year > now.Year()-8; year-- { // 8: a 29th of February
		at = time.Date(year, t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), 0, time.Local)
		if at.Day() == t.Day() && !at.After(now.Add(time.Hour)) {
			return at.UTC(), line[length+1:], true
		}
	}
	return at, nil, false
}

// dated is "2026-11-26 08:14:37 ", with fractions of a second and the zone where Exim is configured so.
func dated(line []byte) (at time.Time, rest []byte, ok bool) {
	const clock = "2006-01-02 15:04:05.999999999"
	at, rest, ok = spelled(clock, line, 2)
	// A parse that fails costs as much as one that does not, and few logs have a zone.
	if ok && len(rest) > 0 && (rest[0] == '+' || rest[0] == '-') {
		if zoned, after, is := spelled(clock+" -0700", line, 3); is {
			return zoned, after, true
		}
	}
	return at, rest, ok
}

// spelled reads a time of so many words.
func spelled(layout string, line []byte, words int) (at time.Time, rest []byte, ok bool) {
	end := 0
	for range words {
		n := bytes.IndexByte(line[end:min(len(line), 48)], ' ')
		if n < 0 {
			return at, nil, false
		}
		end += n + 1
	}
	at, err := time.ParseInLocation(layout, string(line[:end-1]), time.Local)
	return at.UTC(), line[end:], err == nil
}

// counted is "1795680944.465959 ", as journalctl -o short-unix writes it.
func counted(line []byte) (at time.Time, rest []byte, ok bool) {
	word, rest, _ := bytes.Cut(line[:min(len(line), 24)], []byte{' '})
	whole, fraction, ok := bytes.Cut(word, []byte{'.'})
	seconds, err := strconv.ParseInt(string(whole), 10, 40)
	micros, failed := strconv.ParseUint(string(fraction), 10, 32)
	if !ok || err != nil || failed != nil || len(fraction) != 6 || seconds < 0 || len(rest) == 0 {
		return at, nil, false
	}
	return time.Unix(seconds, int64(micros)*1000).UTC(), line[len(word)+1:], true
}
