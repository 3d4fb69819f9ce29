package meter

import (
	"slices"
	"strings"
)

// A list is sorted lines, each with its line feed. So a million addresses are one string and nothing else: no pointers
// that take their room, and that the garbage collector follows.
type list string

// newList makes a list of lines that may be in another order; no line is there twice.
func newList(text string) list {
	last := ""
	for line := range strings.Lines(text) {
		if line = line[:len(line)-1]; line < last {
			lines := list(text).lines()
			slices.Sort(lines)
			return list(strings.Join(lines, "\n") + "\n")
		} else {
			last = line
		}
	}
	return list(text)
}

// has reports whether a line is in the list.
func (l list) has(line string) bool {
	from, to := 0, len(l)
	for from < to {
		middle := (from + to) / 2
		begin := from + strings.LastIndexByte(string(l[from:middle]), '\n') + 1
		end := middle + strings.IndexByte(string(l[middle:]), '\n')
		switch strings.Compare(string(l[begin:end]), line) {
		case 0:
			return true
		case -1:
			from = end + 1
		default:
			to = begin
		}
	}
	return false
}

// lines are the lines by themselves; they share the list's memory.
func (l list) lines() []string {
	if l == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(l), "\n"), "\n")
}
