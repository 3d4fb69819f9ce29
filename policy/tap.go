package policy

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"net/netip"
	"slices"
	"strings"
	"time"

	"mailbag/meter"
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
	client netip.Addr

	open     bool // between MAIL and the end of the message
	begun    time.Time
	accounts []int64  // without repeats
	domains  []string // of theirs, likewise, where an account has several
	foreign  bool     // there are recipients of others
	unread   bool     // a recipient could not be read, because the ledger never was
	size     int64
	mark     hash.Hash // of envelope and content, see [meter.Fingerprint]
	named    bool      // the mark has a Message-ID
	passed   []string  // queue IDs that the Received fields name
}

// passedLimit is how many of them are looked at; hopcount_limit is 50.
const passedLimit = 50

func newTap(p *Policy) tap { return tap{policy: p, mark: sha256.New()} }

func (t *tap) connect(address string) {
	t.reset()
	t.client = netip.Addr{}
	if addr, err := netip.ParseAddr(address); err == nil {
		t.client = addr.Unmap().WithZone("")
	}
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
	a := readRecipient(directory, address).account
	if a == nil {
		t.foreign = true
		return
	}
	if !slices.Contains(t.accounts, a.ID) {
		t.accounts = append(t.accounts, a.ID)
	}
	if domain := ownDomain(a, address); domain != "" && !slices.Contains(t.domains, domain) {
		t.domains = append(t.domains, domain)
	}
}

// ownDomain is the domain of an address as the account has it, empty where it has no other.
func ownDomain(a *meter.Account, address string) string {
	if len(a.Domains) < 2 {
		return ""
	}
	domain, err := meter.NormalizeDomain(address[strings.LastIndexByte(address, '@')+1:])
	if i, ours := slices.BinarySearch(a.Domains, domain); err == nil && ours {
		return a.Domains[i]
	}
	return ""
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
	case bytes.EqualFold(name, []byte("Received")) && t.local() && len(t.passed) < passedLimit:
		t.passed = append(t.passed, receivedIDs(string(value))...)
	}
}

// local reports whether the message comes from this host: by a content filter that gives it back, or by sendmail(1), for
// which Postfix says localhost.
func (t *tap) local() bool { return !t.client.IsValid() || t.client.IsLoopback() }

// receivedIDs are what stands behind "id" in a Received field (RFC 5321, section 4.4), if it can be a queue ID. The first
// need not be Postfix's own: a client says "id" as its name, or has it in that of its certificate.
func receivedIDs(value string) (ids []string) {
	fields := strings.Fields(value)
	for i := 1; i < len(fields) && len(ids) < passedLimit; i++ {
		if id := strings.TrimSuffix(fields[i], ";"); fields[i-1] == "id" && mayBeQueueID(id) {
			ids = append(ids, id)
		}
	}
	return ids
}

func mayBeQueueID(s string) bool {
	return len(s) <= 30 && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	})
}

func (t *tap) body(chunk []byte) { t.size += int64(len(chunk)) }

// record decides over the message at its end. Where it is let in, it is durable, and then answer was called; its error is
// returned. Otherwise the decision is what is to be answered, as a reply of SMTP.
func (t *tap) record(queueID string, answer func() error) (instance string, d decision, err error) {
	p := t.policy
	if t.unread || len(t.accounts) > 0 && p.cfg.Accounts.Available() != nil {
		p.metrics.messages["deferred"].Inc()
		return "", unavailable, nil
	}
	accounts, err := t.unbilled()
	if err != nil {
		p.metrics.messages["deferred"].Inc()
		p.reportUnrecorded(queueID, err)
		return "", unavailable, nil
	}
	if len(accounts) == 0 {
		outcome := "foreign"
		if len(t.accounts) > 0 {
			outcome = "repeated"
		}
		p.metrics.messages[outcome].Inc()
		return "", dunno, answer()
	}
	size := t.size + int64(len("\r\n"))
	d, settle := p.admit(context.Background(), accounts, size, t.foreign || len(accounts) < len(t.accounts))
	if d != dunno {
		outcome := "deferred"
		if d.kind == limited {
			outcome = "limited"
		}
		p.metrics.messages[outcome].Inc()
		return "", d, nil
	}
	defer settle()
	m := meter.Message{
		// Short queue IDs come again; the time of MAIL FROM does not.
		Instance: fmt.Sprintf("%s@%x", queueID, t.begun.UnixNano()),
		QueueID:  queueID,
		Size:     size,
		Client:   t.address(),
		At:       p.now(),
		Accounts: accounts,
		Domains:  t.domains,
	}
	if t.named { // two messages without a Message-ID may be the same in all that is known
		copy(m.Fingerprint[:], t.mark.Sum(nil))
	}
	answered := false
	err = p.cfg.Recorder.Record(m, func() error {
		answered = true
		return answer()
	})
	switch {
	case err == nil:
		p.metrics.messages["recorded"].Inc()
		return m.Instance, dunno, nil
	case answered:
		p.metrics.messages["unheard"].Inc()
		return "", dunno, err
	}
	p.metrics.messages["deferred"].Inc()
	p.reportUnrecorded(queueID, err)
	return "", unavailable, nil
}

func (t *tap) address() string {
	if !t.client.IsValid() {
		return ""
	}
	return t.client.String()
}

// unbilled returns the accounts for which the message was not counted yet. It was for others when it came in, where it comes
// from this host and one of its Received fields has the queue ID that it had then: a content filter took it
// and gives it back.
func (t *tap) unbilled() ([]*meter.Account, error) {
	p := t.policy
	left := t.accounts
	if len(left) > 0 && len(t.passed) > 0 {
		counted, err := p.cfg.Recorder.CountedUnder(context.Background(), t.passed, p.now().Add(-passTime))
		if err != nil {
			return nil, err
		}
		left = slices.DeleteFunc(slices.Clone(left), func(id int64) bool { return slices.Contains(counted, id) })
	}
	directory := p.cfg.Accounts.Directory()
	accounts := make([]*meter.Account, len(left))
	for i, id := range left {
		// One that was deleted since RCPT is billable for what it took before.
		if accounts[i] = directory.AccountByID(id); accounts[i] == nil {
			accounts[i] = &meter.Account{ID: id}
		}
	}
	return accounts, nil
}

// passTime is how long a message may be on its way through a filter: as long as Postfix tries to hand it over.
const passTime = 5 * 24 * time.Hour

func (t *tap) reset() {
	t.open, t.begun, t.accounts, t.domains, t.passed = false, time.Time{}, nil, nil, nil
	t.foreign, t.unread, t.named, t.size = false, false, false, 0
	t.mark.Reset()
}

func (p *Policy) reportUnrecorded(queueID string, err error) {
	if n, ok := p.unrecorded.Allow(); ok {
		p.log.Error("a message cannot be recorded and is deferred", "queue_id", queueID, "error", err, "more", n)
	}
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
