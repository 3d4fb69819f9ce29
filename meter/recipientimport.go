package meter

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
)

const (
	// importChunk is how many addresses one batch writes, for which others wait.
	importChunk = 1000

	// importRun is how many octets of addresses are put in order before they are written. In the order of the file each would
	// change another page of the ledger.
	importRun = 2 << 20
)

// An Imported says what an import did.
type Imported struct {
	Listed  int // addresses that the file named, without repeats
	Added   int
	Removed int // only where the list was replaced
}

// ImportRecipients adds a list of addresses, or replaces the account's list with it, at one moment:
// mail is checked against the old list until the new one is whole. That is written beside the old one, in
// batches, so that the daemons never wait for a long write; progress is told how many. An
// error of the sequence ends the import with nothing changed. Replacing with nothing is [ErrInvalid]:
// it would refuse all the account's mail. Other errors: [ErrNoAccount], [ErrNoDomain], and [ErrChanged] where another import
// was faster.
func (l *Ledger) ImportRecipients(ctx context.Context, name string, replace bool, addresses iter.Seq2[Address, error], progress func(staged int)) (done Imported, err error) {
	_, a, err := l.LoadAccount(ctx, name)
	if err != nil {
		return done, err
	}
	m := &listMaking{ledger: l, domains: a.Domains, progress: progress}
	defer func() { m.end(ctx, err) }()
	for address, err := range addresses {
		if err == nil {
			err = m.add(ctx, address.Key(), address.Domain)
		}
		if err != nil {
			return done, err
		}
	}
	if !replace && m.token == "" && len(m.rows) <= importChunk {
		return m.addAtOnce(ctx, a)
	}
	if err := m.write(ctx); err != nil {
		return done, err
	}
	if replace && m.written == 0 {
		return done, invalid("the list is empty; replacing with it would refuse all of the account's mail")
	}
	if !replace {
		if err := m.dropEmpty(ctx); err != nil {
			return done, err
		}
	}
	if done.Listed, err = m.size(ctx); err != nil {
		return done, err
	}
	former, err := m.former(ctx, a.ID)
	if err != nil {
		return done, err
	}
	had, kept, err := m.meet(ctx, former, !replace)
	if err != nil {
		return done, err
	}
	done.Added = done.Listed - kept
	action := fmt.Sprintf("recipient import of %d", done.Listed)
	statements := []statement{m.whole(len(m.lists))}
	if replace {
		action = fmt.Sprintf("recipient import --replace of %d", done.Listed)
		done.Removed = had - kept
	} else {
		statements = append(statements, m.unreplaced(a.ID, former))
	}
	statements = append(statements, statement{`
		UPDATE recipient_list SET account = NULL, domain = NULL
		WHERE account = ? AND domain IN (SELECT domain FROM recipient_list WHERE import = ?)`, []any{a.ID, m.token}},
		m.comeTo(name, slices.Collect(maps.Keys(m.lists))))
	err = foreignDomain(l.change(ctx, name, action, statements...))
	if errors.Is(err, ErrNoAccount) {
		if _, _, err := l.LoadAccount(ctx, name); err != nil {
			return done, err
		}
		return done, fmt.Errorf("another import was in force before this one: %w; import it again", ErrChanged)
	}
	return done, err
}

// listMaking is the writing of recipient lists that nobody sees until they are whole, one for each domain.
type listMaking struct {
	ledger   *Ledger
	domains  []string // sorted
	progress func(written int)

	token   string // of the lists in the ledger; empty: there are none yet
	lists   map[string]*listInMaking
	rows    []listRow // to be written
	octets  int       // of them
	written int
}

type listInMaking struct {
	id   int64
	some bool // has addresses
}

type listRow struct{ domain, address string }

