package main

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// Bounds of a CSV file of accounts.
const (
	maxCSV  = 64 << 20 // octets
	maxRows = 1_000_000
	maxCell = 64 << 10 // octets
	maxName = 64       // octets of a column's that is compared with those that are known
)

// cleared is the cell that brings back a property's default.
const cleared = "-"

// A csvFile is a CSV file of accounts, as far as it can be understood without a ledger.
type csvFile struct {
	name    string
	columns []*column // that it has, in its order; nil where there is no name
	rows    []csvRow
	faults  []csvFault
}

// A csvRow is what a row says of one account. What a cell that is empty or missing is of stays as it is.
type csvRow struct {
	line  int
	cells []csvCell
}

type csvCell struct {
	column *column
	line   int
	text   string
}

// at is the row's cell in a column; where there is none it is empty.
func (r *csvRow) at(c *column) csvCell {
	for _, cell := range r.cells {
		if cell.column == c {
			return cell
		}
	}
	return csvCell{c, r.line, ""}
}

func (r *csvRow) of(c *column) string { return r.at(c).text }

// foreign is a column that is not read, because of its name.
var foreign = new(column)

// A csvFault is what is wrong at a line of the file.
type csvFault struct {
	line int
	err  error
}

func (f *csvFile) fault(line int, format string, args ...any) {
	f.faults = append(f.faults, csvFault{line, fmt.Errorf(format, args...)})
}

// told are the faults in the order of their lines.
func (f *csvFile) told() []error {
	slices.SortStableFunc(f.faults, func(a, b csvFault) int { return a.line - b.line })
	told := make([]error, len(f.faults))
	for i, fault := range f.faults {
		told[i] = fmt.Errorf("%s:%d: %s", f.name, fault.line, visible(sentence(fault.err)+advice(fault.err)))
	}
	return told
}

// readCSV reads the text of a file of that name as a spreadsheet writes it: RFC 4180 with a header, and with commas, semicolons or
// tabs as the header has them. It guesses at nothing: what a spreadsheet spoiled is a fault.
func readCSV(name string, text []byte) *csvFile {
	f := &csvFile{name: name}
	if utf16(text) {
		f.fault(1, `it is UTF-16; save it as UTF-8, which spreadsheets call "CSV UTF-8"`)
		return f
	}
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	if !bytes.ContainsRune(text, '\n') {
		text = bytes.ReplaceAll(text, []byte("\r"), []byte("\n")) // as on the Macintosh
	}
	r := csv.NewReader(bytes.NewReader(text))
	r.Comma, r.FieldsPerRecord, r.ReuseRecord = separator(text), -1, true
	for {
		record, err := r.Read()
		var broken *csv.ParseError
		switch {
		case errors.Is(err, io.EOF):
			if f.columns == nil && len(f.faults) == 0 {
				f.fault(1, "it is empty; its first line has to name the columns, name among them")
			}
			return f
		case errors.As(err, &broken):
			f.fault(broken.StartLine, "%w", misquoted(broken))
			continue
		case err != nil:
			f.fault(1, "%w", err)
			return f
		case blank(record):
			continue
		}
		line, _ := r.FieldPos(0)
		switch {
		case f.columns == nil:
			if f.header(line, record); !slices.Contains(f.columns, nameColumn) {
				return f
			}
		case len(f.rows) == maxRows:
			f.fault(line, "there are more than %s rows", grouped(maxRows))
			return f
		default:
			f.row(line, record, func(i int) int {
				line, _ := r.FieldPos(i)
				return line
			})
		}
	}
}

// utf16 reports whether a text of ASCII, for the most part, is in UTF-16, with a byte order mark or without.
func utf16(text []byte) bool {
	return bytes.HasPrefix(text, []byte("\xff\xfe")) || bytes.HasPrefix(text, []byte("\xfe\xff")) ||
		len(text) > 1 && (text[0] == 0) != (text[1] == 0)
}

// separator is what is between the names of the columns.
func separator(text []byte) rune {
	header, _, _ := bytes.Cut(bytes.TrimLeft(text, "\r\n"), []byte("\n"))
	best := ','
	for _, other := range ";\t" {
		if bytes.Count(header, []byte(string(other))) > bytes.Count(header, []byte(string(best))) {
			best = other
		}
	}
	return best
}

func misquoted(broken *csv.ParseError) error {
	switch {
	case errors.Is(broken, csv.ErrBareQuote):
		return errors.New("there is a quotation mark in a cell that does not begin with one: put such a cell in quotation marks, and write it twice there")
	case broken.StartLine != broken.Line:
		return fmt.Errorf("a cell that begins in this row with a quotation mark does not end with one, or goes on behind it on line %d", broken.Line)
	}
	return errors.New("a cell that begins with a quotation mark does not end with one, or goes on behind it: write it twice within a cell")
}

func blank(record []string) bool {
	return !slices.ContainsFunc(record, func(cell string) bool { return trimmed(cell) != "" })
}

// trimmed is a cell without the white space around it, which nobody sees in a spreadsheet.
func trimmed(cell string) string { return strings.TrimSpace(cell) }

