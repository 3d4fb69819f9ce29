package meter

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// An underway is the file of the messages that are between the ledger and their answer, one in a line of fixed length,
// at a place of its own. Lines are written in place and not synced: they are to outlive the process, not the machine. So
// after a kill it is known which messages were counted and never answered, and which were just being answered. Of these
// it is not known whether the MTA has heard, nor is it of any that are found after the machine went down; they are
// doubtful, and stay counted until the MTA's queue tells ([Recorder.Settle]), or the sender by repeating one that the MTA had
// not accepted.
type underway struct {
	path string

	mu         sync.Mutex
	file       *os.File // nil until it is open
	fence      fence    // the one in the last line
	free       []place
	unanswered []entry
	doubts     []entry
}

// A place is the number of a line. The first line is the header, so that place 0 is nobody's.
type place int

// An entry is a message at its place.
type entry struct {
	place       place
	instance    string
	fingerprint Fingerprint
}

const (
	places     = 4096 // a milter has 2,500 connections at the most
	lineLength = 128
	fenceAt    = (places + 1) * lineLength // behind all places

	// repeats is how long senders try again (RFC 5321, section 4.5.4.1).
	repeats = 5 * 24 * time.Hour
)

// States of a line, its first octet.
const (
	empty     = ' '
	counting  = 'c' // in the ledger, or about to be
	answering = 'a'
	doubtful  = 'd'
)

func newUnderway(path string) *underway {
	return &underway{path: path}
}

// leftover returns, once, the messages that the process before this one counted and did not come to answer. They keep
// their places until they [underway.leave].
func (u *underway) leftover() ([]entry, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := u.open(); err != nil {
		return nil, err
	}
	left := u.unanswered
	u.unanswered = nil
	return left, nil
}

// fenced is the fence of who had the file last, the zero value where it was nobody.
func (u *underway) fenced() (fence, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	err := u.open()
	return u.fence, err
}

// raise writes a fence. Unlike messages it has to outlive the machine: a batch can be in the hands of another one.
func (u *underway) raise(f fence) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.file == nil {
		return ErrClosed
	}
	_, err := u.file.WriteAt(f.line(), fenceAt)
	if err == nil {
		err = u.file.Sync()
	}
	if err != nil {
		return fmt.Errorf("cannot write the file of messages under way: %w", err)
	}
	u.fence = f
	return nil
}

// enter gives a message a place. former is the doubtful message that it repeats, which is doubtful no more.
func (u *underway) enter(m *Message) (at place, former entry, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := u.open(); err != nil {
		return 0, entry{}, err
	}
	if len(u.free) == 0 {
		return 0, entry{}, fmt.Errorf("%d messages are under way, which is too many", places)
	}
	at = u.free[len(u.free)-1]
	l := line(counting, entry{at, m.Instance, m.Fingerprint}, m.At)
	if len(l) != lineLength {
		return 0, entry{}, fmt.Errorf("the instance %q is too long", m.Instance)
	}
	if _, err := u.file.WriteAt(l, int64(at)*lineLength); err != nil {
		return 0, entry{}, fmt.Errorf("cannot write the file of messages under way: %w", err)
	}
	u.free = u.free[:len(u.free)-1]
	if m.Fingerprint != (Fingerprint{}) {
		if i := slices.IndexFunc(u.doubts, func(e entry) bool { return e.fingerprint == m.Fingerprint }); i >= 0 {
			former = u.doubts[i]
			u.doubts = slices.Delete(u.doubts, i, i+1)
		}
	}
	return at, former, nil
}

// answering says that the answer to a message is given next.
func (u *underway) answering(at place) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.mark(at, answering)
}

// leave frees a place; 0 is nobody's.
func (u *underway) leave(at place) {
	if at == 0 {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	_ = u.mark(at, empty) // if that fails, a restart finds a doubtful message more, which nobody repeats
	u.free = append(u.free, at)
}

// doubt puts back what enter took.
func (u *underway) doubt(e entry) {
	if e.place == 0 {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.doubts = append(u.doubts, e)
}

// doubtful are the messages of which it is not known whether the MTA has accepted them.
func (u *underway) doubtful() ([]entry, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	err := u.open()
	return slices.Clone(u.doubts), err
}

// sure ends the doubt about a message, and reports whether there was any still.
func (u *underway) sure(e entry) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	i := slices.Index(u.doubts, e)
	if i >= 0 {
		u.doubts = slices.Delete(u.doubts, i, i+1)
	}
	return i >= 0
}

func (u *underway) close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.file != nil {
		// A child that is just being started holds the lock as well, until it executes its program.
		_ = syscall.Flock(int(u.file.Fd()), syscall.LOCK_UN)
		u.file.Close()
		u.file = nil
	}
}

