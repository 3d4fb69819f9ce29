package maildir

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// sizesFile is where sizes are kept that were computed: a line for each message, its size as sent and its
// name without flags. The caller of List has the Maildir locked.
const sizesFile = "mailbag-sizes"

// measure fills in the sizes that names do not tell.
func (l *List) measure() {
	var kept *sizes
	computed, unnamed := false, 0 // unnamed have no size in their names
	for i := range l.Messages {
		m := &l.Messages[i]
		if m.size >= 0 {
			continue
		}
		if kept == nil {
			kept = l.dir.sizes()
		}
		unnamed++
		var known bool
		if m.size, known = kept.of(m.base()); known {
			continue
		}
		if m.size, m.unread = l.compute(m); !m.unread {
			computed = true
		}
	}
	if computed || kept != nil && unnamed != len(kept.lines) {
		l.Unkept = l.keep()
	}
}

// compute reads a message for its size. One that cannot be read is taken for empty: who opens it hears why.
func (l *List) compute(m *Message) (size int64, failed bool) {
	fd, err := l.Open(m)
	if err != nil {
		return 0, true
	}
	defer syscall.Close(fd)
	buffer := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	var sent meter
	for {
		n, err := syscall.Read(fd, (*buffer)[:cap(*buffer)])
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return 0, true
		case n == 0:
			return sent.total(), false
		default:
			sent.add((*buffer)[:n])
		}
	}
}

// sizes are those that were kept, in the order of the list that they were kept of.
type sizes struct {
	lines []size
	next  int            // the line after the one that was asked for last
	index map[string]int // of all lines; nil while nobody asks out of order
}

type size struct {
	base   string
	octets int64
}

// sizes reads what was kept. Whatever is wrong with it is computed again.
func (d *Maildir) sizes() *sizes {
	text, err := os.ReadFile(filepath.Join(d.path, sizesFile))
	if err != nil {
		return &sizes{}
	}
	return readSizes(string(text))
}

func readSizes(text string) *sizes {
	s := &sizes{}
	for line := range strings.SplitSeq(text, "\n") {
		number, base, _ := strings.Cut(line, " ")
		if octets, err := strconv.ParseInt(number, 10, 64); err == nil && octets >= 0 && base != "" {
			s.lines = append(s.lines, size{base, octets})
		}
	}
	return s
}

// of returns the size of a message. Asking in the order in which they were kept is fastest.
func (s *sizes) of(base string) (octets int64, known bool) {
	if s.next >= len(s.lines) || s.lines[s.next].base != base {
		if s.index == nil {
			s.index = make(map[string]int, len(s.lines))
			for i, line := range s.lines {
				s.index[line.base] = i
			}
		}
		i, found := s.index[base]
		if !found {
			return 0, false
		}
		s.next = i
	}
	s.next++
	return s.lines[s.next-1].octets, true
}

// keep writes the sizes that names do not tell, in place of the former ones.
func (l *List) keep() error {
	var text bytes.Buffer
	for i := range l.Messages {
		m := &l.Messages[i]
		if base := m.base(); parseName(m.name).sent < 0 && !m.unread && !strings.Contains(base, "\n") {
			text.WriteString(strconv.FormatInt(m.size, 10))
			text.WriteByte(' ')
			text.WriteString(base)
			text.WriteByte('\n')
		}
	}
	path := filepath.Join(l.dir.path, sizesFile)
	if text.Len() == 0 {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	file, err := os.CreateTemp(filepath.Join(l.dir.path, tmp), sizesFile)
	if err != nil {
		return err
	}
	_, err = file.Write(text.Bytes())
	err = errors.Join(err, file.Sync(), file.Close())
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		os.Remove(file.Name())
	}
	return err
}
