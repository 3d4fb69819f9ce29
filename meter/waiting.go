package meter

import (
	"context"
	"database/sql"
	"iter"
	"slices"
	"strings"
	"time"
)

// Waiting is how much mail an account has in the MTA's queue for its next turn.
type Waiting struct {
	Messages int64     `json:"messages"`
	Bytes    int64     `json:"bytes"`
	Oldest   time.Time `json:"oldest,omitzero"` // arrival of the oldest
}

// Waiting returns what waits for the account's next turn, as the index knows it: all, or what is for
// at least one of the domains.
func (l *Ledger) Waiting(ctx context.Context, account int64, domains ...string) (Waiting, error) {
	db, err := l.reader(ctx)
	if err != nil {
		return Waiting{}, err
	}
	var w Waiting
	var oldest int64
	which, args := waitingFor(account, domains)
	err = db.QueryRowContext(ctx, `
		SELECT count(*), coalesce(sum(size), 0), coalesce(min(since), 0) FROM waiting
		WHERE `+which, args...).Scan(&w.Messages, &w.Bytes, &oldest)
	if w.Messages > 0 {
		w.Oldest = time.UnixMilli(oldest).UTC()
	}
	return w, unavailable(err)
}

// waitingFor is the condition of rows that wait for an account, and for one of the domains if there are any.
func waitingFor(account int64, domains []string) (string, []any) {
	if len(domains) == 0 {
		return "account = ? AND delivered IS NULL", []any{account}
	}
	return `account = ? AND delivered IS NULL AND (domains = '' OR EXISTS (
		SELECT 1 FROM json_each(?) AS d WHERE instr(waiting.domains, ' ' || d.value || ' ')))`,
		[]any{account, asJSON(domains)}
}

// A WaitingMessage is a row of the index.
type WaitingMessage struct {
	ID    string
	Size  int64 // octets
	Since time.Time
}

// WaitingAfter returns at most limit messages that wait for the account, and for one of the domains
// if there are any, oldest first, from the one after the given one on; a zero one stands for the
// beginning.
func (l *Ledger) WaitingAfter(ctx context.Context, account int64, domains []string, after WaitingMessage, limit int) ([]WaitingMessage, error) {
	db, err := l.reader(ctx)
	if err != nil {
		return nil, err
	}
	from := int64(-1)
	if !after.Since.IsZero() {
		from = after.Since.UnixMilli()
	}
	which, args := waitingFor(account, domains)
	args = append(args, from, after.ID, limit)
	var list []WaitingMessage
	for rows, err := range query(ctx, db, `
		SELECT queue_id, size, since FROM waiting
		WHERE `+which+` AND (since, queue_id) > (?, ?) ORDER BY since, queue_id LIMIT ?`, args...) {
		var m WaitingMessage
		var since int64
		if err == nil {
			err = rows.Scan(&m.ID, &m.Size, &since)
		}
		if err != nil {
			return nil, unavailable(err)
		}
		m.Since = time.UnixMilli(since).UTC()
		list = append(list, m)
	}
	return list, nil
}

// Delivered strikes messages off that wait no more for the account, in one batch.
func (l *Ledger) Delivered(ctx context.Context, account int64, ids ...string) error {
	return l.batch(ctx, statement{`
		UPDATE waiting SET delivered = ? WHERE account = ? AND queue_id IN (SELECT value FROM json_each(?))`,
		[]any{l.opt.Now().UnixMilli(), account, asJSON(ids)}})
}

// DeliveredIn notes, in one batch, that messages wait for the account no more in the first domains, but still in others
// of those that it has.
func (l *Ledger) DeliveredIn(ctx context.Context, a *Account, domains []string, ids ...string) error {
	var others []string
	for _, domain := range a.Domains {
		if !slices.Contains(domains, domain) {
			others = append(others, domain)
		}
	}
	// Where the row names none of the others, it did not know them.
	return l.batch(ctx, statement{`
		UPDATE waiting SET noted = ?, domains = coalesce((
			SELECT ' ' || group_concat(value, ' ') || ' ' FROM json_each(?) WHERE instr(waiting.domains, ' ' || value || ' ')), ?)
		WHERE account = ? AND queue_id IN (SELECT value FROM json_each(?))`,
		[]any{l.opt.Now().UnixMilli(), asJSON(others), among(a, others), a.ID, asJSON(ids)}})
}

// StillWaits notes a message that an account did not take, where the index lacks it: it came to its turn
// by another way.
func (l *Ledger) StillWaits(ctx context.Context, account int64, m WaitingMessage) error {
	return l.batch(ctx, noteWaiting([][]any{{m.ID, account, m.Size, m.Since.UnixMilli(), l.opt.Now().UnixMilli(), ""}}))
}

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

// among is how the index keeps which of the account's domains are meant; empty where it makes no difference.
func among(a *Account, domains []string) string {
	if len(a.Domains) < 2 {
		return ""
	}
	var list strings.Builder
	for _, domain := range domains {
		if _, ours := slices.BinarySearch(a.Domains, domain); ours {
			list.WriteString(" " + domain)
		}
	}
	if list.Len() == 0 {
		return ""
	}
	return list.String() + " "
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

// noteWaiting notes rows that are not noted yet. One that was delivered is another message by now: the
// MTA uses queue IDs again.
func noteWaiting(rows [][]any) statement {
	return statement{insertWaiting + `
		ON CONFLICT DO UPDATE SET size = excluded.size, since = excluded.since, noted = excluded.noted,
			missed = 0, domains = excluded.domains, delivered = NULL
		WHERE delivered IS NOT NULL`, []any{asJSON(rows)}}
}

// insertWaiting takes rows of (queue ID, account, size, arrival, now, domains).
const insertWaiting = `
	INSERT INTO waiting (queue_id, account, size, since, noted, domains)
	SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5
	FROM json_each(?) WHERE true`

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