func (m *listMaking) add(ctx context.Context, key, domain string) error {
	i, ours := slices.BinarySearch(m.domains, domain)
	if !ours {
		return fmt.Errorf("%s is in none of the account's domains: %w", Written(key), ErrNoDomain)
	}
	m.rows = append(m.rows, listRow{m.domains[i], key}) // one copy of the domain
	if m.octets += len(key); m.octets < importRun {
		return nil
	}
	return m.write(ctx)
}

// begin makes the lists, empty.
func (m *listMaking) begin(ctx context.Context) error {
	m.token, m.lists = rand.Text(), map[string]*listInMaking{}
	err := m.ledger.batch(ctx, statement{`
		INSERT INTO recipient_list (domain, import, at) SELECT value, ?, ? FROM json_each(?) ORDER BY value`,
		[]any{m.token, m.ledger.opt.Now().UnixMilli(), asJSON(m.domains)}})
	if err != nil {
		return err
	}
	return m.ledger.read(ctx, current, query{statement{"SELECT domain, id FROM recipient_list WHERE import = ?", []any{m.token}}, func(r scanner) error {
		var domain string
		list := new(listInMaking)
		err := r.Scan(&domain, &list.id)
		m.lists[domain] = list
		return err
	}})
}

// sort puts the rows in order, each once.
func (m *listMaking) sort() {
	slices.SortFunc(m.rows, func(a, b listRow) int {
		return cmp.Or(cmp.Compare(a.domain, b.domain), cmp.Compare(a.address, b.address))
	})
	m.rows = slices.Compact(m.rows)
}

// write brings the rows to the ledger.
func (m *listMaking) write(ctx context.Context) error {
	if m.token == "" {
		if err := m.begin(ctx); err != nil {
			return err
		}
	}
	m.sort()
	for some := range slices.Chunk(m.rows, importChunk) {
		rows := make([][2]any, len(some))
		for i, row := range some {
			list := m.lists[row.domain]
			if list == nil {
				return m.lost()
			}
			list.some = true
			rows[i] = [2]any{list.id, row.address}
		}
		err := m.ledger.leisurely(ctx, statement{`
			INSERT OR IGNORE INTO recipient (list, address) SELECT value ->> 0, value ->> 1 FROM json_each(?)`, []any{asJSON(rows)}})
		if violates(err, "FOREIGN KEY constraint failed") {
			err = m.lost()
		}
		if err != nil {
			return err
		}
		m.written += len(some)
		m.progress(m.written)
	}
	m.rows, m.octets = m.rows[:0], 0
	return nil
}

// lost is the error of lists that were taken for those of a dead import.
func (m *listMaking) lost() error {
	return fmt.Errorf("the import took longer than %s, so what it had written was deleted: %w; import it again", keepImport, ErrChanged)
}

// addAtOnce adds what has not been written yet by one batch.
func (m *listMaking) addAtOnce(ctx context.Context, a *Account) (done Imported, err error) {
	m.sort()
	pairs := make([][2]string, len(m.rows))
	for i, row := range m.rows {
		pairs[i] = [2]string{row.address, row.domain}
	}
	these := asJSON(pairs)
	listed, err := m.ledger.countListed(ctx, a.Name, these)
	if err != nil {
		return done, err
	}
	done = Imported{Listed: len(pairs), Added: len(pairs) - listed}
	return done, m.ledger.addRecipients(ctx, a.Name, fmt.Sprintf("recipient import of %d", done.Listed), these)
}

// dropEmpty gives up the lists of domains of which there was no address.
func (m *listMaking) dropEmpty(ctx context.Context) error {
	empty := []int64{}
	for domain, list := range m.lists {
		if !list.some {
			empty = append(empty, list.id)
			delete(m.lists, domain)
		}
	}
	slices.Sort(empty)
	return m.ledger.batch(ctx, statement{"UPDATE recipient_list SET domain = NULL, import = NULL WHERE id IN (SELECT value FROM json_each(?))", []any{asJSON(empty)}})
}

// size is how many addresses the lists have.
func (m *listMaking) size(ctx context.Context) (n int, err error) {
	err = m.ledger.row(ctx, "SELECT coalesce(sum(size), 0) FROM recipient_list WHERE import = ?", m.token).Scan(&n)
	return n, err
}

