package maildir

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// A Message is one file in new or cur.
type Message struct {
	name   string
	came   uint64 // as its name says, seconds since 1970
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
// do to its flags: 1 to 70 printable characters (RFC 1939, section 7).
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
	l := &List{dir: d}
	// new before cur: a message that another program moves meanwhile is seen twice rather than not at all.
	for _, sub := range []string{new, cur} {
		names, err := d.names(sub)
		if err != nil {
			return nil, err
		}
		l.Messages = slices.Grow(l.Messages, len(names))
		for _, s := range names {
			n := parseName(s)
			l.Messages = append(l.Messages, Message{
				name: s, came: seconds(s), unique: uint16(n.unique), seen: sub == cur, size: n.sent})
		}
	}
	slices.SortFunc(l.Messages, inOrder)
	l.Messages = slices.CompactFunc(l.Messages, func(a, b Message) bool { return a.base() == b.base() })
	for i := 1; i < len(l.Messages); i++ {
		a, b := &l.Messages[i-1], &l.Messages[i]
		if a.name[:a.unique] == b.name[:b.unique] {
			a.twin, b.twin = true, true
		}
	}
	l.measure()
	return l, nil
}

// names are the files in new or cur; those that begin with a dot are none (maildir(5)).
func (d *Maildir) names(sub string) ([]string, error) {
	dir, err := os.Open(filepath.Join(d.path, sub))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	return slices.DeleteFunc(names, func(s string) bool { return s[0] == '.' }), err
}

// inOrder orders messages by the time in their names, then by what identifies them. Of one that was seen
// twice that in cur is first.
func inOrder(a, b Message) int {
	if c := cmp.Compare(a.came, b.came); c != 0 {
		return c
	}
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

func (l *List) open(m *Message) (int, error) {
	path := l.path(m)
	for {
		fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return -1, &fs.PathError{Op: "open", Path: path, Err: err}
		default:
			return fd, nil
		}
	}
}

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
		names, err := l.dir.names(sub)
		if err != nil {
			return false
		}
		for _, s := range names {
			there := Message{name: s, seen: sub == cur}
			where[there.base()] = there
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
		names, err := d.names(sub)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, 0, err
		}
		for _, s := range names {
			messages++
			if n := parseName(s); n.stored >= 0 {
				octets += n.stored
			} else if info, err := os.Stat(filepath.Join(d.path, sub, s)); err == nil {
				octets += info.Size()
			}
		}
	}
	return messages, octets, nil
}
