package postfix

import (
	"slices"
	"strings"
)

// A word is one element of a list in main.cf, with its place in the text.
type word struct {
	text       string
	start, end int
}

// words splits a list as Postfix does: at commas and white space outside of braces. An unclosed brace goes on to the
// end of the text.
func words(list string) []word {
	var out []word
	depth, start := 0, -1
	for i := 0; i < len(list); i++ {
		separator := depth == 0 && strings.IndexByte(", \t\r\n", list[i]) >= 0
		switch list[i] {
		case '{':
			depth++
		case '}':
			depth = max(0, depth-1)
		}
		switch {
		case separator && start >= 0:
			out = append(out, word{list[start:i], start, i})
			start = -1
		case !separator && start < 0:
			start = i
		}
	}
	if start >= 0 {
		out = append(out, word{list[start:], start, len(list)})
	}
	return out
}

func texts(list string) []string {
	var out []string
	for _, w := range words(list) {
		out = append(out, w.text)
	}
	return out
}

// find returns where the words of entry stand one after the other in list, or -1.
func find(list []word, entry []string) int {
	for i := 0; i+len(entry) <= len(list); i++ {
		if slices.EqualFunc(list[i:i+len(entry)], entry, func(w word, s string) bool { return w.text == s }) {
			return i
		}
	}
	return -1
}

// cut removes every occurrence of entry from list, and the separators that it brought. The rest stays as it stands.
func cut(list, entry string) string {
	want := texts(entry)
	for {
		all := words(list)
		i := find(all, want)
		if i < 0 {
			return list
		}
		last := i + len(want) - 1
		switch {
		case last+1 < len(all) && i == 0:
			list = list[all[last+1].start:]
		case i == 0:
			list = ""
		default: // the separator before it was ours
			list = list[:all[i-1].end] + list[all[last].end:]
		}
	}
}

// insert puts entry before the word of list that has this index, or at the end.
func insert(list, entry string, at int) string {
	all := words(list)
	switch {
	case len(all) == 0:
		return entry
	case at == 0:
		return entry + ", " + list[all[0].start:]
	case at == len(all):
		return list[:all[at-1].end] + ", " + entry
	default:
		return list[:all[at-1].end] + ", " + entry + list[all[at-1].end:]
	}
}

// behind puts entry at the end of list.
func behind(list, entry string) string { return insert(list, entry, len(words(list))) }

// before puts entry at the start of list.
func before(list, entry string) string { return insert(list, entry, 0) }