// formerLists are from the lists of an import, n, to those in force in whose place they come, o.
const formerLists = `FROM recipient_list n CROSS JOIN recipient_list o ON o.account = ? AND o.domain = n.domain WHERE n.import = ? ORDER BY o.id`

// formerList is a list in force, and the one that comes in its place.
type formerList struct{ id, next int64 }

func (m *listMaking) former(ctx context.Context, account int64) (all []formerList, err error) {
	err = m.ledger.read(ctx, current, query{statement{"SELECT o.id, n.id " + formerLists, []any{account, m.token}}, func(r scanner) error {
		all = append(all, formerList{})
		return r.Scan(&all[len(all)-1].id, &all[len(all)-1].next)
	}})
	return all, err
}

// meet goes through the lists in force and counts what they had, and how much of it the new ones have. With takeOver they get
// the rest too.
func (m *listMaking) meet(ctx context.Context, former []formerList, takeOver bool) (had, kept int, err error) {
	var batch []statement
	rows := 0
	for _, list := range former {
		for last := ""; ; {
			after := last
			var some, same int
			err := m.ledger.row(ctx, `
				SELECT count(*), coalesce(max(address), ''), coalesce(sum(EXISTS (SELECT 1 FROM recipient WHERE list = ?1 AND address = o.address)), 0)
				FROM (SELECT address FROM recipient WHERE list = ?2 AND address > ?3 ORDER BY address LIMIT ?4) o`,
				list.next, list.id, after, importChunk).Scan(&some, &last, &same)
			if err != nil {
				return 0, 0, err
			}
			if some == 0 {
				break
			}
			had, kept = had+some, kept+same
			if !takeOver {
				continue
			}
			batch = append(batch, statement{`
				INSERT OR IGNORE INTO recipient (list, address)
				SELECT ?, address FROM recipient WHERE list = ? AND address > ? AND address <= ?`, []any{list.next, list.id, after, last}})
			if rows += some; rows < importChunk {
				continue
			}
			if err := m.ledger.leisurely(ctx, batch...); err != nil {
				return 0, 0, err
			}
			batch, rows = nil, 0
		}
	}
	if batch != nil {
		err = m.ledger.batch(ctx, batch...)
	}
	return had, kept, err
}

// refused begins a statement that fails a change of an account where a condition is true.
const refused = "UPDATE change SET account = NULL WHERE id = (SELECT max(id) FROM change) AND "

// whole refuses a change unless so many lists are there.
func (m *listMaking) whole(lists int) statement {
	return statement{refused + "(SELECT count(*) FROM recipient_list WHERE import = ?) <> ?", []any{m.token, lists}}
}

// unreplaced refuses a change unless the lists in force are still those.
func (m *listMaking) unreplaced(account int64, former []formerList) statement {
	ids := []int64{}
	for _, list := range former {
		ids = append(ids, list.id)
	}
	return statement{refused + "(SELECT json_group_array(id) FROM (SELECT o.id " + formerLists + ")) <> ?", []any{account, m.token, asJSON(ids)}}
}

// comeTo has the lists of domains be in force.
func (m *listMaking) comeTo(name string, domains []string) statement {
	return statement{`
		UPDATE recipient_list SET account = ` + accountID + `, import = NULL WHERE import = ? AND domain IN (SELECT value FROM json_each(?))`,
		[]any{name, m.token, asJSON(domains)}}
}

// end gives up the lists if they did not come into force, and deletes those that are not needed any more.
func (m *listMaking) end(ctx context.Context, err error) {
	if m.token == "" {
		return
	}
	if err != nil {
		m.ledger.batch(context.WithoutCancel(ctx), statement{"UPDATE recipient_list SET domain = NULL, import = NULL WHERE import = ?", []any{m.token}})
	}
	m.ledger.sweepLists(ctx, new(int64))
}