// header reads the names of the columns.
func (f *csvFile) header(line int, record []string) {
	f.columns = make([]*column, len(record))
	for i, cell := range record {
		cell = trimmed(cell)
		name := strings.NewReplacer("-", "_", " ", "_").Replace(strings.ToLower(cell))
		at := slices.IndexFunc(columns, func(c *column) bool { return c.name == name })
		switch {
		case cell == "":
		case unreadable(cell) != nil:
			f.fault(line, "the name of column %d: %w", i+1, unreadable(cell).err)
		case at < 0:
			f.columns[i] = foreign
			f.fault(line, "the column %q is not known; %s", cell, meant(name))
		case slices.Contains(f.columns, columns[at]):
			f.columns[i] = foreign
			f.fault(line, "the column %s is there twice", name)
		default:
			f.columns[i] = columns[at]
		}
	}
	if !slices.Contains(f.columns, nameColumn) {
		f.fault(line, "there is no column name; the first line has to name the columns")
	}
}

// row reads what is not a header; lineOf is where each field begins.
func (f *csvFile) row(line int, record []string, lineOf func(int) int) {
	sound := true
	fault := func(line int, format string, args ...any) {
		f.fault(line, format, args...)
		sound = false
	}
	if n := len(f.columns); len(record) < n || !blank(record[n:]) {
		fault(line, "the row has %d %s, and the first line names %d columns", len(record), verb(int64(len(record)), "cell", "cells"), n)
	}
	row := csvRow{line: line}
	for i, cell := range record[:min(len(record), len(f.columns))] {
		c := f.columns[i]
		wrong := unreadable(cell)
		cell = trimmed(cell)
		switch {
		case cell == "", c == foreign:
		case c == nil:
			fault(lineOf(i), "%s is in column %d, which has no name", quoted(cell), i+1)
		case wrong != nil:
			fault(lineOf(i)+strings.Count(record[i][:wrong.at], "\n"), "%s: %w", c.name, wrong.err)
		case spoiled(cell) != "":
			fault(lineOf(i), "%s: %s is what a spreadsheet made of %s; format the column as text and enter it again", c.name, quoted(cell), spoiled(cell))
		default:
			if c.words != nil {
				cell = strings.ToLower(cell) // TRUE, Yes
			}
			row.cells = append(row.cells, csvCell{c, lineOf(i), cell})
		}
	}
	switch {
	case !sound:
	case row.of(nameColumn) == "":
		f.fault(line, "name: it is empty")
	default:
		f.rows = append(f.rows, row)
	}
}

// unreadable is why a cell is no text, and where in it; nil: it is one.
func unreadable(cell string) *fault {
	if len(cell) > maxCell {
		return &fault{0, fmt.Errorf("it has more than %s octets", grouped(maxCell))}
	}
	for i, r := range cell {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(cell[i:], string(utf8.RuneError)):
			return &fault{i, fmt.Errorf("the octet 0x%02X behind %q is not UTF-8; save the file as UTF-8, which spreadsheets call \"CSV UTF-8\"", cell[i], tail(cell[:i]))}
		case r == 0, r == '\r':
			return &fault{i, fmt.Errorf("there is the control character %q behind %q", r, tail(cell[:i]))}
		}
	}
	return nil
}

// tail is the end of a text, by which its reader finds the place.
func tail(s string) string {
	runes := []rune(s)
	return string(runes[max(0, len(runes)-16):])
}

// quoted is a cell for a message.
func quoted(cell string) string { return fmt.Sprintf("%q", short([]byte(cell))) }

var (
	powerOfTen  = regexp.MustCompile(`^[+-]?[0-9]+([.,][0-9]+)?E[+-]?[0-9]+$`)
	brokenCell  = regexp.MustCompile(`^(#[A-Z][A-Z/0-9]*[!?]|#N/A|#NV|#+)$`)
	separated   = regexp.MustCompile(`^[0-9]{1,3}([.,' \x{a0}\x{202f}][0-9]{3})+([.,][0-9]+)?$`)
	decimals    = regexp.MustCompile(`^[0-9]+,[0-9]+$`)
	dateNumbers = regexp.MustCompile(`^[0-9]{1,4}[./-][0-9]{1,2}[./-]([0-9]{1,4})?( .*)?$`)
	dateWords   = regexp.MustCompile(`(?i)^([0-9]{1,2}[-. ]*)?(jan|feb|mar|mrz|apr|may|mai|jun|jul|aug|sep|oct|okt|nov|dec|dez)[a-z]*[-. ]*[0-9]{0,4}$`)
)

// spoiled is what a cell was before a spreadsheet made of it what nobody enters; empty: it may be as it was.
func spoiled(cell string) string {
	switch {
	case powerOfTen.MatchString(cell):
		return "a long number"
	case brokenCell.MatchString(cell):
		return "something that it could not show"
	}
	return ""
}

// hint is what else a spreadsheet may have done to a cell that cannot be read.
func hint(cell string) string {
	switch {
	case separated.MatchString(cell):
		return "; write numbers without a separator of thousands, and decimals behind a point"
	case decimals.MatchString(cell):
		return "; write decimals behind a point"
	case dateNumbers.MatchString(cell), dateWords.MatchString(cell):
		return "; if a spreadsheet has made a date of it, format the column as text and enter it again"
	}
	return ""
}

// meant says which column may be meant by a name that is none.
func meant(name string) string {
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = c.name
	}
	name = name[:min(len(name), maxName)]
	nearest := slices.MinFunc(names, func(a, b string) int { return distance(name, a) - distance(name, b) })
	if distance(name, nearest) <= max(2, len(nearest)/3) {
		return "perhaps " + nearest + " is meant"
	}
	return "known are " + columnNames()
}

// distance is how many letters have to be added, left out or changed to make one word of another (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0]++
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
