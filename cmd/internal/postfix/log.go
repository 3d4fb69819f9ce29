package postfix

import (
	"bytes"
	"context"
	"strconv"
	"strings"
	"time"

	"mailbag/cmd/internal/mta"
)

// Log is that of syslog, or Postfix's own (MAILLOG_README).
func (in Instance) Log(ctx context.Context) mta.Log {
	files := []string{"/var/log/mail.log*", "/var/log/maillog*"}
	if file, err := in.run(ctx, "", "postconf", "-h", "maillog_file"); err == nil {
		if file = strings.TrimSpace(file); file != "" {
			files = []string{file + "*"}
		}
	}
	return mta.Log{Files: files, Journal: "SYSLOG_FACILITY=2", MessageID: loggedID, Event: logEvent}
}

// loggedID finds what stands between "postfix/smtpd[123]: " and the next colon, if that can be a queue ID.
func loggedID(line []byte) []byte {
	at := bytes.Index(line, []byte("]: "))
	if at < 0 {
		return nil
	}
	line = line[at+3:]
	end := bytes.IndexByte(line[:min(len(line), longestID+1)], ':')
	if end < 0 || !mayBeID(line[:end]) {
		return nil
	}
	return line[:end]
}

const longestID = 24

// mayBeID takes short IDs, which are hexadecimal, and long ones, which have no vowels, as words of English do.
func mayBeID(s []byte) bool {
	if len(s) < 5 || len(s) > longestID {
		return false
	}
	for _, c := range s {
		switch {
		case c >= '0' && c <= '9', c >= 'A' && c <= 'Z':
		case c < 'a' || c > 'z', c == 'a', c == 'e', c == 'i', c == 'o', c == 'u':
			return false
		}
	}
	return string(s) != noQueue
}

const noQueue = "NOQUEUE" // stands for the ID of what was refused before it had one

// logEvent reads "TIME HOST postfix/DAEMON[PID]: ID: WHAT".
func logEvent(line []byte, now time.Time) (e mta.Event, ok bool) {
	at, rest, ok := mta.ReadStamp(line, now)
	if !ok {
		return e, false
	}
	_, rest, ok = bytes.Cut(rest, []byte{' '}) // the host
	name, text, found := bytes.Cut(rest, []byte("]: "))
	name, _, process := bytes.Cut(name, []byte{'['})
	id, what, about := bytes.Cut(text, []byte(": "))
	if !ok || !found || !process || !about {
		return e, false
	}
	first, last := bytes.IndexByte(name, '/'), bytes.LastIndexByte(name, '/')
	if first < 0 || bytes.IndexByte(name, ' ') >= 0 || !mayBeID(id) && string(id) != noQueue {
		return e, false
	}
	e.At, e.Instance = at, string(name[:first])
	if string(id) != noQueue {
		if !bytes.Equal(id, loggedID(line)) {
			return e, false
		}
		e.ID = string(id)
	}
	return e, readLogged(&e, string(name[last+1:]), string(what))
}

// readLogged reads what one of Postfix's daemons says of a message.
func readLogged(e *mta.Event, daemon, what string) bool {
	word, rest, _ := strings.Cut(what, "=")
	switch {
	case e.ID == "": // refused, as below
	case word == "client":
		e.Kind, e.Client = mta.Came, upTo(rest, ",")
		return true
	case word == "uid":
		e.Kind, e.Client, e.Sender = mta.Came, "this host, user "+upTo(rest, " "), path(what, " from=<")
		return true
	case word == "message-id":
		e.Kind, e.MessageID = mta.Came, rest
		return true
	case word == "from":
		return readSender(e, what)
	case word == "to":
		return readDelivery(e, daemon, what)
	case what == "removed":
		e.Kind = mta.Gone
		if daemon == "postsuper" {
			e.Kind = mta.Deleted
		}
		return true
	case daemon == "postsuper":
		e.Kind = map[string]mta.EventKind{"placed on hold": mta.Held, "released from hold": mta.Unheld, "expired": mta.Expired}[what]
		return e.Kind != ""
	case strings.HasPrefix(what, "sender non-delivery notification: "):
		e.Kind, e.Text = mta.Notified, what[strings.LastIndexByte(what, ' ')+1:]
		return true
	}
	return readAction(e, what)
}

