package eximtest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	postfixtest "mailbag/testdata/postfix"
)

// held is the named queue in which mailbag keeps what it holds; Exim's own has no name.
const held = "mailbag"

var queues = []string{"", held}

// Queue lists what waits in the queues of the instance. An entry's queue is "held", "deferred" for a message that was
// tried in vain, or "active".
func (in *Instance) Queue() ([]postfixtest.Entry, error) {
	var all []postfixtest.Entry
	for _, queue := range queues {
		list, err := in.list(queue)
		if err != nil {
			return nil, err
		}
		all = append(all, list...)
	}
	return all, nil
}

func (in *Instance) list(queue string) ([]postfixtest.Entry, error) {
	// Recipients that have the message already are left out, and the order is that of the directory.
	text, err := in.run("/usr/sbin/exim4", "-qG"+queue, "-bpru")
	if err != nil {
		return nil, err
	}
	return in.parse(queue, text)
}

// A line for each message has its age, size, ID and sender, and *** frozen *** where it is; its recipients follow on lines
// of their own.
var message = regexp.MustCompile(`^\s*(\S+)\s+(\S+)\s+([0-9A-Za-z]+-[0-9A-Za-z]+-[0-9A-Za-z]+) <([^>]*)>`)

func (in *Instance) parse(queue, text string) ([]postfixtest.Entry, error) {
	var all []postfixtest.Entry
	for line := range strings.Lines(text) {
		if m := message.FindStringSubmatch(line); m != nil {
			all = append(all, postfixtest.Entry{Queue: in.state(queue, m[3]), ID: m[3], Sender: m[4]})
		} else if to := strings.TrimSpace(line); to != "" && len(all) > 0 {
			e := &all[len(all)-1]
			e.Recipients = append(e.Recipients, postfixtest.Recipient{Address: to, DelayReason: in.reason(queue, e.ID, to)})
		} else if to != "" {
			return nil, fmt.Errorf("cannot read the listing of Exim's queue: %q", line)
		}
	}
	for i, e := range all {
		if st, err := os.Stat(in.file(queue, "input", e.ID+"-D")); err == nil {
			all[i].Size = st.Size()
		}
	}
	return all, nil
}

func (in *Instance) state(queue, id string) string {
	switch {
	case queue == held:
		return "held"
	case strings.Contains(in.history(queue, id), " defer (") && !locked(in.file(queue, "input", id+"-D")):
		return "deferred"
	}
	return "active"
}

// reason is why a recipient waits, as the last attempt wrote it into the message's own log.
func (in *Instance) reason(queue, id, to string) string {
	reason := ""
	for line := range strings.Lines(in.history(queue, id)) {
		if _, attempt, found := strings.Cut(line, " "+to+" "); found {
			_, reason, _ = strings.Cut(strings.TrimSpace(attempt), " defer ")
		}
	}
	return reason
}

func (in *Instance) history(queue, id string) string {
	text, _ := os.ReadFile(in.file(queue, "msglog", id)) // not there before the first attempt
	return string(text)
}

// file is one of a message's files, with the spool directory split or not.
func (in *Instance) file(queue, kind, name string) string {
	dir := in.Root(filepath.Join("/var/spool/exim4", queue, kind))
	if split := filepath.Join(dir, name[5:6], name); exists(split) {
		return split
	}
	return filepath.Join(dir, name)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// Waiting counts the messages that are held or deferred. It looks at files, for a listing takes long with many.
func (in *Instance) Waiting() int {
	n := 0
	for _, queue := range queues {
		_ = filepath.WalkDir(in.Root(filepath.Join("/var/spool/exim4", queue, "input")), func(path string, _ fs.DirEntry, err error) error {
			// Directories and files come and go.
			if id, ok := strings.CutSuffix(filepath.Base(path), "-H"); err == nil && ok && in.state(queue, id) != "active" {
				n++
			}
			return nil
		})
	}
	return n
}

// locked reports whether a process of Exim's has the message whose -D file this is.
func locked(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false // gone
	}
	defer f.Close()
	lock := syscall.Flock_t{Type: syscall.F_RDLCK}
	return syscall.FcntlFlock(f.Fd(), syscall.F_GETLK, &lock) == nil && lock.Type != syscall.F_UNLCK
}

// Busy reports whether a message is under way: whether Exim has a process besides the daemon.
func (in *Instance) Busy() bool {
	in.mu.Lock()
	d := in.daemon
	in.mu.Unlock()
	for _, pid := range in.root.processes() {
		// By whatever name it was started: the one that takes a program's mail is called sendmail, and so is what it leaves behind.
		program, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		if err == nil && filepath.Base(program) == "exim4" && (d == nil || pid != d.cmd.Process.Pid) {
			return true
		}
	}
	return false
}

// FlushQueue makes Exim try every message now, those too that mailbag holds, and waits until it has.
func (in *Instance) FlushQueue() error {
	var errs []error
	for _, queue := range queues {
		_, err := in.run("/usr/sbin/exim4", "-qffG"+queue)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// WaitQueue waits until the queue is as holds wants it.
func (in *Instance) WaitQueue(what string, holds func([]postfixtest.Entry) bool) error {
	var last []postfixtest.Entry
	var failed error
	err := postfixtest.Wait(what, func() bool {
		last, failed = in.Queue()
		return failed == nil && holds(last)
	})
	if err != nil {
		return errors.Join(fmt.Errorf("%w; in the queue: %+v", err, last), failed)
	}
	return nil
}
