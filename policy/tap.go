package policy

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"hash"
	"strings"
	"time"
)

// A tap records the messages of one SMTP session as they were accepted: for whom RCPT was accepted, at the end of the
// message, after everything before it had its say.
//
// Its size of a message is that of the header and the body as the queue file has them at that moment,
// each line with CRLF and the empty line between counted once. Headers which Postfix or an earlier milter
// added or changed count as they are now, save for Postfix's own Received and those it adds when missing; white space
// before a header's colon does not count; the empty line counts also where the message has none.
//
// Whoever RCPT was accepted for is billed: also where an earlier milter deletes the recipient later, or an alias sends
// the message elsewhere. Who is added to the envelope without RCPT is not.
type tap struct {
	policy *Policy
	arrival

	open  bool // between MAIL and the end of the message
	begun time.Time
	mark  hash.Hash // of envelope and content, see [meter.Fingerprint]
	named bool      // the mark has a Message-ID
}

func newTap(p *Policy) tap { return tap{policy: p, mark: sha256.New()} }

func (t *tap) connect(address string) {
	t.reset()
	t.client = hostOf(address)
}

func (t *tap) mail(sender string) {
	t.reset()
	t.open, t.begun = true, t.policy.now()
	t.note("sender", sender)
}

// note adds to the message's mark.
func (t *tap) note(what, value string) { fmt.Fprintf(t.mark, "%s %q\n", what, value) }

// rcpt notes whose the recipient is. Postfix says in a macro what it resolved the address to; without
// it the address is read as the client wrote it.
func (t *tap) rcpt(address, resolved string) {
	if resolved != "" {
		address = resolved
	}
	address = unquoted(address)
	t.note("recipient", address)
	directory := t.policy.cfg.Accounts.Directory()
	if directory == nil {
		t.unread = true
		return
	}
	to := readRecipient(directory, address)
	t.addressed(to.account, to.address.Domain)
}

// header counts one field. spaceTaken says that the MTA took away the space after the colon.
func (t *tap) header(name, value []byte, spaceTaken bool) {
	t.size += int64(len(name) + len(":") + len(value) + len("\r\n"))
	if spaceTaken {
		t.size++
	}
	for i, c := range value { // lines within a header come with a bare LF
		if c == '\n' && (i == 0 || value[i-1] != '\r') {
			t.size++
		}
	}
	switch {
	case len(t.accounts) == 0:
	case bytes.EqualFold(name, []byte("Message-ID")):
		t.named = true
		fallthrough
	case bytes.EqualFold(name, []byte("Date")), bytes.EqualFold(name, []byte("From")):
		t.note("header", string(bytes.TrimSpace(value)))
	case bytes.EqualFold(name, []byte("Received")):
		t.received(string(value))
	}
}

func (t *tap) body(chunk []byte) { t.size += int64(len(chunk)) }

// arrived is the message at its end.
func (t *tap) arrived(queueID string) *arrival {
	t.size += int64(len("\r\n"))
	t.queueID = queueID
	// Short queue IDs come again; the time of MAIL FROM does not: a queue ID has the microsecond in it.
	t.instance = fmt.Sprintf("%s@%x", queueID, t.begun.UnixMilli())
	if t.named { // two messages without a Message-ID may be the same in all that is known
		copy(t.fingerprint[:], t.mark.Sum(nil))
	}
	return &t.arrival
}

func (t *tap) reset() {
	t.arrival = arrival{client: t.client}
	t.open, t.begun, t.named = false, time.Time{}, false
	t.mark.Reset()
}

// unquoted turns an address as SMTP writes it into the internal form in which policy requests have it.
func unquoted(address string) string {
	address = strings.TrimSuffix(strings.TrimPrefix(address, "<"), ">")
	if !strings.HasPrefix(address, `"`) {
		return address
	}
	var b strings.Builder
	for i, within := 0, false; i < len(address); i++ {
		switch c := address[i]; {
		case c == '"':
			within = !within
		case c == '\\' && within && i+1 < len(address):
			i++
			b.WriteByte(address[i])
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}
