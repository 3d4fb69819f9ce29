// Package powercut tests promises that something is on the disk when it is answered: no test that looks at files
// can, since the kernel shows what was written whether or not it would outlive the machine.
//
// A test hands [Watch] what is to be done. That is done in a process of its own below strace(1), and from the system
// calls follows what a disk would have if the power failed at any moment ([Trace.At]). That disk is as forgetful as
// POSIX lets it be: it has the content of a file after an fsync of that file, and a name in a directory, new, changed
// or removed, after an fsync of that directory. What is written through a memory map is not seen, nor is a link.
package powercut

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// variable has the directory of a test that is being watched.
const variable = "POWERCUT_DIR"

// Watch has something done in a directory that is empty and on the disk, and returns what was seen of it. Where strace is
// missing or not permitted, the test is skipped.
func Watch(t *testing.T, act func(dir string)) *Trace {
	t.Helper()
	if dir := os.Getenv(variable); dir != "" {
		act(dir)
		t.SkipNow() // the rest of the test is for who watches
	}
	if err := permitted(); err != "" {
		t.Skipf("strace, which make deps installs, cannot watch processes here: %s", err)
	}
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(t.TempDir(), "trace")
	cmd := exec.Command("strace", "--follow-forks", "--seccomp-bpf", "--decode-fds=path", "--quiet=all", "--string-limit=65536",
		"--trace=?"+strings.Join(calls, ",?"), "--output="+log, // ?: where the machine has it
		program, "-test.run=^"+t.Name()+"$", "-test.count=1", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), variable+"="+root)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("what is watched failed: %v\n%s", err, out)
	}
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	return &Trace{t: t, root: root, calls: read(string(text))}
}

// permitted tries strace, and returns what it says where it cannot.
var permitted = sync.OnceValue(func() string {
	out, err := exec.Command("strace", "--follow-forks", "--output=/dev/null", "true").CombinedOutput()
	if err != nil {
		return string(bytes.TrimSpace(append(out, " "+err.Error()...)))
	}
	return ""
})

// A Trace is what was done.
type Trace struct {
	t     *testing.T
	root  string
	calls []call // as they ended
}

// At is the disk at the moment in which a process began to say the last of these words to a pipe or a socket, after
// it or its peer had said those before.
func (w *Trace) At(said ...string) *Disk {
	w.t.Helper()
	begun := w.moment(said)
	d := &Disk{root: w.root, now: map[string]*file{}, kept: map[string]*file{}, changed: map[string]int{}}
	for _, c := range w.calls {
		if c.end < begun {
			d.apply(c)
		}
	}
	return d
}

// moment is the line of the trace at which the last of the words were begun to be said.
func (w *Trace) moment(said []string) int {
	w.t.Helper()
	begun := 0
	inOrder := slices.SortedFunc(slices.Values(w.calls), func(a, b call) int { return a.begin - b.begin })
	for _, c := range inOrder {
		rest, speaks := c.speech()
		for speaks && len(said) > 0 {
			_, after, found := strings.Cut(rest, said[0])
			if !found {
				break
			}
			begun, rest, said = c.begin, after, said[1:]
		}
	}
	if len(said) > 0 {
		w.t.Fatalf("%q was never said", said[0])
	}
	return begun
}
