package exim

import (
	"bytes"
	"context"
	"strconv"
	"strings"
	"time"

	"mailbag/cmd/internal/mta"
)

// Log is the main log, or what syslog has of it ("Log files" in Exim's specification).
func (in Instance) Log(ctx context.Context) mta.Log {
	files := []string{"/var/log/exim4/mainlog*", "/var/log/exim/main.log*"}
	if o, err := in.options(ctx, "log_file_path"); err == nil {
		for place := range strings.SplitSeq(o["log_file_path"], ":") {
			if place = strings.TrimSpace(place); strings.HasPrefix(place, "/") && strings.Count(place, "%") == strings.Count(place, "%s") {
				files = []string{strings.ReplaceAll(place, "%s", "main") + "*"}
			}
		}
	}
	return mta.Log{Files: files, Journal: "SYSLOG_FACILITY=2", MessageID: loggedID, Event: logEvent}
}

// loggedID finds the ID that stands behind the time, its zone and the process, as far as they are there.
func loggedID(line []byte) []byte {
	if !dated(line) {
		line, _ = behind(line, "]: ", syslogPrefix)
	}
	for range 5 { // date, time, zone and process stand before it, or nothing
		if id := leadingID(line); id != nil {
			return id
		}
		var ok bool
		if line, ok = behind(line, " ", 32); !ok {
			return nil
		}
	}
	return nil
}

// syslogPrefix is how long its time, host and program may be.
const syslogPrefix = 120

// behind cuts off what ends within so many octets.
func behind(line []byte, end string, within int) (rest []byte, ok bool) {
	at := bytes.Index(line[:min(len(line), within)], []byte(end))
	if at < 0 {
		return line, false
	}
	return line[at+len(end):], true
}

func leadingID(line []byte) []byte {
	for _, form := range idForms {
		if n := form[0] + form[1] + form[2] + 2; len(line) > n && line[n] == ' ' && IsID(string(line[:n])) {
			return line[:n]
		}
	}
	return nil
}

// logEvent reads "TIME ID WHAT", behind syslog's own beginning where it came that way.
func logEvent(line []byte, now time.Time) (e mta.Event, ok bool) {
	at, rest, ok := mta.ReadStamp(line, now)
	if !ok {
		return e, false
	}
	if !dated(line) {
		rest, ok = behind(rest, "]: ", syslogPrefix)
		if then, after, own := mta.ReadStamp(rest, now); own {
			at, rest = then, after
		}
	}
	if len(rest) > 0 && rest[0] == '[' { // log_selector = +pid
		rest, _ = behind(rest, "] ", 16)
	}
	e.At = at
	if id := leadingID(rest); ok && id != nil && bytes.Equal(id, loggedID(line)) {
		e.ID = string(id)
		return e, readLogged(&e, string(rest[len(id)+1:]))
	}
	return e, ok && readRefusal(&e, string(rest))
}

// dated reports whether a line begins as Exim writes it, and not syslog.
func dated(line []byte) bool { return len(line) > 10 && line[4] == '-' && line[10] == ' ' }

// readLogged reads what Exim says of a message that has an ID.
func readLogged(e *mta.Event, what string) bool {
	sign, rest, _ := strings.Cut(what, " ")
	switch sign {
	case "<=":
		return readArrival(e, rest)
	case "=>", "->", ">>":
		e.Kind = mta.Delivered
		readRecipient(e, rest)
		e.Text = quotedField(rest, ` C="`)
		e.Relay = host(rest, " H=")
		if strings.HasPrefix(rest, ":blackhole:") || rest == "blackhole" || strings.HasPrefix(rest, "blackhole ") {
			e.Kind = mta.Discarded
		}
		return e.Recipient != "" || e.Kind == mta.Discarded
	case "==":
		e.Kind = mta.Deferred
		readRecipient(e, rest)
		e.Relay = host(rest, " H=")
		if at := strings.Index(rest, " defer ("); at >= 0 {
			e.Text = afterCode(rest[at:])
		}
		return e.Recipient != ""
	case "**":
		e.Kind = mta.Failed
		readRecipient(e, rest)
		if _, text, ok := strings.Cut(rest, ": "); ok {
			e.Text = text
		}
		return e.Recipient != ""
	case "Completed":
		e.Kind = mta.Gone
		return rest == ""
	case "mailbag:":
		e.Kind, e.Text = mta.Deferred, strings.TrimPrefix(rest, e.ID+" ")
		return true
	}
	switch {
	case strings.HasPrefix(what, "no immediate delivery: queued in "):
		e.Kind, e.Text = mta.Queued, what
	case strings.HasPrefix(what, "unfrozen by"), strings.HasPrefix(what, "Unfrozen by"):
		e.Kind, e.Text = mta.Unheld, what
	case strings.HasPrefix(what, "frozen by"), strings.HasPrefix(what, "Frozen ("), what == "Frozen":
		e.Kind, e.Text = mta.Held, what
	case strings.HasPrefix(what, "removed by "):
		e.Kind, e.Text = mta.Deleted, what
	case strings.HasPrefix(what, "cancelled by "):
		e.Kind, e.Text = mta.Expired, what
	default:
		return readRefusal(e, what)
	}
	return true
}

