package meter

import (
	"context"
	"database/sql"
	"iter"
	"slices"
	"strings"
	"time"
)

// A QueuedMessage is one that the MTA's queue holds.
type QueuedMessage struct {
	ID         string
	Size       int64 // octets
	Arrived    time.Time
	Recipients []string // those that are not delivered yet
}

// Accounts returns the accounts among the message's recipients, and their domains there, both without
// repeats.
func (m *QueuedMessage) Accounts(d *Directory) (accounts []*Account, domains []string) {
	seen := ""
	for _, recipient := range m.Recipients {
		name := recipient[strings.LastIndexByte(recipient, '@')+1:]
		if name == seen { // nearly always all are of one domain
			continue
		}
		seen = name
		domain, err := NormalizeDomain(name)
		if err != nil {
			continue
		}
		a := d.Domain(domain)
		if a == nil || slices.Contains(domains, domain) {
			continue
		}
		domains = append(domains, domain)
		if !slices.Contains(accounts, a) {
			accounts = append(accounts, a)
		}
	}
	return accounts, domains
}

// Reconciled says what a pass over the queue put right.
type Reconciled struct {
	Queued  int // messages in the queue, of any account or none
	Added   int // that waited without being noted
	Removed int // that were noted and do not wait any more
}

// page is how many rows of the index or messages of the queue one step takes.
const page = 500

// Reconcile brings the index of waiting mail in line with the MTA's queue: it notes what came by
// another way than the policy service, and in which domains a message waits still, and strikes off
// what was removed, expired or delivered unseen. The queue must be whole: an error from it ends the pass, and nothing is struck off.
//
// A listing of a queue in motion can miss a message that moves between two of its directories, so a
// row goes only when two passes, one after the other, did not find its message, and never when it
// was noted after the pass began. Rows of accounts whose mail is not held go at once.
//
// Memory is constant: what the queue holds is gathered in a temporary file.
func (l *Ledger) Reconcile(ctx context.Context, d *Directory, queue iter.Seq2[QueuedMessage, error]) (Reconciled, error) {
	var r Reconciled
	began := l.opt.Now().UnixMilli()
	seen, err := openScratch(ctx)
	if err != nil {
		return r, err
	}
	defer seen.Close()
	var rows [][]any
	note := func() error {
		if len(rows) == 0 {
			return nil
		}
		if err := seen.add(ctx, rows); err != nil {
			return err
		}
		added, err := l.noteMissing(ctx, rows)
		r.Added += added
		rows = rows[:0]
		return err
	}
	for m, err := range queue {
		if err != nil {
			return r, err
		}
		r.Queued++
		accounts, domains := m.Accounts(d)
		for _, a := range accounts {
			if a.Held() {
				rows = append(rows, []any{m.ID, a.ID, m.Size, m.Arrived.UnixMilli(), began, among(a, domains)})
			}
		}
		if len(rows) >= page {
			if err := note(); err != nil {
				return r, err
			}
		}
	}
	if err := note(); err != nil {
		return r, err
	}
	r.Removed, err = l.sweep(ctx, d, seen, began)
	return r, err
}

// waitingRow is what a sweep needs of a row of the index.
type waitingRow struct {
	id      string
	account int64
	noted   int64
	missed  int
	taken   int64 // when it was delivered; 0: it waits
}

// sweep walks the index in the order of its key and settles each row that the pass did not see.
func (l *Ledger) sweep(ctx context.Context, d *Directory, seen *scratch, began int64) (removed int, err error) {
	var last waitingRow
	for {
		rows, err := l.waitingAfter(ctx, last)
		if err != nil || len(rows) == 0 {
			return removed, err
		}
		last = rows[len(rows)-1]
		found, err := seen.between(ctx, rows[0].id, last.id)
		if err != nil {
			return removed, err
		}
		var gone, over, missed, back [][]any
		for _, row := range rows {
			key := []any{row.id, row.account}
			a := d.AccountByID(row.account)
			switch {
			case row.noted >= began, row.taken >= began:
			case a == nil || !a.Held():
				gone = append(gone, key)
			case found[waitingKey{row.id, row.account}]:
				if row.missed > 0 || row.taken > 0 { // the MTA did not hear that it was delivered
					back = append(back, key)
				}
			case row.taken > 0:
				over = append(over, key)
			case row.missed > 0:
				gone = append(gone, key)
			default:
				missed = append(missed, key)
			}
		}
		const these = ` (queue_id, account) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?))`
		var statements []statement
		for _, s := range []struct {
			sql  string
			keys [][]any
		}{
			{"DELETE FROM waiting WHERE", append(over, gone...)},
			{"UPDATE waiting SET missed = missed + 1 WHERE", missed},
			{"UPDATE waiting SET missed = 0, delivered = NULL WHERE", back},
		} {
			if len(s.keys) > 0 {
				statements = append(statements, statement{s.sql + these, []any{asJSON(s.keys)}})
			}
		}
		if len(statements) > 0 {
			if err := l.batch(ctx, statements...); err != nil {
				return removed, err
			}
		}
		removed += len(gone)
	}
}

