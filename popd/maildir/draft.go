package maildir

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
)

// A Draft is a message that is being written, in tmp, where nobody looks.
type Draft struct {
	dir    *Maildir
	file   *os.File
	unique string

	buffer *[]byte // not written yet
	cr     bool    // the latest octet was a CR that waits for what follows
	size   meter
	shared meter // the size at Shared
	err    error // sticks
}

// draftBuffer is what is written at a time.
const draftBuffer = 64 << 10

var buffers = sync.Pool{New: func() any {
	b := make([]byte, 0, draftBuffer)
	return &b
}}

// Draft begins a message. The Maildir must be there; the error is fs.ErrNotExist where it is not.
func (d *Maildir) Draft(names *Names) (*Draft, error) {
	unique := names.next()
	file, err := os.OpenFile(filepath.Join(d.path, tmp, unique), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	return &Draft{dir: d, file: file, unique: unique, buffer: buffers.Get().(*[]byte)}, nil
}

// Name is what identifies the message, and is its unique-id.
func (w *Draft) Name() string { return uniqueID(w.unique) }

// Write takes a message as it is sent, with CRLF line ends.
func (w *Draft) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 && w.err == nil {
		if w.cr && p[0] != '\n' {
			w.put([]byte{'\r'})
		}
		w.cr = false
		head, rest, cr := bytes.Cut(p, []byte{'\r'})
		w.put(head)
		p, w.cr = rest, cr
	}
	if w.err != nil {
		return 0, w.err
	}
	return n, nil
}

// put stores octets and counts what they are when sent.
func (w *Draft) put(p []byte) {
	w.size.add(p)
	for len(p) > 0 && w.err == nil {
		head := p[:min(cap(*w.buffer)-len(*w.buffer), len(p))]
		*w.buffer = append(*w.buffer, head...)
		p = p[len(head):]
		if len(*w.buffer) == cap(*w.buffer) {
			w.flush()
		}
	}
}

func (w *Draft) flush() {
	if w.err == nil {
		_, w.err = w.file.Write(*w.buffer)
	}
	*w.buffer = (*w.buffer)[:0]
}

// end writes what waits.
func (w *Draft) end() error {
	if w.cr {
		w.cr = false
		w.put([]byte{'\r'})
	}
	w.flush()
	return w.err
}

// Shared says that what follows is the same in other drafts, which take it by [Draft.Append]. A line begins here.
func (w *Draft) Shared() { w.shared = w.size }

// Append continues the draft with what the other one has from [Draft.Shared] on, and is not added to after that.
// The kernel copies.
func (w *Draft) Append(from *Draft) error {
	if err := errors.Join(from.end(), w.end()); err != nil {
		return err
	}
	rest := from.size.stored - from.shared.stored
	_, err := from.file.Seek(from.shared.stored, io.SeekStart)
	if err == nil {
		_, err = io.CopyN(w.file, from.file, rest)
	}
	if err != nil {
		w.err = err
		return err
	}
	w.size.stored += rest
	w.size.sent += from.size.sent - from.shared.sent
	w.size.last = from.size.last
	return nil
}

// Stored is how many octets the draft has so far.
func (w *Draft) Stored() int64 { return w.size.stored }

// Deliver puts the message into new. It is durable when Deliver returns nil; otherwise it is not there.
func (w *Draft) Deliver(syncer *Syncer) error {
	defer w.release()
	err := w.end()
	if err == nil {
		err = w.file.Sync()
	}
	if closeErr := w.file.Close(); err == nil {
		err = closeErr
	}
	from := filepath.Join(w.dir.path, tmp, w.unique)
	if err != nil {
		os.Remove(from)
		return err
	}
	to := filepath.Join(w.dir.path, new, fmt.Sprintf("%s,S=%d,W=%d", w.unique, w.size.stored, w.size.total()))
	if err := os.Rename(from, to); err != nil {
		os.Remove(from)
		return err
	}
	if err := syncer.Sync(filepath.Join(w.dir.path, new)); err != nil {
		// The sender keeps it and comes again.
		os.Remove(to)
		return err
	}
	return nil
}

// Discard takes the draft away. After Deliver, or of no draft, it does nothing.
func (w *Draft) Discard() {
	if w == nil || w.buffer == nil {
		return
	}
	w.release()
	w.file.Close()
	os.Remove(filepath.Join(w.dir.path, tmp, w.unique))
}

func (w *Draft) release() {
	*w.buffer = (*w.buffer)[:0]
	buffers.Put(w.buffer)
	w.buffer = nil
}
