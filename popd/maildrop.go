package popd

import (
	"errors"
	"io/fs"

	"mailbag/popd/maildir"
)

// A maildrop is a mailbox as one session sees it: what was there at log-in, numbered from 1, less what it
// has marked as deleted (RFC 1939, section 4 and 5).
type maildrop struct {
	lock    *maildir.Lock
	list    *maildir.List
	marked  []bool // nil: none
	count   int    // of those that are not marked
	octets  int64
	fetched []bool // nil: none; sent whole
	deleted bool   // what is marked
}

// openMaildrop locks and lists a Maildir. One that is not there is made, and so is what a delivery has begun to
// make. Errors: [maildir.ErrInUse].
func openMaildrop(d *maildir.Maildir) (*maildrop, error) {
	m, err := lockAndList(d)
	if errors.Is(err, fs.ErrNotExist) {
		if err := d.Create(); err != nil {
			return nil, err
		}
		m, err = lockAndList(d)
	}
	return m, err
}

func lockAndList(d *maildir.Maildir) (*maildrop, error) {
	lock, err := d.Lock()
	if err != nil {
		return nil, err
	}
	list, err := d.List()
	if err != nil {
		lock.Unlock()
		return nil, err
	}
	m := &maildrop{lock: lock, list: list}
	m.reset()
	return m, nil
}

// reset takes all marks away.
func (m *maildrop) reset() {
	m.marked, m.count, m.octets = nil, len(m.list.Messages), 0
	for i := range m.list.Messages {
		m.octets += m.list.Messages[i].Size()
	}
}

// isMarked reports whether the message is marked as deleted; i counts from 0.
func (m *maildrop) isMarked(i int) bool { return m.marked != nil && m.marked[i] }

func (m *maildrop) mark(i int) {
	if m.marked == nil {
		m.marked = make([]bool, len(m.list.Messages))
	}
	m.marked[i] = true
	m.count--
	m.octets -= m.list.Messages[i].Size()
}

// sent notes that the client was sent all of a message.
func (m *maildrop) sent(i int) {
	if m.fetched == nil {
		m.fetched = make([]bool, len(m.list.Messages))
	}
	m.fetched[i] = true
}

// changed yields the messages of which the session was sent all, or that it deleted.
func (m *maildrop) changed(yield func(name string, fetched, deleted bool)) {
	if m.fetched == nil && !m.deleted {
		return
	}
	for i := range m.list.Messages {
		fetched, deleted := m.fetched != nil && m.fetched[i], m.deleted && m.isMarked(i)
		if fetched || deleted {
			yield(m.list.Messages[i].UniqueID(), fetched, deleted)
		}
	}
}

// update deletes what is marked, and returns how much that was.
func (m *maildrop) update(syncer *maildir.Syncer) (int, error) {
	if m.marked == nil {
		return 0, nil
	}
	var all []*maildir.Message
	for i := range m.list.Messages {
		if m.marked[i] {
			all = append(all, &m.list.Messages[i])
		}
	}
	n, err := m.list.Remove(all, syncer)
	m.deleted = err == nil // else nobody knows which
	return n, err
}

func (m *maildrop) close() { m.lock.Unlock() }