// readArrival reads "SENDER H=… P=… S=… id=…".
func readArrival(e *mta.Event, rest string) bool {
	e.Kind, e.Sender = mta.Came, word(rest)
	e.Size, _ = strconv.ParseInt(field(rest, " S="), 10, 64)
	if id := field(rest, " id="); id != "" {
		e.MessageID = "<" + id + ">"
	}
	if e.Client = host(rest, " H="); e.Client == "" {
		e.Client = "this host, user " + field(rest, " U=")
	}
	if _, all, ok := strings.Cut(rest, " for "); ok { // log_selector = +received_recipients
		e.All = all
	}
	return e.Sender != ""
}

// readRecipient reads "ADDRESS <ORIGINAL>", of which the first may be but a local part.
func readRecipient(e *mta.Event, rest string) {
	e.Recipient = strings.TrimSuffix(word(rest), ":")
	if original, ok := strings.CutPrefix(rest[len(word(rest)):], " <"); ok {
		e.Original, _, _ = strings.Cut(original, ">")
	}
	if e.Original != "" && strings.IndexByte(e.Recipient, '@') < 0 {
		e.Recipient, e.Original = e.Original, ""
	}
}

// readRefusal reads "H=… F=<…> rejected RCPT <…>: reply", or "rejected after DATA: reply".
func readRefusal(e *mta.Event, what string) bool {
	const rejected = "rejected "
	at := strings.Index(what, " "+rejected)
	if at < 0 || !strings.HasPrefix(what, "H=") {
		return false
	}
	at++
	e.Kind, e.Client = mta.Refused, host(" "+what[:at], " H=")
	if _, sender, ok := strings.Cut(what[:at], " F=<"); ok {
		if e.Sender, _, _ = strings.Cut(sender, ">"); e.Sender == "" {
			e.Sender = "<>"
		}
	}
	rest := what[at+len(rejected):]
	if to, ok := strings.CutPrefix(rest, "RCPT "); ok {
		to = strings.TrimPrefix(to, "<")
		end := strings.Index(to, ">: ")
		if end < 0 {
			end = max(0, strings.Index(to, ": "))
		}
		e.Recipient = to[:end]
	}
	_, e.Text, _ = strings.Cut(rest[len(e.Recipient):], ": ")
	return e.Sender != "" || e.Recipient != ""
}

// word is the first one of a line, with what is between quotes.
func word(s string) string {
	quoted := false
	for i := range len(s) {
		switch {
		case s[i] == '"':
			quoted = !quoted
		case s[i] == ' ' && !quoted:
			return s[:i]
		}
	}
	return s
}

// field is the word behind " X=".
func field(s, name string) string {
	_, value, ok := strings.Cut(s, name)
	if !ok {
		return ""
	}
	value, _, _ = strings.Cut(value, " ")
	return value
}

// host is the value of H=, "name (helo) [address]", with the port of +incoming_port left out.
func host(s, name string) string {
	_, value, ok := strings.Cut(s, name)
	end := strings.IndexByte(value, ']')
	if !ok || end < 0 {
		return ""
	}
	return value[:end+1]
}

// quotedField is the text between quotes behind a name that ends in one.
func quotedField(s, name string) string {
	_, value, _ := strings.Cut(s, name)
	var b strings.Builder
	for i := 0; i < len(value) && value[i] != '"'; i++ {
		if value[i] == '\\' && i+1 < len(value) {
			i++
		}
		b.WriteByte(value[i])
	}
	return b.String()
}

// afterCode is the reason of " defer (-53): reason".
func afterCode(s string) string {
	_, reason, ok := strings.Cut(s, "): ")
	if !ok {
		return strings.TrimSpace(s)
	}
	return reason
}
