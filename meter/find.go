package meter

import (
	"context"
	"database/sql"
	"net/netip"
	"strings"
	"time"
)

// A Match is an account in which a text was found.
type Match struct {
	ID      int64
	Name    string
	Deleted time.Time // zero: it is not
	What    string    // "name", "customer", "domain", "mailbox", "recipient", "network", "contact" or "note"
	Value   string    // in which the text is, as the ledger has it
	Exact   bool      // it is the text, or what the text is in; else it only has the text in it
}

// Find looks for a text in all accounts, deleted ones too, and returns at most as many as the limit, those before others
// that have just this: a name, a customer number, a contact, a domain or one above it, an address in any of these ways, an
// address or a network of the Internet. The others have it as a part of their name, customer number, contact, domain or
// note. More is how many there are besides.
func (l *Ledger) Find(ctx context.Context, text string, limit int) (found []Match, more int64, err error) {
	f := finding{ctx: ctx, ledger: l, seen: map[int64]bool{}}
	f.exact(text)
	all := f.found
	if f.err == nil {
		more = f.parts(text, limit)
	}
	if f.err != nil {
		return nil, 0, f.err
	}
	more += int64(max(0, len(all)-limit))
	found = append(all[:min(len(all), limit)], f.found[len(all):]...)
	if over := len(found) - limit; over > 0 {
		found, more = found[:limit], more+int64(over)
	}
	return found, more, nil
}

// A finding is what was found until now.
type finding struct {
	ctx    context.Context
	ledger *Ledger
	seen   map[int64]bool
	found  []Match
	err    error
}

// look adds what a condition of accounts, a, finds, with a value. Of an account only what was found first counts.
func (f *finding) look(what, value, from string, args ...any) {
	if f.err != nil {
		return
	}
	for rows, err := range f.ledger.rows(f.ctx, "SELECT a.id, a.name, coalesce(a.deleted, 0), "+value+" FROM "+from, args...) {
		m := Match{What: what, Exact: true}
		var deleted int64
		if err == nil {
			err = rows.Scan(&m.ID, &m.Name, &deleted, &m.Value)
		}
		if err != nil {
			f.err = err
			return
		}
		m.Deleted = moment(deleted)
		f.add(m)
	}
}

func (f *finding) add(m Match) {
	if !f.seen[m.ID] {
		f.seen[m.ID] = true
		f.found = append(f.found, m)
	}
}

func (f *finding) exact(text string) {
	f.look("name", "a.name", "account a WHERE a.name = lower(?)", text)
	f.look("customer", "a.customer", "account a WHERE lower(a.customer) = lower(?) AND a.customer <> ''", text)
	f.network(text)
	domain, err := NormalizeDomain(text)
	if address, wrong := ParseAddress(text); wrong == nil {
		keys := []string{address.Key()}
		if user, _, extended := strings.Cut(address.Local, "+"); extended && user != "" {
			keys = append(keys, Address{user, address.Domain}.Key())
		}
		f.look("mailbox", "m.address", "mailbox m CROSS JOIN account a ON a.id = m.account WHERE m.address IN (SELECT value FROM json_each(?))", asJSON(keys))
		f.look("recipient", "r.address", `domain d CROSS JOIN recipient_list l ON l.account = d.account AND l.domain = d.name CROSS JOIN recipient r ON r.list = l.id AND r.address IN (SELECT value FROM json_each(?2))
			CROSS JOIN account a ON a.id = d.account WHERE d.name = ?1`, address.Domain, asJSON(keys))
		f.look("contact", "a.contact", "account a WHERE lower(a.contact) = lower(?)", address.String())
		domain, err = address.Domain, nil
	}
	if err != nil {
		return
	}
	above := asJSON(domainAndAbove(domain))
	f.look("domain", "d.name", `domain d CROSS JOIN account a ON a.id = d.account
		WHERE d.name IN (SELECT value FROM json_each(?)) ORDER BY length(d.name) DESC`, above)
	f.look("domain", "d.value", `account a CROSS JOIN change c ON c.account = a.id AND c.action = 'account delete' CROSS JOIN json_each(c.before, '$.domains') d
		WHERE a.deleted IS NOT NULL AND d.value IN (SELECT value FROM json_each(?))`, above)
}

// domainAndAbove are a domain and those that it is under, but for the last label alone.
func domainAndAbove(domain string) []string {
	all := []string{domain}
	for {
		_, above, _ := strings.Cut(domain, ".")
		if !strings.Contains(above, ".") {
			return all
		}
		all, domain = append(all, above), above
	}
}

