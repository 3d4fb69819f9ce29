package main

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Bounds of a CSV file of accounts.
const (
	maxCSV  = 64 << 20 // octets
	maxRows = 1_000_000
	maxCell = 64 << 10 // octets
	maxName = 64       // octets of a column's that is compared with those that are known

	shownNames = 10 // of columns that are not known
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
	line   int
	cells  []csvCell
	faulty []*column // whose cells cannot be understood
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
	switch {
	case utf16(text):
		f.fault(1, `it is UTF-16; save it as UTF-8, which spreadsheets call "CSV UTF-8"`)
		return f
	case bytes.HasPrefix(text, []byte("PK\x03\x04")), bytes.HasPrefix(text, []byte("\xd0\xcf\x11\xe0")):
		f.fault(1, `it is a workbook, as .xlsx, .ods or .xls is; save it as "CSV UTF-8"`)
		return f
	}
	text = oneLineEnd(bytes.TrimPrefix(text, []byte("\ufeff")))
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
		case blank(record), f.columns == nil && slices.Equal(record, []string{namesSeparator, ""}):
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
		case len(record) < len(f.columns) && r.InputOffset() == int64(len(text)) && text[len(text)-1] != '\n':
			f.fault(line, "the file ends in this row, which has %d of %d cells: it may be cut off", len(record), len(f.columns))
		default:
			f.row(line, record, func(i int) int {
				line, _ := r.FieldPos(i)
				return line
			})
		}
	}
}

// oneLineEnd makes line feeds, with or without a carriage return, of the line ends that there are besides: carriage returns
// alone, as on the Macintosh, and two of them, which text files get on Windows when they have one already.
func oneLineEnd(text []byte) []byte {
	text = bytes.ReplaceAll(text, []byte("\r\r\n"), []byte("\r\n"))
	if end := bytes.IndexAny(text, "\r\n"); end >= 0 && text[end] == '\r' && !bytes.HasPrefix(text[end:], []byte("\r\n")) {
		text = bytes.ReplaceAll(text, []byte("\r"), []byte("\n"))
	}
	return text
}

// utf16 reports whether a text of ASCII, for the most part, is in UTF-16, with a byte order mark or without.
func utf16(text []byte) bool {
	return bytes.HasPrefix(text, []byte("\xff\xfe")) || bytes.HasPrefix(text, []byte("\xfe\xff")) ||
		len(text) > 1 && (text[0] == 0) != (text[1] == 0)
}

// namesSeparator is what a line before the header begins with that tells spreadsheets what is between cells.
const namesSeparator = "sep="

