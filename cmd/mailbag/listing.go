package main

import (
	"bytes"
	"encoding/json"
	"iter"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/rivo/uniseg"
	"github.com/spf13/cobra"
)

// jsonFlag gives a listing its --json.
func jsonFlag(cmd *cobra.Command, to *bool) {
	cmd.Flags().BoolVar(to, "json", false, "write JSON, for programs")
}

// json writes a value that always encodes.
func (c *console) json(value any) error {
	e := json.NewEncoder(c.out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return outputError(e.Encode(value))
}

// A jsonList is a list in JSON that is written as it comes, because it may be long.
type jsonList struct {
	*console
	begun bool
}

func (l *jsonList) add(value any) error {
	text, err := json.MarshalIndent(value, "  ", "  ")
	if err != nil {
		return err
	}
	before := "[\n  "
	if l.begun {
		before = ",\n  "
	}
	l.begun = true
	_, err = l.out.WriteString(before + string(text))
	return outputError(err)
}

func (l *jsonList) end() error {
	after := "[]\n"
	if l.begun {
		after = "\n]\n"
	}
	_, err := l.out.WriteString(after)
	return outputError(err)
}

// A table is a listing for a reader. A column whose head begins with ">" is flush right. Where all heads
// are empty there is no line of them.
type table struct {
	heads []string
	rows  [][]string
}

func (t *table) add(cells ...string) {
	for i, cell := range cells {
		cells[i] = visible(cell)
	}
	t.rows = append(t.rows, cells)
}

// dropEmpty leaves out the column of that head where nothing is in it.
func (t *table) dropEmpty(head string) {
	column := slices.Index(t.heads, head)
	if slices.ContainsFunc(t.rows, func(row []string) bool { return row[column] != "" }) {
		return
	}
	t.heads = slices.Delete(t.heads, column, column+1)
	for i, row := range t.rows {
		t.rows[i] = slices.Delete(row, column, column+1)
	}
}

// visible writes what a terminal would not show, or obey, as Go does in strings.
func visible(s string) string {
	hidden := func(r rune) bool { return unicode.In(r, unicode.Cc, unicode.Zl, unicode.Zp, unicode.Bidi_Control) }
	if plainASCII(s) || !strings.ContainsFunc(s, hidden) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if hidden(r) {
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// plainASCII reports whether all of a text is letters that take one column each, as nearly all is that is shown.
func plainASCII(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// table writes a table.
func (c *console) table(t *table) {
	for line := range t.lines() {
		c.out.WriteString(line + "\n") // the first error is kept until Flush
	}
}

// lines are those of a table, with its columns two spaces apart.
func (t *table) lines() iter.Seq[string] {
	rows := t.rows
	columns := len(t.heads)
	right, width := make([]bool, columns), make([]int, columns)
	if strings.Join(t.heads, "") != "" {
		heads := make([]string, columns)
		for i, head := range t.heads {
			heads[i], right[i] = strings.CutPrefix(head, ">")
		}
		rows = append([][]string{heads}, rows...)
	}
	for _, row := range rows {
		for i, cell := range row {
			width[i] = max(width[i], columnsOf(cell))
		}
	}
	return func(yield func(string) bool) {
		var line []byte
		for _, row := range rows {
			line = line[:0]
			for i, cell := range row {
				if i > 0 {
					line = append(line, "  "...)
				}
				space := strings.Repeat(" ", width[i]-columnsOf(cell))
				if right[i] {
					cell, space = space, cell
				}
				line = append(append(line, cell...), space...)
			}
			if !yield(string(bytes.TrimRight(line, " "))) {
				return
			}
		}
	}
}

// columnsOf is how many columns of a terminal a text takes.
func columnsOf(s string) int {
	if plainASCII(s) {
		return len(s)
	}
	return uniseg.StringWidth(s)
}
