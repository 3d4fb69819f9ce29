package maildir

import (
	"bufio"
	"bytes"
	"errors"
	"io"
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
	var kept map[string]int64
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
		if size, known := kept[m.base()]; known {
			m.size = size
			continue
		}
		if m.size, m.unread = l.compute(m); !m.unread {
			computed = true
		}
	}
	if computed || unnamed != len(kept) {
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

// sizes reads what was kept. Whatever is wrong with it is computed again.
func (d *Maildir) sizes() map[string]int64 {
	file, err := os.Open(filepath.Join(d.path, sizesFile))
	if err != nil {
		return map[string]int64{}
	}
	defer file.Close()
	return readSizes(file)
}

func readSizes(r io.Reader) map[string]int64 {
	sizes := map[string]int64{}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		number, base, _ := strings.Cut(lines.Text(), " ")
		if size, err := strconv.ParseInt(number, 10, 64); err == nil && size >= 0 && base != "" {
			sizes[base] = size
		}
	}
	return sizes
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