// separator is what is between the names of the columns.
func separator(text []byte) rune {
	header, _, _ := bytes.Cut(bytes.TrimLeft(text, "\r\n"), []byte("\n"))
	if told, found := bytes.CutPrefix(header, []byte(namesSeparator)); found && len(told) > 0 && strings.ContainsRune(",;\t", rune(told[0])) {
		return rune(told[0])
	}
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

// columnNamed is the column of the name that a header's cell has; nil: there is none.
func columnNamed(cell string) *column {
	name := strings.NewReplacer("-", "_", " ", "_").Replace(strings.ToLower(trimmed(cell)))
	if at := slices.IndexFunc(columns, func(c *column) bool { return c.name == name }); at >= 0 {
		return columns[at]
	}
	return nil
}

// header reads the names of the columns.
func (f *csvFile) header(line int, record []string) {
	f.columns = make([]*column, len(record))
	var unknown []string
	for i, cell := range record {
		cell = trimmed(cell)
		c := columnNamed(cell)
		switch {
		case cell == "":
			continue
		case unreadable(cell) != nil:
			f.fault(line, "the name of column %d: %w", i+1, unreadable(cell).err)
		case c == nil && meant(cell) != "":
			f.fault(line, "the column %s is not known; perhaps %s is meant", quoted(cell), meant(cell))
		case c == nil:
			unknown = append(unknown, quoted(cell))
		case slices.Contains(f.columns, c):
			f.fault(line, "the column %s is there twice", c.name)
		default:
			f.columns[i] = c
			continue
		}
		f.columns[i] = foreign
	}
	switch {
	case !slices.Contains(f.columns, nameColumn):
		f.fault(line, "there is no column name: the first line has to name the columns, apart by commas, semicolons or tabs; known are %s", columnNames())
	case len(unknown) > 0:
		names := list(unknown[:min(len(unknown), shownNames)])
		if more := len(unknown) - shownNames; more > 0 {
			names += fmt.Sprintf(" and %d more", more)
		}
		f.fault(line, "not known as %s: %s; known are %s", verb(int64(len(unknown)), "a column", "columns"), names, columnNames())
	}
}

// lacks reports whether a column is missing that may be one of those whose names are not known.
func (f *csvFile) lacks(c *column) bool {
	return !slices.Contains(f.columns, c) && slices.Contains(f.columns, foreign)
}

// isHeader reports whether a row has the names of the columns once more.
func (f *csvFile) isHeader(record []string) bool {
	if len(record) != len(f.columns) || len(record) < 2 {
		return false
	}
	for i, c := range f.columns {
		if c != nil && c != foreign && columnNamed(record[i]) != c {
			return false
		}
	}
	return true
}

// row reads what is not a header; lineOf is where each field begins. Cells that are missing at its end are empty: some
// spreadsheets leave these out.
func (f *csvFile) row(line int, record []string, lineOf func(int) int) {
	if f.isHeader(record) {
		f.fault(line, "the names of the columns are here again; take this line out")
		return
	}
	if n := len(f.columns); len(record) > n && !blank(record[n:]) {
		f.fault(line, "the row has %d cells, and the first line names %d %s", len(record), n, verb(int64(n), "column", "columns"))
		return // whose they are is not known
	}
	row := csvRow{line: line}
	for i, cell := range record[:min(len(record), len(f.columns))] {
		c := f.columns[i]
		fault := func(line int, format string, args ...any) {
			f.fault(line, format, args...)
			row.faulty = append(row.faulty, c)
		}
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
			if c.lower {
				cell = strings.ToLower(cell) // TRUE, Yes, and the first letter that some spreadsheets make a capital
			}
			row.cells = append(row.cells, csvCell{c, lineOf(i), cell})
		}
	}
	switch {
	case slices.Contains(row.faulty, nameColumn), slices.Contains(row.faulty, modeColumn): // the others mean nothing without these
	case row.of(nameColumn) == "" && len(row.faulty) == 0:
		f.fault(line, "name: it is empty")
	case row.of(nameColumn) != "":
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

// about says what is wrong with a text, which it names once, and not at length.
func about(text, why string) string {
	why = strings.ReplaceAll(why, strconv.Quote(text), quoted(text))
	if strings.Contains(why, quoted(text)) {
		return why
	}
	return quoted(text) + ": " + why
}

var (
	powerOfTen  = regexp.MustCompile(`^[+-]?[0-9]+([.,][0-9]+)?E[+-]?[0-9]+$`)
	brokenCell  = regexp.MustCompile(`^(#[A-Z][A-Z/0-9]*[!?]|#N/A|#NV|#+)$`)
	separated   = regexp.MustCompile(`^[0-9]{1,3}([.,'’ \x{a0}\x{202f}][0-9]{3})+([.,][0-9]+)?$`)
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

// meant is the column that may be meant by a name that is none; empty: none is like it.
func meant(name string) string {
	name = strings.ToLower(name[:min(len(name), maxName)])
	nearest := slices.MinFunc(columns, func(a, b *column) int { return distance(name, a.name) - distance(name, b.name) }).name
	if distance(name, nearest) > max(2, len(nearest)/3) {
		return ""
	}
	return nearest
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
