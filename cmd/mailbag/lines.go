package main

import (
	"strings"

	"github.com/rivo/uniseg"
)

// sheetWidth is how long a line of a sheet is where its words allow it, in a terminal's columns.
const sheetWidth = 80

// wrapped breaks a text between words into lines of the sheet's width. The first begins with one prefix, the others with
// another. A longer word has a line of its own.
func wrapped(first, others, text string) string {
	var lines strings.Builder
	line, empty := first, true
	for word := range strings.SplitSeq(text, " ") {
		if !empty && uniseg.StringWidth(line)+1+uniseg.StringWidth(word) > sheetWidth {
			lines.WriteString(line + "\n")
			line, empty = others, true
		}
		if !empty {
			line += " "
		}
		line, empty = line+word, false
	}
	return lines.String() + line + "\n"
}

// settingsText wraps the sentences of a text and the comments ("# ") of a configuration. What is indented, and in a
// configuration whatever is no comment, has to be taken over as it is.
func settingsText(text string, configuration bool) string {
	var lines strings.Builder
	for line := range strings.Lines(text) {
		comment, isComment := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "# ")
		switch {
		case isComment && configuration:
			lines.WriteString(wrapped("# ", "# ", comment))
		case configuration, strings.HasPrefix(line, " "):
			lines.WriteString(line)
		default:
			lines.WriteString(wrapped("", "", strings.TrimSuffix(line, "\n")))
		}
	}
	return lines.String()
}

// listed writes a list, with this between its items, in lines of the sheet's width as far as the items allow it. The lines
// begin as those of [wrapped]; one that goes on ends as its configuration demands.
func listed(first, others, between, goesOn string, items []string) string {
	var lines strings.Builder
	room := sheetWidth - uniseg.StringWidth(strings.TrimRight(goesOn, " "))
	line := first
	for i, item := range items {
		if i < len(items)-1 {
			item += between
		}
		roomier := uniseg.StringWidth(line) > uniseg.StringWidth(others) // on a new line
		if roomier && uniseg.StringWidth(line)+uniseg.StringWidth(strings.TrimRight(item, " ")) > room {
			lines.WriteString(strings.TrimRight(line, " ") + goesOn + "\n")
			line = others
		}
		line += item
	}
	return lines.String() + line
}
