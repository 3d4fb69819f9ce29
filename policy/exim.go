package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"mailbag/meter"
)

// Exim has no milters. Its ACLs ask on connections of one request each, with policy_context=exim, and tell by the states
// below what a milter would see: a message at its end, and that Exim deleted one which had come to its end, because the
// client had gone. Nothing is remembered from one request to the next.
const (
	endOfMessage = "END-OF-MESSAGE"
	cancel       = "CANCEL"
)

// eximWaits is how long after a request Exim is sure to still hear its answer: its ACLs wait for 100 s.
const eximWaits = 90 * time.Second

// errLate is an answer that Exim may not have waited for. It has its client try again then.
var errLate = errors.New("a message was recorded later than Exim may wait for, and is taken back")

// message answers the end of a message. counted is the instance of one that was counted and answered.
func (p *Policy) message(c *conn, r *request) (counted string, err error) {
	asked := p.now()
	m, err := p.arrivalOf(r)
	if err != nil {
		return "", err
	}
	counted, d, err := p.record(m, func() error {
		if p.now().Sub(asked) > eximWaits {
			return errLate
		}
		return p.answer(c, r, dunno)
	})
	if err == nil && d != dunno {
		err = p.answer(c, r, d)
	}
	return counted, err
}

// arrivalOf reads what a request tells of a message. A domain that is nobody's here, or not any more, is another's.
func (p *Policy) arrivalOf(r *request) (*arrival, error) {
	m := &arrival{queueID: string(r.queueID), client: hostOf(string(r.clientAddress)), foreign: string(r.others) == "yes"}
	if !mayBeQueueID(m.queueID) {
		return nil, badInput(fmt.Sprintf("a message has the queue ID %.40q, which is none", r.queueID))
	}
	m.instance = meter.SpoolInstance(m.queueID)
	size, err := strconv.ParseInt(string(r.size), 10, 64)
	if err != nil || size < 0 || size > meter.MaxLimit {
		return nil, badInput(fmt.Sprintf("a message has the size %.40q, which is none", r.size))
	}
	m.size = size
	digest, err := hex.DecodeString(string(r.fingerprint))
	if err != nil || len(digest) != 0 && len(digest) != sha256.Size {
		return nil, badInput(fmt.Sprintf("a message has the fingerprint %.80q, which is none", r.fingerprint))
	}
	copy(m.fingerprint[:], digest)
	m.received(string(r.received))
	directory := p.cfg.Accounts.Directory()
	m.unread = directory == nil
	for name := range strings.FieldsSeq(string(r.domains)) {
		if directory != nil {
			m.addressed(domainOf(directory, name))
		}
	}
	return m, nil
}

// takeBack makes it as if the message had never been counted.
func (p *Policy) takeBack(r *request) error {
	id := string(r.queueID)
	if !mayBeQueueID(id) {
		return badInput(fmt.Sprintf("a message has the queue ID %.40q, which is none", id))
	}
	p.cfg.Recorder.Unheard(meter.SpoolInstance(id))
	return nil
}
