package turn

import (
	"crypto/sha256"
	"fmt"
	"sync"
	"time"

	"mailbag/turnd/relay"
)

const (
	rememberFor   = 24 * time.Hour // what a customer's server taught
	unreachedFor  = time.Minute    // that it could not be reached
	maxRemembered = 2000           // recipients of one account's server, in one generation
	maxInAll      = 500_000        // recipients of all: some 30 MB
	maxPatience   = 8              // refusals on one connection before those go first that the server is known to take
)

// A memory is what customers' servers taught, by account, in this process.
type memory struct {
	now func() time.Time

	mu       sync.Mutex
	accounts map[int64]*taught
	inAll    int // recipients, of both generations
}

// taught is what one account's server taught.
type taught struct {
	since   time.Time
	lessons relay.Lessons
	served  int // transactions on one connection, where it ends them after so many; 0: nobody knows

	// Recipients, and whether they were taken the last time; when one generation is full, or half a day old, the next begins.
	recipients, before map[recipientKey]bool
	turned             time.Time

	unreached time.Time // until when it is not dialled again
	host      string    // as it was then
	failure   error
}

// A recipientKey stands for a forward-path.
type recipientKey [16]byte

func newMemory(now func() time.Time) *memory { return &memory{now: now, accounts: map[int64]*taught{}} }

// of returns what an account's server taught, anew when that was long ago. m.mu is held.
func (m *memory) of(account int64) *taught {
	t, now := m.accounts[account], m.now()
	if t == nil || now.Sub(t.since) >= rememberFor {
		before := t
		t = &taught{since: now, turned: now, recipients: map[recipientKey]bool{}}
		if before != nil {
			t.recipients, t.before, t.turned = before.recipients, before.before, before.turned
		}
		m.accounts[account] = t
		m.prune(now)
	}
	if len(t.recipients) >= maxRemembered || now.Sub(t.turned) >= rememberFor/2 {
		m.inAll -= len(t.before)
		t.recipients, t.before, t.turned = map[recipientKey]bool{}, t.recipients, now
	}
	return t
}

// prune forgets accounts that had no turn for long. m.mu is held.
func (m *memory) prune(now time.Time) {
	for id, t := range m.accounts {
		if now.Sub(t.since) >= 2*rememberFor {
			m.inAll -= len(t.recipients) + len(t.before)
			delete(m.accounts, id)
		}
	}
}

// server returns what is known to fail at an account's server, and how many transactions it takes on one connection.
func (m *memory) server(account int64) (relay.Lessons, int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.of(account)
	return t.lessons, t.served
}

// learn adds to what is known of an account's server.
func (m *memory) learn(account int64, lessons relay.Lessons, served int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.of(account)
	if all := t.lessons.And(lessons); all != t.lessons {
		t.lessons, t.since = all, m.now()
	}
	if served > 0 {
		t.served = served
	}
}

func keyOf(path string) recipientKey {
	sum := sha256.Sum256([]byte(path))
	return recipientKey(sum[:16])
}

// recipient notes whether the server took a recipient.
func (m *memory) recipient(account int64, path string, taken bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t, key := m.of(account), keyOf(path)
	if _, noted := t.recipients[key]; !noted {
		m.inAll++
	}
	t.recipients[key] = taken
	if m.inAll > maxInAll {
		m.forgetRecipients()
	}
}

// forgetRecipients makes room: the older generations go, and where that is not enough the others. m.mu is held.
func (m *memory) forgetRecipients() {
	m.inAll = 0
	for _, t := range m.accounts {
		t.before = nil
		m.inAll += len(t.recipients)
	}
	if m.inAll <= maxInAll/2 {
		return
	}
	m.inAll = 0
	for _, t := range m.accounts {
		t.recipients = map[recipientKey]bool{}
	}
}

// taken reports whether the server took a recipient the last time, and whether it has been asked at all.
func (m *memory) taken(account int64, path string) (taken, asked bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.of(account)
	if taken, asked = t.recipients[keyOf(path)]; !asked {
		taken, asked = t.before[keyOf(path)]
	}
	return taken, asked
}

// unreachable remembers for a while why an account's host was not reached.
func (m *memory) unreachable(account int64, host string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.of(account)
	t.unreached, t.host, t.failure = m.now().Add(unreachedFor), host, err
}

// reached forgets that.
func (m *memory) reached(account int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.of(account).failure = nil
}

// failed returns why the host was not reached a moment ago; nil: it was, or that is too long ago to say.
func (m *memory) failed(account int64, host string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.of(account)
	left := t.unreached.Sub(m.now())
	if t.failure == nil || t.host != host || left <= 0 || left > unreachedFor {
		return nil
	}
	return fmt.Errorf("%w (as of %d seconds ago)", t.failure, int((unreachedFor-left)/time.Second))
}