// network adds accounts with networks that an address is in, or that have addresses in common with a network.
func (f *finding) network(text string) {
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return
		}
		addr = addr.Unmap().WithZone("")
		prefix = netip.PrefixFrom(addr, addr.BitLen())
	}
	overlapping := map[string]bool{}
	for rows, err := range f.ledger.rows(f.ctx, "SELECT DISTINCT prefix FROM network") {
		var other string
		if err == nil {
			err = rows.Scan(&other)
		}
		if err != nil {
			f.err = err
			return
		}
		if p, err := netip.ParsePrefix(other); err == nil && p.Overlaps(prefix) {
			overlapping[other] = true
		}
	}
	prefixes := []string{}
	for p := range overlapping {
		prefixes = append(prefixes, p)
	}
	f.look("network", "n.prefix", `network n CROSS JOIN account a ON a.id = n.account
		WHERE n.prefix IN (SELECT value FROM json_each(?)) ORDER BY a.name`, asJSON(prefixes))
}

// parts adds accounts that have the text somewhere, at most as many as the limit, and returns how many there are besides.
func (f *finding) parts(text string, limit int) (more int64) {
	if text == "" {
		return 0
	}
	text = oneSpelling(text)
	has := func(column string) string { return "instr(lower(a." + column + "), :text)" }
	args := []any{sql.Named("text", text)}
	if strings.ContainsFunc(text, func(r rune) bool { return r > '~' }) { // SQLite's lower knows ASCII alone
		for column, ids := range f.beyondASCII(text) {
			args = append(args, sql.Named(column, asJSON(ids)))
		}
		has = func(column string) string { return "a.id IN (SELECT value FROM json_each(:" + column + "))" }
	}
	domain, err := NormalizeDomain(text)
	if err != nil {
		domain = text
	}
	exact := []int64{}
	for id := range f.seen {
		exact = append(exact, id)
	}
	var first, all int64
	for rows, err := range f.ledger.rows(f.ctx, `
		SELECT a.id, a.name, coalesce(a.deleted, 0), count(*) OVER (),
		       iif(instr(a.name, :text), 'name', iif(`+has("customer")+`, 'customer', iif(`+has("contact")+`, 'contact', iif(`+has("note")+`, 'note', 'domain')))),
		       iif(instr(a.name, :text), a.name, iif(`+has("customer")+`, a.customer, iif(`+has("contact")+`, a.contact, iif(`+has("note")+`, a.note,
		           (SELECT min(name) FROM domain WHERE account = a.id AND instr(name, :domain))))))
		FROM account a
		WHERE (instr(a.name, :text) OR `+has("customer")+` OR `+has("contact")+` OR `+has("note")+`
		       OR a.id IN (SELECT account FROM domain WHERE instr(name, :domain)))
		      AND a.id NOT IN (SELECT value FROM json_each(:exact))
		ORDER BY a.deleted IS NOT NULL, a.name LIMIT :limit`,
		append(args, sql.Named("domain", domain), sql.Named("exact", asJSON(exact)), sql.Named("limit", limit))...) {
		var m Match
		var deleted int64
		if err == nil {
			err = rows.Scan(&m.ID, &m.Name, &deleted, &all, &m.What, &m.Value)
		}
		if err != nil {
			f.err = err
			return 0
		}
		m.Deleted = moment(deleted)
		f.add(m)
		first++
	}
	return all - first
}

// beyondASCII are the accounts that have a text which is not of ASCII alone, by the column that has it.
func (f *finding) beyondASCII(text string) map[string][]int64 {
	found := map[string][]int64{"customer": {}, "contact": {}, "note": {}}
	const some = " GLOB '*[^ -~]*'"
	for row, err := range f.ledger.rows(f.ctx, "SELECT id, customer, contact, note FROM account WHERE customer"+some+" OR contact"+some+" OR note"+some) {
		var id int64
		var customer, contact, note string
		if err == nil {
			err = row.Scan(&id, &customer, &contact, &note)
		}
		if err != nil {
			f.err = err
			return found
		}
		for column, value := range map[string]string{"customer": customer, "contact": contact, "note": note} {
			if strings.Contains(oneSpelling(value), text) {
				found[column] = append(found[column], id)
			}
		}
	}
	return found
}
