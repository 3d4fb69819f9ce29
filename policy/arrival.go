package policy

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"mailbag/meter"
)

// An arrival is a message that has come to its end, as the milter saw it or Exim tells of it.
type arrival struct {
	queueID  string
	instance string     // see [meter.Message]
	client   netip.Addr // not valid where the message did not come by SMTP
	size     int64      // octets, with CRLF

	accounts []int64  // without repeats
	domains  []string // of theirs, likewise
	foreign  bool     // there are recipients of others
	unread   bool     // a recipient could not be read, because the ledger never was

	fingerprint meter.Fingerprint
	passed      []string // queue IDs that the Received fields name
}

// passedLimit is how many of them are looked at; hopcount_limit is 50.
const passedLimit = 50

// hostOf reads a client's address as the MTA writes it.
func hostOf(address string) netip.Addr {
	addr, err := netip.ParseAddr(address)
	if err != nil {
		return netip.Addr{}
	}
	return addr.Unmap().WithZone("")
}

// addressed notes a recipient in a domain of the account's, or another's where that is nil.
func (m *arrival) addressed(a *meter.Account, domain string) {
	if a == nil {
		m.foreign = true
		return
	}
	if !slices.Contains(m.accounts, a.ID) {
		m.accounts = append(m.accounts, a.ID)
	}
	if !slices.Contains(m.domains, domain) {
		m.domains = append(m.domains, domain)
	}
}

// received notes the queue IDs of Received fields, where they are believed: of a message from this host, by a content
// filter that gives it back, or by sendmail(1).
func (m *arrival) received(value string) {
	if m.client.IsValid() && !m.client.IsLoopback() {
		return
	}
	ids := receivedIDs(value)
	m.passed = append(m.passed, ids[:min(len(ids), passedLimit-len(m.passed))]...)
}

// receivedIDs are what stands behind "id" in a Received field (RFC 5321, section 4.4), if it can be a queue ID. The first
// need not be the MTA's own: a client says "id" as its name, or has it in that of its certificate.
func receivedIDs(value string) (ids []string) {
	fields := strings.Fields(value)
	for i := 1; i < len(fields) && len(ids) < passedLimit; i++ {
		if id := strings.TrimSuffix(fields[i], ";"); fields[i-1] == "id" && mayBeQueueID(id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// mayBeQueueID takes what Postfix and Exim make: letters and digits, and Exim's hyphens between.
func mayBeQueueID(s string) bool {
	return s != "" && len(s) <= 30 && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && r != '-'
	})
}

// record decides over a message at its end. Where it is let in, it is durable, and then answer was called; its error is
// returned. Otherwise the decision is what is to be answered, as a reply of SMTP. counted is the instance of a message
// that was counted and answered.
func (p *Policy) record(m *arrival, answer func() error) (counted string, d decision, err error) {
	if m.unread || len(m.accounts) > 0 && p.cfg.Accounts.Available() != nil {
		p.metrics.messages["deferred"].Inc()
		return "", unavailable, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	accounts, err := p.unbilled(ctx, m)
	if err != nil {
		p.metrics.messages["deferred"].Inc()
		p.reportUnrecorded(m.queueID, err)
		return "", unavailable, nil
	}
	if len(accounts) == 0 {
		outcome := "foreign"
		if len(m.accounts) > 0 {
			outcome = "repeated"
		}
		p.metrics.messages[outcome].Inc()
		return "", dunno, answer()
	}
	d, settle := p.mayWait(ctx, accounts, m.size)
	if d != dunno {
		outcome := "deferred"
		if d.kind == full {
			outcome = kinds[full]
		}
		p.metrics.messages[outcome].Inc()
		return "", d, nil
	}
	defer settle()
	client := ""
	if m.client.IsValid() {
		client = m.client.String()
	}
	answered := false
	err = p.cfg.Recorder.Record(meter.Message{
		Instance:    m.instance,
		QueueID:     m.queueID,
		Size:        m.size,
		Client:      client,
		At:          p.now(),
		Accounts:    accounts,
		Domains:     m.domains,
		Limits:      p.limitsOf(accounts),
		Fingerprint: m.fingerprint,
	}, func() error {
		answered = true
		return answer()
	})
	switch {
	case err == nil:
		p.metrics.messages["recorded"].Inc()
		return m.instance, dunno, nil
	case answered:
		p.metrics.messages["unheard"].Inc()
		return "", dunno, err
	case errors.Is(err, meter.ErrLimit):
		p.metrics.messages[kinds[limited]].Inc()
		return "", p.aboveLimit(accounts, m.foreign || len(accounts) < len(m.accounts)), nil
	}
	p.metrics.messages["deferred"].Inc()
	p.reportUnrecorded(m.queueID, err)
	return "", unavailable, nil
}

// unbilled returns the accounts for which the message was not counted yet. It was for others when it came in, where it comes
// from this host and one of its Received fields has the queue ID that it had then: a content filter took it
// and gives it back.
func (p *Policy) unbilled(ctx context.Context, m *arrival) ([]*meter.Account, error) {
	left := m.accounts
	if len(left) > 0 && len(m.passed) > 0 {
		since := p.now().Add(-passTime)
		if slices.Contains(m.passed, m.queueID) {
			since = time.Time{} // Exim asks about it again, which may have waited for a turn meanwhile
		}
		counted, err := p.cfg.Recorder.CountedUnder(ctx, m.passed, since)
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

// passTime is how long a message may be on its way through a filter: as long as the MTA tries to hand it over.
const passTime = 5 * 24 * time.Hour

// hungUp sees why a connection has ended, on which the recording of a message was answered last. This is what a unix
// socket says where its peer closed it without reading all: the MTA gave the message up, for want of an answer in time,
// say, and its sender was told to try again.
func (p *Policy) hungUp(answered string, err error) {
	if answered != "" && errors.Is(err, syscall.ECONNRESET) {
		p.cfg.Recorder.Unheard(answered)
	}
}

func (p *Policy) reportUnrecorded(queueID string, err error) {
	if n, ok := p.unrecorded.Allow(); ok {
		p.log.Error("a message cannot be recorded and is deferred", "queue_id", queueID, "error", err, "more", n)
	}
}
