package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"mailbag/meter"
)

// A draft is what a row makes of an account.
type draft struct {
	row           *csvRow
	before, after *tabled // before: nil where it is new
}

func (d *draft) name() string { return d.after.Name }

// changes reports whether anything is to be done.
func (d *draft) changes() bool { return d.before == nil || len(d.differences()) > 0 }

// gains and loses are what of a list becomes the account's, and what is not its own any more.
func (d *draft) gains(of func(*tabled) []string) []string {
	if d.before == nil {
		return of(d.after)
	}
	return without(of(d.after), of(d.before))
}

func (d *draft) loses(of func(*tabled) []string) []string {
	if d.before == nil {
		return nil
	}
	return without(of(d.before), of(d.after))
}

func domainsOf(t *tabled) []string   { return t.Domains }
func mailboxesOf(t *tabled) []string { return t.mailboxes }

func without(list, others []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return slices.Contains(others, s) })
}

// became reports whether something is so of the account that was not so before.
func (d *draft) became(so func(*meter.Account) bool) bool {
	return so(&d.after.Account) && (d.before == nil || !so(&d.before.Account))
}

// differences are a line for each property that changes, and of a new account one for all.
func (d *draft) differences() []string {
	var lines, properties []string
	fresh := &tabled{Account: *freshAccount("", d.after.Mode)}
	for _, c := range columns {
		switch {
		case c == nameColumn:
		case d.before == nil:
			if c == modeColumn || c.shown(d.after) != c.shown(fresh) {
				properties = append(properties, c.name+" "+c.shown(d.after))
			}
		case c.shown(d.before) != c.shown(d.after):
			lines = append(lines, fmt.Sprintf("%s: %s %s -> %s", d.name(), c.name, c.shown(d.before), c.shown(d.after)))
		}
	}
	if d.before == nil {
		return []string{d.name() + ": new, " + strings.Join(properties, ", ")}
	}
	return lines
}

// amendment is the draft for the ledger, without verifiers.
func (d *draft) amendment() meter.Amendment {
	a := meter.Amendment{After: d.after.Account, Added: d.gains(mailboxesOf), Removed: d.loses(mailboxesOf), Verifiers: map[string]*meter.Verifier{}}
	if d.before != nil {
		a.Before = &d.before.Account
	}
	return a
}

// drafts reads the rows against the accounts that there are, and notes what is wrong with them.
func (f *csvFile) drafts(all *meter.Directory) []*draft {
	var drafts []*draft
	lines := map[string]int{}
	for i := range f.rows {
		row := &f.rows[i]
		name := row.of(nameColumn)
		if line, found := lines[name]; found {
			f.fault(row.line, "name: line %d is of %s already", line, quoted(name))
			continue
		}
		lines[name] = row.line
		d := &draft{row: row}
		if a := all.Account(name); a != nil {
			d.before, d.after = tabledOf(all, a), tabledOf(all, a)
		}
		if faults := len(f.faults); f.apply(d) && len(f.faults) == faults && len(row.faulty) == 0 && d.changes() { // else faults would follow from faults
			f.check(d, all)
		}
		if d.after != nil {
			drafts = append(drafts, d)
		}
	}
	f.checkDomains(drafts, all)
	return drafts
}

// apply makes of the account what the row says. The mode comes first: it decides what else there can be. Where it is not
// known, apply is false.
func (f *csvFile) apply(d *draft) bool {
	name, mode := d.row.of(nameColumn), d.row.of(modeColumn)
	switch {
	case d.before == nil && mode == "" && f.lacks(modeColumn):
		return false
	case d.before == nil && mode == "":
		f.fault(d.row.line, "%s is new, and mode is empty: it has to be one of %s", quoted(name), list(meter.Modes))
		return false
	case d.before == nil:
		d.after = &tabled{Account: *freshAccount(name, meter.Mode(mode))}
	}
	if mode != "" && !f.read(d, d.row.at(modeColumn)) {
		d.after = d.before
		return false
	}
	if d.before != nil && d.after.Mode != d.before.Mode && d.after.Mode == meter.ATRN {
		d.after.CRAMMD5 = true // the default of the mode, as when it is added
	}
	for _, cell := range d.row.cells {
		if cell.column != nameColumn && cell.column != modeColumn {
			f.read(d, cell)
		}
	}
	return true
}

