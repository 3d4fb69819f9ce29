package maildir

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A Message is one file in new or cur.
type Message struct {
	name   string
	unique uint16 // length of what identifies it
	seen   bool   // it is in cur
	gone   bool   // it was not found any more
	twin   bool   // another one has the same
	unread bool   // its size could not be computed
	size   int64
}

// Size is the message's size in octets as it is sent, without the dots that make it transparent.
func (m *Message) Size() int64 { return m.size }

// UniqueID identifies the message in its Maildir for as long as it is there, whatever other programs
// do to its flags: 1 to 70 printable characters (RFC 1939, section 7). Two messages of another program's whose names
// are told apart by S= and W= alone have others while both are there.
func (m *Message) UniqueID() string {
	if m.twin {
		return uniqueID(m.base())
	}
	return uniqueID(m.name[:m.unique])
}

func (m *Message) base() string {
	base, _, _ := strings.Cut(m.name, ":")
	return base
}

// A List is what was in a Maildir at one moment, in the order in which it came.
type List struct {
	Messages []Message

	// Unkept is why sizes that were computed could not be kept, so that they are computed again next time.
	Unkept error

	dir *Maildir
}

// List lists the messages. Where their names say it all, it reads the two directories and nothing else.
func (d *Maildir) List() (*List, error) {
	var f found
	// new before cur: a message that another program moves meanwhile is seen twice rather than not at all.
	for _, sub := range []string{new, cur} {
		if err := d.names(sub, func(s string) { f.add(s, sub == cur) }); err != nil {
			return nil, err
		}
	}
	l := &List{dir: d, Messages: f.inOrder()}
	l.measure()
	return l, nil
}

// found are the messages of a Maildir as they are read. They are looked at while they are in the processor's cache, and
// moved once.
type found struct {
	pieces [][]Message
	keys   []key
}

// A key is when a message came, and which it is of those that were found.
type key struct {
	came  uint64
	index uint32
}

const pieceSize = 1024

func (f *found) add(s string, seen bool) {
	if len(f.keys)%pieceSize == 0 {
		f.pieces = append(f.pieces, nil)
	}
	n := parseName(s)
	piece := &f.pieces[len(f.pieces)-1]
	*piece = append(*piece, Message{name: s, unique: uint16(n.unique), seen: seen, size: n.sent})
	f.keys = append(f.keys, key{came(s), uint32(len(f.keys))})
}

func (f *found) message(k key) *Message {
	return &f.pieces[k.index/pieceSize][k.index%pieceSize]
}

// inOrder returns the messages by the time in their names, then by what identifies them. One that was seen twice is
// there once, and twins are marked.
func (f *found) inOrder() []Message {
	slices.SortFunc(f.keys, func(a, b key) int {
		if a.came != b.came {
			return cmp.Compare(a.came, b.came)
		}
		return order(f.message(a), f.message(b))
	})
	all := make([]Message, 0, len(f.keys))
	for i, k := range f.keys {
		m := f.message(k)
		if i > 0 && f.keys[i-1].came == k.came {
			last := &all[len(all)-1]
			if last.base() == m.base() {
				continue
			}
			if last.name[:last.unique] == m.name[:m.unique] {
				last.twin, m.twin = true, true
			}
		}
		all = append(all, *m)
	}
	return all
}

// order orders messages of the same time. Of one that was seen twice that in cur is first.
func order(a, b *Message) int {
	if c := strings.Compare(a.name[:a.unique], b.name[:b.unique]); c != 0 {
		return c
	}
	if c := strings.Compare(a.base(), b.base()); c != 0 || a.seen == b.seen {
		return c
	}
	if a.seen {
		return -1
	}
	return 1
}

// Open opens a message for reading, as a descriptor that the caller closes. The error is fs.ErrNotExist when
// the message is gone. It is found where another program moved it.
func (l *List) Open(m *Message) (int, error) {
	fd, err := l.open(m)
	if errors.Is(err, fs.ErrNotExist) && l.find(m) {
		fd, err = l.open(m)
	}
	return fd, err
}

func (l *List) open(m *Message) (int, error) { return openFile(l.path(m), 0) }

func (l *List) path(m *Message) string {
	if m.seen {
		return l.dir.path + "/" + cur + "/" + m.name
	}
	return l.dir.path + "/" + new + "/" + m.name
}

// find looks where a message is that is not where it was, and at the same time for all others, and reports
// whether it is anywhere.
func (l *List) find(m *Message) bool {
	if m.gone {
		return false
	}
	where := map[string]Message{}
	for _, sub := range []string{new, cur} {
		err := l.dir.names(sub, func(s string) {
			there := Message{name: s, seen: sub == cur}
			where[there.base()] = there
		})
		if err != nil {
			return false
		}
	}
	for i := range l.Messages {
		m := &l.Messages[i]
		if there, found := where[m.base()]; found {
			m.name, m.seen = there.name, there.seen
		} else {
			m.gone = true
		}
	}
	return !m.gone
}

// Remove removes messages for good. One that is gone already is no error. What could not be removed is in
// the error, and what was is removed nonetheless.
func (l *List) Remove(messages []*Message, syncer *Syncer) (removed int, err error) {
	var errs []error
	touched := map[string]bool{}
	for _, m := range messages {
		path := l.path(m)
		err := os.Remove(path)
		if errors.Is(err, fs.ErrNotExist) && l.find(m) {
			path = l.path(m)
			err = os.Remove(path)
		}
		switch {
		case err == nil:
			removed++
			touched[filepath.Dir(path)] = true
		case !errors.Is(err, fs.ErrNotExist):
			errs = append(errs, err)
		}
		if len(errs) == maxErrors {
			break
		}
	}
	for dir := range touched {
		errs = append(errs, syncer.Sync(dir))
	}
	return removed, errors.Join(errs...)
}

// maxErrors is how many messages may fail before the rest is left.
const maxErrors = 10

// Usage is how many messages a Maildir has and how many octets they take as they are stored.
func (d *Maildir) Usage() (messages, octets int64, err error) {
	for _, sub := range []string{new, cur} {
		err := d.names(sub, func(s string) {
			messages++
			if n := parseName(s); n.stored >= 0 {
				octets += n.stored
			} else if info, err := os.Stat(filepath.Join(d.path, sub, s)); err == nil {
				octets += info.Size()
			}
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return 0, 0, err
		}
	}
	return messages, octets, nil
}
