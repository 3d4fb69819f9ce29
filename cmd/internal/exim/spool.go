package exim

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"mailbag/cmd/internal/mta"
	"mailbag/policy/routes"
)

// heldQueue is the named queue of what is held for accounts. The default one has no name.
const heldQueue = routes.HeldQueue

// queues are those that are ours to look at, the one with held mail first.
var queues = []string{heldQueue, ""}

// A spool is Exim's spool_directory.
type spool string

// input is the directory of a queue's messages. With split_spool_directory they are in directories below it, each named after the sixth
// character of their IDs; from before a change of that setting there may be some in the other place.
func (s spool) input(queue string) string { return filepath.Join(string(s), queue, "input") }

// places are the directories in which a message of a queue may be.
func (s spool) places(queue, id string) [2]string {
	input := s.input(queue)
	return [2]string{filepath.Join(input, id[5:6]), input}
}

// find returns the queue that has a message, and the directory. One that moves is linked in its new queue before it goes from its
// former one, so the first queue is looked at once more.
func (s spool) find(id string) (queue, dir string, ok bool) {
	for _, queue := range append(slices.Clone(queues), queues[0]) {
		for _, dir := range s.places(queue, id) {
			if _, err := os.Lstat(filepath.Join(dir, id+"-H")); err == nil {
				return queue, dir, true
			}
		}
	}
	return "", "", false
}

// errStop ends a walk whose caller has enough.
var errStop = errors.New("enough")

// files calls each for the files of a queue that are named after a message's ID with this suffix. Some hundred names are in memory at a time.
func (s spool) files(ctx context.Context, queue, suffix string, each func(dir, id string) error) error {
	input := s.input(queue)
	if _, err := os.Lstat(input); errors.Is(err, fs.ErrNotExist) {
		_, err := os.Lstat(string(s))
		return err // Exim makes what is in it for the first message of a queue
	}
	return names(ctx, input, func(name string) error {
		if len(name) == 1 && base62(name[0]) {
			dir := filepath.Join(input, name)
			err := names(ctx, dir, func(name string) error { return ours(dir, name, suffix, each) })
			if errors.Is(err, fs.ErrNotExist) {
				return nil // exim_tidy or the operator removed an empty one
			}
			return err
		}
		return ours(input, name, suffix, each)
	})
}

func ours(dir, name, suffix string, each func(dir, id string) error) error {
	if id, is := strings.CutSuffix(name, suffix); is && IsID(id) {
		return each(dir, id)
	}
	return nil
}