// read makes of one property what its cell says, and reports whether it could.
func (f *csvFile) read(d *draft, cell csvCell) bool {
	c, t := cell.column, d.after
	switch {
	case d.before != nil && cell.text == trimmed(c.cell(d.before)): // as an export writes it
	case !c.fits(t.Mode) && cell.text == cleared:
	case !c.fits(t.Mode):
		f.fault(cell.line, "%s: %s: it does not fit the mode %s, only %s", c.name, quoted(cell.text), t.Mode, list(c.modes))
		return false
	case cell.text == cleared && c.clear == nil:
		f.fault(cell.line, "%s: it has no default that %q could bring back", c.name, cleared)
		return false
	case cell.text == cleared:
		c.clear(t, &tabled{Account: *freshAccount(t.Name, t.Mode)})
	default:
		if err := c.read(t, freedText(cell.text)); err != nil {
			f.fault(cell.line, "%s: %s%s", c.name, about(cell.text, sentence(err)), hint(cell.text))
			return false
		}
	}
	return true
}

// check notes what is wrong with the account as a whole.
func (f *csvFile) check(d *draft, all *meter.Directory) {
	t, row := d.after, d.row
	if err := t.Validate(); err != nil {
		f.fault(row.line, "%s%s", about(t.Name, sentence(err)), hint(t.Name))
	}
	if d.before == nil && len(t.Domains) == 0 && !f.lacks(domainsColumn) {
		f.fault(row.line, "%s is new, and domains is empty: an account has at least one", quoted(t.Name))
	}
	if t.Plan != "" && all.Plan(t.Plan) == nil {
		f.fault(row.at(columnOf("plan")).line, "plan: %w", fmt.Errorf("%s: %w", t.Plan, meter.ErrNoPlan))
	}
	for _, key := range t.mailboxes {
		domain := meter.KeyAddress(key).Domain
		switch gone := slices.Contains(d.loses(domainsOf), domain); {
		case slices.Contains(t.Domains, domain):
		case gone && d.before != nil && slices.Contains(d.before.mailboxes, key):
			f.fault(row.at(domainsColumn).line, "domains: %s has mailboxes, %s for one; take them away first", domain, meter.Written(key))
			return
		default:
			f.fault(row.at(mailboxesColumn).line, "mailboxes: %s is in none of the domains of %s", meter.Written(key), t.Name)
		}
	}
}

// checkDomains notes domains that would belong to two accounts.
func (f *csvFile) checkDomains(drafts []*draft, all *meter.Directory) {
	of := map[string]*draft{}
	for _, d := range drafts {
		of[d.name()] = d
	}
	owners := map[string]*draft{}
	for _, d := range drafts {
		line := d.row.at(domainsColumn).line
		for _, domain := range d.after.Domains {
			if owner, found := owners[domain]; found {
				f.fault(line, "domains: %s would belong to %s, too, by line %d", domain, owner.name(), owner.row.line)
				continue
			}
			owners[domain] = d
			if a := all.Domain(domain); a != nil && a.Name != d.name() && of[a.Name] == nil {
				f.fault(line, "domains: %w", fmt.Errorf("%s: %w: %s", domain, meter.ErrDomainTaken, a.Name))
			}
		}
	}
}

// checkContacts notes contacts whose mail may be what waits.
func (f *csvFile) checkContacts(drafts []*draft) {
	for _, d := range drafts {
		if d.became(ownContact) {
			f.fault(d.row.at(columnOf("contact")).line, "contact: %s is in a domain of %s, so notices would wait with the mail that they are about; give an address elsewhere, or --force",
				d.after.Contact, d.name())
		}
	}
}

// errDeletedName is why a name cannot be that of a new account.
var errDeletedName = errors.New("it is the name of a deleted account, and these are not used again; choose another")

// checkNames notes names that accounts had.
func (f *csvFile) checkNames(drafts []*draft, taken map[string]bool) {
	for _, d := range drafts {
		if d.before == nil && taken[d.name()] {
			f.fault(d.row.line, "name: %s: %w", d.name(), errDeletedName)
		}
	}
}
