package policy

import (
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"mailbag/meter"
)

const (
	noteLimit = 50_000         // messages being received at once; 11 MB
	noteLife  = 12 * time.Hour // no message takes longer from its first RCPT to its end
)

// A note is what was seen of one message at RCPT: by instance, because Postfix may use another
// connection for END-OF-MESSAGE.
type note struct {
	instance string
	at       time.Time // of the first RCPT
	first    string    // its address
	total    int64     // recipients that we let pass, ours and others
	accounts []noted

	older, newer *note
}

// noted is how many of a message's recipients are one account's. The account is kept by ID, so that a
// note does not keep a whole snapshot of accounts alive.
type noted struct {
	account  int64
	count    int64
	verified bool     // Postfix asks the customer's server about them after we let them pass
	domains  []string // where the account has several, those of these recipients
}

// notes are the messages between RCPT and END-OF-MESSAGE. Beyond a number and an age the oldest go;
// what they knew is then unknown in the way that a restart makes everything unknown.
type notes struct {
	limit int
	life  time.Duration

	mu             sync.Mutex
	byInstance     map[string]*note
	oldest, newest *note
	lost           time.Time // instances up to this time may have been noted and forgotten
}

// newNotes forgets, as it were, everything before started.
func newNotes(started time.Time) *notes {
	return &notes{limit: noteLimit, life: noteLife, byInstance: map[string]*note{}, lost: started}
}

// add notes a recipient: an account's, or nobody's here when a is nil. A message that is not noted yet
// and may have been before is left without a note: half of its recipients are worse than none.
//
// It returns false, and notes nothing, for a recipient to be verified when there is one of another
// account already. Of one such account recipient_count tells at the end how many recipients its
// server refused; of two nobody could tell whose they were.
func (n *notes) add(instance, address []byte, a *meter.Account, now time.Time) bool {
	verified := a != nil && a.Recipients == meter.VerifiedRecipient
	n.mu.Lock()
	defer n.mu.Unlock()
	m := n.byInstance[string(instance)]
	if m == nil {
		if n.before(string(instance)) {
			return true
		}
		for n.oldest != nil && (len(n.byInstance) >= n.limit || now.Sub(n.oldest.at) > n.life) {
			n.forget(n.oldest)
		}
		m = &note{instance: string(instance), at: now, first: string(address), older: n.newest}
		if n.newest == nil {
			n.oldest = m
		} else {
			n.newest.newer = m
		}
		n.newest = m
		n.byInstance[m.instance] = m
	}
	if verified && slices.ContainsFunc(m.accounts, func(o noted) bool { return o.verified && o.account != a.ID }) {
		return false
	}
	m.total++
	if a == nil {
		return true
	}
	i := slices.IndexFunc(m.accounts, func(o noted) bool { return o.account == a.ID })
	if i < 0 {
		i = len(m.accounts)
		m.accounts = append(m.accounts, noted{account: a.ID, verified: verified})
	}
	m.accounts[i].count++
	if domain := ownDomain(a, string(address)); domain != "" && !slices.Contains(m.accounts[i].domains, domain) {
		m.accounts[i].domains = append(m.accounts[i].domains, domain)
	}
	return true
}

// ownDomain is the domain of an address as the account has it, empty where it has no other.
func ownDomain(a *meter.Account, address string) string {
	if len(a.Domains) < 2 {
		return ""
	}
	domain, err := meter.NormalizeDomain(address[strings.LastIndexByte(address, '@')+1:])
	if i, ours := slices.BinarySearch(a.Domains, domain); err == nil && ours {
		return a.Domains[i] // shared with every other note
	}
	return ""
}

// forget drops a note and remembers that something as old was dropped.
func (n *notes) forget(m *note) {
	n.remove(m)
	if t, ok := instanceTime(m.instance); ok && t.After(n.lost) {
		n.lost = t
	}
}

func (n *notes) remove(m *note) {
	delete(n.byInstance, m.instance)
	if m.older == nil {
		n.oldest = m.newer
	} else {
		m.older.newer = m.newer
	}
	if m.newer == nil {
		n.newest = m.older
	} else {
		m.newer.older = m.older
	}
}

// of returns the accounts noted for an instance, each with its number of recipients, and the number
// of all recipients. known is false when there is no note.
func (n *notes) of(instance []byte) (accounts []noted, total int64, known bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	m := n.byInstance[string(instance)]
	if m == nil {
		return nil, 0, false
	}
	return append([]noted(nil), m.accounts...), m.total, true
}

// sole reports whether the address is all that was noted of an instance.
func (n *notes) sole(instance, address []byte) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	m := n.byInstance[string(instance)]
	return m != nil && m.total == 1 && m.first == string(address)
}

// done drops the note of a message that needs it no more.
func (n *notes) done(instance []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if m := n.byInstance[string(instance)]; m != nil {
		n.remove(m)
	}
}

// mayHaveLost reports whether an instance without a note may have had one: it began before this
// process did, or is as old as one that was forgotten.
func (n *notes) mayHaveLost(instance string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.before(instance)
}

func (n *notes) before(instance string) bool {
	t, ok := instanceTime(instance)
	return ok && !t.After(n.lost)
}

// instanceTime is when MAIL FROM was said, from the instance attribute: smtpd's process ID, seconds,
// microseconds and a sequence number, in hexadecimal with dots between.
func instanceTime(instance string) (time.Time, bool) {
	var n [4]int64
	for i := range n {
		field, rest, more := strings.Cut(instance, ".")
		v, err := strconv.ParseUint(field, 16, 63)
		if err != nil || more != (i < len(n)-1) {
			return time.Time{}, false
		}
		n[i], instance = int64(v), rest
	}
	if n[1] > 1<<40 || n[2] > 1_000_000 {
		return time.Time{}, false
	}
	return time.Unix(n[1], n[2]*1000), true
}