// readSender reads what qmgr(8) says: "from=<…>, size=…, nrcpt=… (queue active)", or "from=<…>, status=expired, returned to
// sender".
func readSender(e *mta.Event, what string) bool {
	e.Kind, e.Sender = mta.Came, path(what, "from=<")
	rest := strings.TrimPrefix(what, "from=<"+strings.TrimPrefix(e.Sender, "<>")+">")
	if status, ok := strings.CutPrefix(rest, ", status="); ok {
		e.Kind, e.Text = mta.Expired, status
		return true
	}
	size, ok := strings.CutPrefix(rest, ", size=")
	n, err := strconv.ParseInt(upTo(size, ","), 10, 64)
	e.Size = n
	return ok && err == nil
}

// readDelivery reads "to=<…>, orig_to=<…>, relay=…, delay=…, delays=…, dsn=…, status=… (…)".
func readDelivery(e *mta.Event, daemon, what string) bool {
	const status = ", status="
	relay := strings.Index(what, ", relay=")
	if relay < 0 {
		return false
	}
	end := strings.Index(what[relay:], status)
	if end < 0 {
		return false
	}
	e.Recipient, e.Original = path(what[:relay], "to=<"), path(what[:relay], ", orig_to=<")
	e.Relay = upTo(what[relay+len(", relay="):], ", delay=")
	if e.Relay == "none" {
		e.Relay = ""
	}
	word, text, _ := strings.Cut(what[relay+end+len(status):], " (")
	e.Text = strings.TrimSuffix(text, ")")
	e.Kind = map[string]mta.EventKind{"sent": mta.Delivered, "deferred": mta.Deferred, "bounced": mta.Failed}[upTo(word, ",")]
	if daemon == "discard" {
		e.Kind = mta.Discarded
	}
	return e.Kind != "" && e.Recipient != ""
}

// readAction reads what smtpd(8), postscreen(8) and cleanup(8) do by a rule or a milter: "reject: RCPT from host[address]:
// reply; from=<…> to=<…> proto=… helo=<…>".
func readAction(e *mta.Event, what string) bool {
	action, rest, ok := strings.Cut(what, ": ")
	if !ok {
		return false
	}
	switch strings.TrimPrefix(action, "milter-") {
	case "reject":
		e.Kind = mta.Refused
	case "discard":
		e.Kind = mta.Discarded
	case "hold", "quarantine":
		e.Kind = mta.Held
	default:
		return false
	}
	if envelope := strings.Index(rest, "; from=<"); envelope >= 0 {
		e.Sender = path(rest[envelope:], "; from=<")
		e.Recipient = path(rest[envelope:], " to=<")
		after := rest[envelope:]
		rest = rest[:envelope]
		if _, reason, ok := strings.Cut(after, ">: "); ok { // header_checks say it last
			rest += ": " + reason
		}
	}
	_, client, ok := strings.Cut(rest, " from ")
	if ok {
		e.Client, e.Text, ok = strings.Cut(client, ": ")
	}
	if !ok {
		e.Client, e.Text = "", rest
	}
	if e.ID != "" && strings.Contains(what, "END-OF-MESSAGE") {
		e.Recipient = "" // it is but one of them
	}
	return e.ID != "" || e.Kind == mta.Refused && (e.Sender != "" || e.Recipient != "")
}

// path is the address behind a text that ends in "<", "<>" for an empty one; empty where that text is not there.
func path(s, before string) string {
	at := strings.Index(s, before)
	if at < 0 {
		return ""
	}
	s = s[at+len(before):]
	end := 0
	for quoted := false; end < len(s) && (quoted || s[end] != '>'); end++ {
		switch s[end] {
		case '"':
			quoted = !quoted
		case '\\':
			end++
		}
	}
	if end >= len(s) {
		return ""
	}
	if end == 0 {
		return "<>"
	}
	return s[:end]
}

func upTo(s, end string) string {
	before, _, _ := strings.Cut(s, end)
	return before
}
