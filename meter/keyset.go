package meter

import (
	"hash/maphash"
	"slices"
	"strings"
)

// A keySet is what is asked of a list: whether a line is in it. Of each it has eight octets, where the lines of a
// million recipients take four times as much. Another line than those is taken for one of them by one chance in 2^64
// for each; no peer can look for such a line, because nobody knows the seed, which is another one in each process.
type keySet []uint64 // sorted

var keySeed = maphash.MakeSeed()

// newKeySet makes the set of lines that each have their line feed.
func newKeySet(text string) keySet {
	s := make(keySet, 0, strings.Count(text, "\n"))
	for line := range strings.Lines(text) {
		s = append(s, maphash.String(keySeed, line[:len(line)-1]))
	}
	slices.Sort(s)
	return s
}

func (s keySet) has(line string) bool {
	_, found := slices.BinarySearch(s, maphash.String(keySeed, line))
	return found
}