func (l *Ledger) waitingAfter(ctx context.Context, last waitingRow) ([]waitingRow, error) {
	db, err := l.reader(ctx)
	if err != nil {
		return nil, err
	}
	var list []waitingRow
	for rows, err := range query(ctx, db, `
		SELECT queue_id, account, noted, missed, coalesce(delivered, 0) FROM waiting
		WHERE (queue_id, account) > (?, ?) ORDER BY queue_id, account LIMIT ?`, last.id, last.account, page) {
		var row waitingRow
		if err == nil {
			err = rows.Scan(&row.id, &row.account, &row.noted, &row.missed, &row.taken)
		}
		if err != nil {
			return nil, unavailable(err)
		}
		list = append(list, row)
	}
	return list, nil
}

// noteMissing notes those of the rows that the index lacks, and says how many they were; of the others it notes the
// domains, unless they were noted after the pass began. It writes nothing where all is as it should be, which is
// nearly always.
func (l *Ledger) noteMissing(ctx context.Context, rows [][]any) (int, error) {
	db, err := l.reader(ctx)
	if err != nil {
		return 0, err
	}
	var missing, others int
	err = db.QueryRowContext(ctx, `
		SELECT count(*) FILTER (WHERE w.queue_id IS NULL),
			count(*) FILTER (WHERE w.domains <> q.value ->> 5 AND w.noted < q.value ->> 4)
		FROM json_each(?) AS q LEFT JOIN waiting AS w ON w.queue_id = q.value ->> 0 AND w.account = q.value ->> 1`,
		asJSON(rows)).Scan(&missing, &others)
	if err != nil || missing+others == 0 {
		return 0, unavailable(err)
	}
	return missing, l.batch(ctx, statement{insertWaiting + `
		ON CONFLICT DO UPDATE SET domains = excluded.domains
		WHERE domains <> excluded.domains AND noted < excluded.noted`, []any{asJSON(rows)}})
}

// scratch remembers what a pass saw, in a private temporary database that SQLite removes with its
// connection. It is no part of the ledger.
type scratch struct{ db *sql.DB }

type waitingKey struct {
	id      string
	account int64
}

func openScratch(ctx context.Context) (*scratch, error) {
	db, err := sql.Open("sqlite3", "") // an empty name: SQLite makes and unlinks a temporary file
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1) // each connection would have a database of its own
	_, err = db.ExecContext(ctx, `
		PRAGMA synchronous = OFF;
		CREATE TABLE seen (queue_id TEXT, account INTEGER, PRIMARY KEY (queue_id, account)) STRICT, WITHOUT ROWID`)
	if err != nil {
		db.Close()
		return nil, err
	}
	return &scratch{db}, nil
}

func (s *scratch) Close() error { return s.db.Close() }

func (s *scratch) add(ctx context.Context, rows [][]any) error {
	_, err := s.db.ExecContext(ctx, `
		INSERT OR IGNORE INTO seen SELECT value ->> 0, value ->> 1 FROM json_each(?)`, asJSON(rows))
	return err
}

// between returns what was seen of the queue IDs from first to last.
func (s *scratch) between(ctx context.Context, first, last string) (map[waitingKey]bool, error) {
	found := map[waitingKey]bool{}
	for rows, err := range query(ctx, s.db, `
		SELECT queue_id, account FROM seen WHERE queue_id BETWEEN ? AND ?`, first, last) {
		var key waitingKey
		if err == nil {
			err = rows.Scan(&key.id, &key.account)
		}
		if err != nil {
			return nil, err
		}
		found[key] = true
	}
	return found, nil
}