func (u *underway) mark(at place, state byte) error {
	if u.file == nil {
		return ErrClosed
	}
	_, err := u.file.WriteAt([]byte{state}, int64(at)*lineLength)
	return err
}

// open opens the file where it is not open yet.
func (u *underway) open() error {
	if u.file != nil {
		return nil
	}
	f, err := os.OpenFile(u.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("cannot open the file of messages under way: %w", err)
	}
	if err := u.load(f); err != nil {
		f.Close()
		return fmt.Errorf("cannot use the file of messages under way: %w", err)
	}
	u.file = f
	return nil
}

func (u *underway) load(f *os.File) error {
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("%s is in use by another process: %w", u.path, err)
	}
	before, err := io.ReadAll(io.LimitReader(f, fenceAt+lineLength))
	if err != nil {
		return err
	}
	head, none := header(), line(empty, entry{}, time.Time{})
	lines := bytes.Repeat(none, places+1)
	copy(lines, before)
	u.fence = readFence(before[min(fenceAt, len(before)):])
	survived := bytes.HasPrefix(before, head)
	u.free, u.unanswered, u.doubts = nil, nil, nil
	for at := place(places); at > 0; at-- {
		l := lines[int(at)*lineLength:][:lineLength]
		state, e, when := readLine(l)
		e.place = at
		switch {
		case state == counting && survived:
			u.unanswered = append(u.unanswered, e)
		case state != empty && time.Since(when) < repeats:
			u.doubts = append(u.doubts, e)
			l[0] = doubtful
		default:
			copy(l, none)
			u.free = append(u.free, at)
		}
	}
	// What was found under another header becomes doubtful before the header says that it is of this boot.
	if _, err := f.WriteAt(lines[lineLength:], lineLength); err != nil {
		return err
	}
	_, err = f.WriteAt(head, 0)
	return err
}

// header names the boot of the machine, because what was written last before it went down may not be in the file.
func header() []byte {
	return fmt.Appendf(nil, "%-*s\n", lineLength-1, "mailbag: messages under way, boot "+bootID())
}

// bootID is another one each time where it cannot be read.
func bootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return fmt.Sprint(time.Now().UnixNano())
	}
	return strings.TrimSpace(string(id))
}

// line is a message's: its state, when it came, its fingerprint and its instance.
func line(state byte, e entry, when time.Time) []byte {
	if state == empty {
		return fmt.Appendf(nil, "%-*s\n", lineLength-1, "")
	}
	return fmt.Appendf(nil, "%-*s\n", lineLength-1, fmt.Sprintf("%c %d %x %s", state, when.UnixMilli(), e.fingerprint, e.instance))
}

// readLine reads what line writes; what is no message's is empty.
func readLine(l []byte) (state byte, e entry, when time.Time) {
	f := strings.Fields(string(l))
	if l[0] == empty || len(f) != 4 || len(f[0]) != 1 || !strings.Contains("cad", f[0]) {
		return empty, entry{}, time.Time{}
	}
	at, err := strconv.ParseInt(f[1], 10, 64)
	digest, bad := hex.DecodeString(f[2])
	if err != nil || bad != nil || len(digest) != len(e.fingerprint) {
		return empty, entry{}, time.Time{}
	}
	e.instance = f[3]
	copy(e.fingerprint[:], digest)
	return f[0][0], e, time.UnixMilli(at)
}

// underwayIn are the instances in the file at path, whoever has it open.
func underwayIn(path string) (map[string]bool, error) {
	lines, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	instances := map[string]bool{}
	for len(lines) >= lineLength {
		if state, e, _ := readLine(lines[:lineLength]); state != empty {
			instances[e.instance] = true
		}
		lines = lines[lineLength:]
	}
	return instances, err
}
