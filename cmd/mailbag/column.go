package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode"

	"mailbag/meter"
)

// A tabled account is what a CSV file has of one in a row.
type tabled struct {
	meter.Account
	mailboxes []string // keys, sorted
}

// tabledOf is an account of a directory, which stays as it is whatever becomes of the result.
func tabledOf(all *meter.Directory, a *meter.Account) *tabled {
	t := &tabled{*a, slices.Clone(all.Mailboxes(a))}
	t.Domains, t.Networks = slices.Clone(a.Domains), slices.Clone(a.Networks)
	return t
}

// A column is a property of an account in a CSV file. Its name is that of the key in JSON.
type column struct {
	name  string
	modes []meter.Mode // that have this property; nil: all
	lower bool         // its values have no capitals
	items func(*tabled) []string
	read  func(*tabled, string) error
	clear func(t, fresh *tabled) // nil: it has no default
}

// columns are all that a file can have, in the order of an export. The fields of account add and set are among them, read
// as there.
var columns = func() []*column {
	all := []*column{
		{name: "name", lower: true, items: func(t *tabled) []string { return []string{t.Name} },
			read: func(t *tabled, s string) error { t.Name = s; return nil }},
		{name: "domains", items: func(t *tabled) []string { return t.Domains },
			read: func(t *tabled, s string) error {
				return readItems(&t.Domains, s, meter.NormalizeDomain, strings.Compare)
			},
			clear: func(t, _ *tabled) { t.Domains = nil }},
	}
	for _, f := range fields {
		c := &column{name: strings.ReplaceAll(f.flag, "-", "_"), modes: f.modes, lower: f.words != nil || f.flag == "plan",
			items: func(t *tabled) []string {
				return []string{f.value(&t.Account).(interface{ present() string }).present()}
			},
			read: func(t *tabled, s string) error {
				v := f.value(&t.Account)
				if v.Type() == "SIZE" && separated.MatchString(s) { // 1.000 is 1 octet to a flag, and 1,000 in some spreadsheets
					return errors.New("it is not clear what its point or comma separates")
				}
				return v.Set(s)
			}}
		if f.flag != "mode" {
			c.clear = func(t, fresh *tabled) { f.copy(&t.Account, &fresh.Account) }
		}
		all = append(all, c)
	}
	return append(all,
		&column{name: "networks", modes: []meter.Mode{meter.Backup, meter.ETRN, meter.ATRN},
			items: func(t *tabled) []string { return prefixes(t.Networks) },
			read: func(t *tabled, s string) error {
				return readItems(&t.Networks, s, parseNetwork, netip.Prefix.Compare)
			},
			clear: func(t, _ *tabled) { t.Networks = nil }},
		&column{name: "mailboxes", modes: []meter.Mode{meter.POP3}, items: func(t *tabled) []string { return written(t.mailboxes) },
			read:  func(t *tabled, s string) error { return readItems(&t.mailboxes, s, addressKey, strings.Compare) },
			clear: func(t, _ *tabled) { t.mailboxes = nil }},
		&column{name: "suspended", lower: true, items: func(t *tabled) []string { return []string{fieldText(t.Suspended)} },
			read: func(t *tabled, s string) (err error) {
				t.Suspended, err = yesNo(s)
				return err
			},
			clear: func(t, _ *tabled) { t.Suspended = false }})
}()

// Columns that are more than properties.
var (
	nameColumn, modeColumn         = columnOf("name"), columnOf("mode")
	domainsColumn, mailboxesColumn = columnOf("domains"), columnOf("mailboxes")
)

// columnOf is the column of that name, which there is.
func columnOf(name string) *column {
	return columns[slices.IndexFunc(columns, func(c *column) bool { return c.name == name })]
}

// columnNames are those of all columns.
func columnNames() string {
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = c.name
	}
	return list(names)
}

// exportCSV is all accounts as a table.
func (d *desk) exportCSV(ctx context.Context) (n int, text []byte, err error) {
	all, err := d.ledger.Load(ctx)
	if err != nil {
		return 0, nil, err
	}
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	w.UseCRLF = true // RFC 4180, section 2
	err = w.WriteAll(tableOf(all))
	return all.Len(), b.Bytes(), err
}

// tableOf are the records of a file of all accounts.
func tableOf(all *meter.Directory) [][]string {
	records := [][]string{strings.Split(columnNames(), ", ")}
	for a := range all.Accounts() {
		t := tabledOf(all, a)
		record := make([]string, len(columns))
		for i, c := range columns {
			record[i] = c.cell(t)
		}
		records = append(records, record)
	}
	return records
}

// fits reports whether accounts of the mode have the property.
func (c *column) fits(mode meter.Mode) bool { return c.modes == nil || slices.Contains(c.modes, mode) }

// isList reports whether it may have several values, and the cell is all of them.
func (c *column) isList() bool {
	return slices.Contains([]string{"domains", "networks", "mailboxes"}, c.name)
}

// cell is what an export writes: nothing where an account of the mode has no such property.
func (c *column) cell(t *tabled) string {
	if !c.fits(t.Mode) {
		return ""
	}
	return freeText(strings.Join(c.items(t), " "))
}

// shown is the value for a line about a difference.
func (c *column) shown(t *tabled) string {
	items := c.items(t)
	switch {
	case c.isList():
		return "[" + strings.Join(items, ", ") + "]"
	case items[0] == "" || strings.ContainsFunc(items[0], func(r rune) bool { return r == ' ' || r == '"' || !unicode.IsPrint(r) }):
		return fmt.Sprintf("%q", items[0])
	}
	return items[0]
}

// readItems reads a list whose items are apart by white space, commas or semicolons. Where it has the items that are there
// already, it stays in their order.
func readItems[T comparable](to *[]T, s string, parse func(string) (T, error), compare func(a, b T) int) error {
	var items []T
	for _, text := range split(s) {
		item, err := parse(text)
		if err != nil {
			return errors.New(about(text, sentence(err)))
		}
		items = append(items, item)
	}
	if len(items) == 0 {
		return fmt.Errorf("there is nothing between the separators; %q takes all away", cleared)
	}
	slices.SortFunc(items, compare)
	for i := range items[1:] {
		if items[i] == items[i+1] {
			return fmt.Errorf("%v is given twice", items[i])
		}
	}
	if was := slices.SortedFunc(slices.Values(*to), compare); !slices.Equal(was, items) {
		*to = items
	}
	return nil
}

// split finds the items of a list. What is in quotes, as the local part of an address may be, is not taken apart.
func split(s string) []string {
	quoted, escaped := false, false
	return strings.FieldsFunc(s, func(r rune) bool {
		switch {
		case escaped:
			escaped = false
		case quoted && r == '\\':
			escaped = true
		case r == '"':
			quoted = !quoted
		}
		return !quoted && strings.ContainsRune(" \t\n,;", r)
	})
}

func addressKey(s string) (string, error) {
	a, err := meter.ParseAddress(s)
	return a.Key(), err
}

func prefixes(networks []netip.Prefix) []string {
	texts := make([]string, len(networks))
	for i, network := range networks {
		texts[i] = network.String()
	}
	return texts
}