// names calls each for the names in a directory.
func names(ctx context.Context, dir string, each func(name string) error) error {
	d, err := os.OpenFile(dir, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer d.Close()
	for {
		some, err := d.Readdirnames(256)
		for _, name := range some {
			if err := each(name); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("%w: %w", mta.ErrTruncated, err)
		case ctx.Err() != nil:
			return fmt.Errorf("%w: %w", mta.ErrTruncated, ctx.Err())
		}
	}
}

// A reader reads messages of a spool; it has the buffers.
type reader struct {
	spool
	header, other *bufio.Reader
}

func (s spool) reader() *reader {
	return &reader{s, bufio.NewReaderSize(nil, maxLine), bufio.NewReaderSize(nil, 4<<10)}
}

// entry reads a message. What is gone by then is fs.ErrNotExist, and what is no message errForeign.
//
// Its size is what Exim calls $message_size: the header fields, a blank line and the body, with line ends of one octet, unless
// the message was taken off the wire as it is (spool_wireformat), which has CRLF in the body.
func (r *reader) entry(queue, dir, id string) (mta.Entry, error) {
	name := filepath.Join(dir, id)
	h, err := readFile(r.header, name+"-H", func(b *bufio.Reader) (header, error) { return readHeader(b, id) })
	if err != nil {
		return mta.Entry{}, err
	}
	body, err := os.Lstat(name + "-D")
	if err != nil {
		return mta.Entry{}, err
	}
	done, err := readFile(r.other, name+"-J", func(b *bufio.Reader) (map[string]bool, error) { return readJournal(b, h.delivered) })
	switch {
	case errors.Is(err, fs.ErrNotExist):
		done = h.delivered
	case err != nil:
		return mta.Entry{}, err
	}
	e := mta.Entry{ID: id, Queue: "queued", Arrival: h.arrival, Size: h.size + max(0, body.Size()-int64(len(id+"-D\n"))), Sender: h.sender, Uncounted: h.uncounted}
	switch {
	case h.frozen:
		e.Queue, e.OnHold = "frozen", true
	case queue == heldQueue:
		e.Queue = "held"
	}
	e.Held = queue == heldQueue
	for _, address := range h.listed {
		// The journal has the domain in small letters; when Exim takes it over into the -H file, it adds the address as it is listed.
		at := strings.LastIndexByte(address, '@') + 1
		if !done[address] && !done[address[:at]+strings.ToLower(address[at:])] {
			e.Recipients = append(e.Recipients, mta.Recipient{Address: address})
		}
	}
	if h.tried {
		r.reasons(queue, id, e.Recipients)
	}
	return e, nil
}

// readFile opens a file and reads it.
func readFile[T any](b *bufio.Reader, name string, read func(*bufio.Reader) (T, error)) (T, error) {
	var none T
	f, err := open(name)
	if err != nil {
		return none, err
	}
	defer f.Close()
	b.Reset(f)
	return read(b)
}

// open opens a file for reading. Links, and what could keep its reader waiting, are foreign: the spool is Exim's user's, and a reader may
// be root.
func open(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, syscall.ELOOP), errors.Is(err, syscall.ENXIO):
		return nil, fmt.Errorf("%w: %s is no regular file", errForeign, filepath.Base(name))
	case err != nil:
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%w: %s is no regular file", errForeign, filepath.Base(name))
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// unreadable reports whether an error is about this one message. Any other, such as too many open files, may be so with all of
// them, and what is not read then is not gone.
func unreadable(err error) bool {
	return errors.Is(err, errForeign) || errors.Is(err, fs.ErrPermission)
}

// logEnd is how much of the end of a message's log is looked at for reasons, in octets.
const logEnd = 4 << 10

// reasons finds in the end of a message's log why recipients wait. There is no log where message_logs is off.
func (r *reader) reasons(queue, id string, waiting []mta.Recipient) {
	if len(waiting) == 0 {
		return
	}
	log := filepath.Join(string(r.spool), queue, "msglog")
	f, err := open(filepath.Join(log, id[5:6], id))
	if err != nil {
		if f, err = open(filepath.Join(log, id)); err != nil {
			return
		}
	}
	defer f.Close()
	if end, err := f.Seek(0, io.SeekEnd); err != nil || end > logEnd {
		_, _ = f.Seek(-logEnd, io.SeekEnd)
	} else {
		_, _ = f.Seek(0, io.SeekStart)
	}
	text, err := io.ReadAll(io.LimitReader(f, logEnd))
	if err != nil {
		return
	}
	reasons := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if address, reason, is := deferral(strings.TrimRight(line, "\n")); is {
			reasons[address] = reason
		}
	}
	for i := range waiting {
		waiting[i].Reason = reasons[waiting[i].Address]
	}
}

// deferral reads a line of a message's log, such as
//
//	2026-11-26 04:52:57 anna@example.org R=router T=transport defer (-1): Failed to connect
func deferral(line string) (address, reason string, is bool) {
	before, reason, is := strings.Cut(line, " defer (")
	if _, text, more := strings.Cut(reason, "): "); more {
		reason = text
	} else {
		reason = strings.TrimSuffix(reason, ")")
	}
	// The date, the time, where log_selector has it the zone, and the address; an original one may follow in angle brackets.
	for range 2 {
		_, before, _ = strings.Cut(before, " ")
	}
	if zone := strings.TrimLeft(before, "+-"); zone != before {
		_, before, _ = strings.Cut(zone, " ")
	}
	address, _, _ = strings.Cut(before, " ")
	return address, reason, is && address != ""
}

// youngest is how old the file of an unfinished message is at least: one that has just been made may not be locked yet.
const youngest = 10 * time.Second

// unfinished reports whether a -D file is what an Exim left that was killed: no -H file of the message anywhere, and nobody who
// works on it. Exim has a lock on the first line of the -D file from its making on.
func (s spool) unfinished(dir, id string) bool {
	if _, err := os.Lstat(filepath.Join(dir, id+"-H")); err == nil {
		return false
	}
	f, err := os.OpenFile(filepath.Join(dir, id+"-D"), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	status, err := f.Stat()
	if err != nil || !status.Mode().IsRegular() || time.Since(status.ModTime()) < youngest {
		return false
	}
	lock := syscall.Flock_t{Type: syscall.F_WRLCK, Whence: io.SeekStart, Len: int64(len(id + "-D\n"))}
	if syscall.FcntlFlock(f.Fd(), syscall.F_GETLK, &lock) != nil || lock.Type != syscall.F_UNLCK {
		return false
	}
	// What came to an end meanwhile, or moved to another queue, has its -H file now, or has lost the -D file.
	if _, _, found := s.find(id); found {
		return false
	}
	_, err = os.Lstat(filepath.Join(dir, id+"-D"))
	return err == nil
}
