package powercut

import (
	"regexp"
	"slices"
	"strings"
)

// calls are those that change files, bring them to the disk, or speak to a peer.
var calls = []string{"open", "openat", "creat", "mkdir", "mkdirat", "rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir",
	"write", "writev", "pwrite64", "pwritev", "truncate", "ftruncate", "copy_file_range", "sendfile", "splice",
	"sendto", "sendmsg", "fsync", "fdatasync"}

// A call is one system call that succeeded.
type call struct {
	begin, end int // lines of the trace; between them other threads went on
	name, args string
	files      []string // what its file descriptors are, in the order of the arguments
	texts      []string // arguments that are strings, escaped as strace(1) does
}

var (
	threadsLine = regexp.MustCompile(`^(\d+) +(.*)$`)
	resumed     = regexp.MustCompile(`^<\.\.\. \w+ resumed>`)
	finished    = regexp.MustCompile(`^(\w+)\((.*)\) += (\d+).*$`)
	descriptor  = regexp.MustCompile(`\b\d+<([^>]*)>`)
	text        = regexp.MustCompile(`"((?:[^"\\]|\\.)*)"`)
)

// read reads the output of strace.
func read(trace string) []call {
	type half struct {
		begin int
		text  string
	}
	begun := map[string]half{} // by thread
	var all []call
	for i, line := range strings.Split(trace, "\n") {
		m := threadsLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		thread, rest, begin := m[1], m[2], i
		if first, ok := strings.CutSuffix(rest, " <unfinished ...>"); ok {
			begun[thread] = half{i, first}
			continue
		}
		if r := resumed.FindString(rest); r != "" {
			begin, rest = begun[thread].begin, begun[thread].text+rest[len(r):]
		}
		if m = finished.FindStringSubmatch(rest); m == nil {
			continue // a signal, an exit, or a call that failed
		}
		c := call{begin: begin, end: i, name: m[1], args: text.ReplaceAllString(m[2], `""`)}
		for _, t := range text.FindAllStringSubmatch(m[2], -1) {
			c.texts = append(c.texts, t[1])
		}
		for _, f := range descriptor.FindAllStringSubmatch(c.args, -1) {
			c.files = append(c.files, f[1])
		}
		all = append(all, c)
	}
	return all
}

// speech is what the call writes to a pipe or a socket.
func (c call) speech() (said string, speaks bool) {
	speaks = slices.Contains([]string{"write", "writev", "sendto", "sendmsg"}, c.name) &&
		len(c.files) > 0 && !strings.HasPrefix(c.files[0], "/")
	return strings.Join(c.texts, ""), speaks
}
