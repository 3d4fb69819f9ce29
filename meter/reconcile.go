package meter

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
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
	Added   int // that waited without being noted, in any domain
	Removed int // that were noted and do not wait any more, in any domain
}

// page is how many rows of the ledger or messages of the queue one step takes, or a few more.
const page = 500

// Reconcile brings the index of waiting mail in line with the MTA's queue: it notes what came by
// another way than the policy service, and in which domains a message waits, and strikes off
// what was removed, expired or delivered unseen. The queue must be whole: after an error from it what was listed before
// is noted, nothing is struck off, and the error is returned.
//
// A listing of a queue in motion can miss a message that moves between two of its directories, so a
// message goes only when two passes, one after the other, did not find it. A domain in which a message that was found
// does not wait any more goes at once, and so does what is noted of accounts whose mail is not held. What was noted
// after the pass began stays. Suspicion is none of its business. Of accounts whose mail is not held it keeps how much
// the queue had for them ([Ledger.Queued]).
//
// Memory is constant: what the queue holds is gathered in a temporary file, in the order of the index.
func (l *Ledger) Reconcile(ctx context.Context, d *Directory, queue iter.Seq2[QueuedMessage, error]) (Reconciled, error) {
	p := pass{ledger: l, directory: d, began: l.opt.Now().UnixMilli(), queued: map[int64]Waiting{}}
	var err error
	if p.seen, err = openScratch(ctx); err != nil {
		return p.Reconciled, err
	}
	defer p.seen.Close()
	broken, err := p.list(ctx, queue)
	if err != nil {
		return p.Reconciled, err
	}
	if err := p.seen.sort(ctx); err != nil {
		return p.Reconciled, err
	}
	p.whole = broken == nil
	err = p.settle(ctx)
	if p.whole && err == nil {
		err = l.setQueued(ctx, p.queued)
	}
	return p.Reconciled, cmp.Or(broken, err)
}

// A pass is one over the queue.
type pass struct {
	Reconciled
	ledger    *Ledger
	directory *Directory
	began     int64 // everything that was noted or delivered later is newer than the listing
	seen      *scratch
	queued    map[int64]Waiting // by account, where its mail is not held
	whole     bool              // the queue was listed to its end
}

// list gathers what the queue holds for accounts. It returns why the listing broke off, and what else went wrong.
func (p *pass) list(ctx context.Context, queue iter.Seq2[QueuedMessage, error]) (broken, err error) {
	var rows [][]any
	for m, err := range queue {
		if err != nil {
			return err, p.seen.add(ctx, rows)
		}
		p.Queued++
		accounts, domains := m.Accounts(p.directory)
		for _, a := range accounts {
			if a.Held() {
				rows = append(rows, waitingRows(a, domains, WaitingMessage{ID: m.ID, Size: m.Size, Since: m.Arrived}, p.began)...)
			} else {
				p.queued[a.ID] = p.queued[a.ID].with(m)
			}
		}
		if len(rows) >= page {
			if err := p.seen.add(ctx, rows); err != nil {
				return nil, err
			}
			rows = rows[:0]
		}
	}
	return nil, p.seen.add(ctx, rows)
}

// settle walks through the index and what was seen, side by side and some queue IDs at a time.
func (p *pass) settle(ctx context.Context) error {
	for last, end := "", false; !end; {
		upto, err := stepAfter(p.ledger.row(ctx, nextStep("waiting WHERE host = ? AND"), p.ledger.opt.Host, last, page-1))
		if err != nil {
			return err
		}
		other, err := stepAfter(p.seen.db.QueryRowContext(ctx, nextStep("seen WHERE"), last, page-1))
		if err != nil {
			return err
		}
		upto = min(upto, other)
		rows, err := p.ledger.waitingBetween(ctx, last, upto)
		if err != nil {
			return err
		}
		seen, err := p.seen.between(ctx, last, upto)
		if err != nil {
			return err
		}
		if err := p.compare(ctx, rows, seen); err != nil {
			return err
		}
		last, end = upto, upto == pastAll
	}
	return nil
}

// pastAll is behind all queue IDs, which are of letters and digits, and Exim's hyphens.
const pastAll = "~"

// nextStep selects the last queue ID of a page of rows.
func nextStep(rows string) string {
	return "SELECT queue_id FROM " + rows + " queue_id > ? ORDER BY queue_id LIMIT 1 OFFSET ?"
}

func stepAfter(r scanner) (string, error) {
	var id string
	err := r.Scan(&id)
	if errors.Is(err, errNoRow) || errors.Is(err, sql.ErrNoRows) {
		return pastAll, nil
	}
	return id, err
}

// waitingKey is that of a row of the index.
type waitingKey struct {
	id      string
	account int64
	domain  string
}

func (k waitingKey) compare(other waitingKey) int {
	return cmp.Or(cmp.Compare(k.id, other.id), cmp.Compare(k.account, other.account), cmp.Compare(k.domain, other.domain))
}

func (k waitingKey) sameMessage(other waitingKey) bool {
	return k.id == other.id && k.account == other.account
}

// row is the key as [theseRows] takes it.
func (k waitingKey) row() []any { return []any{k.id, k.account, k.domain} }

// waitingRow is what a pass needs of a row of the index.
type waitingRow struct {
	waitingKey
	noted  int64
	missed int
	taken  int64 // when it was delivered; 0: it waits
}

// seenRow is a row that the index has to have.
type seenRow struct {
	waitingKey
	size, since int64
}

// compare puts right the rows of some queue IDs by what was seen of them, in one batch. Both are in the order of their
// keys.
func (p *pass) compare(ctx context.Context, rows []waitingRow, seen []seenRow) error {
	var b corrections
	for len(rows)+len(seen) > 0 {
		var next waitingKey
		if len(seen) == 0 || len(rows) > 0 && rows[0].compare(seen[0].waitingKey) < 0 {
			next = rows[0].waitingKey
		} else {
			next = seen[0].waitingKey
		}
		n, m := 0, 0
		for n < len(rows) && rows[n].sameMessage(next) {
			n++
		}
		for m < len(seen) && seen[m].sameMessage(next) {
			m++
		}
		p.message(&b, rows[:n], seen[:m])
		rows, seen = rows[n:], seen[m:]
	}
	return p.ledger.correct(ctx, &b)
}

// message sees what is to be put right in the rows of a message and account.
func (p *pass) message(b *corrections, rows []waitingRow, seen []seenRow) {
	found := len(seen) > 0
	if len(rows) == 0 {
		p.Added++
	}
	went, stayed := false, false
	for _, row := range rows {
		for len(seen) > 0 && seen[0].domain < row.domain {
			b.miss(seen[0], p.began)
			seen = seen[1:]
		}
		there := len(seen) > 0 && seen[0].domain == row.domain
		if there {
			seen = seen[1:]
		}
		a := p.directory.AccountByID(row.account)
		goes := false
		switch {
		case row.noted >= p.began, row.taken >= p.began:
		case there:
			if row.missed > 0 || row.taken > 0 { // the MTA did not hear that it was delivered
				row.taken = 0
				b.back = append(b.back, row.row())
			}
		case !p.whole:
		case a == nil, !a.Held(), found, row.taken > 0, row.missed > 0:
			goes = true
			b.gone = append(b.gone, row.row())
		default:
			b.missed = append(b.missed, row.row())
		}
		if row.taken == 0 {
			went, stayed = went || goes, stayed || !goes
		}
	}
	for _, s := range seen {
		b.miss(s, p.began)
	}
	if went && !stayed && !found {
		p.Removed++
	}
}

// corrections are what one batch puts right in the index.
type corrections struct {
	absent             [][]any // rows as [insertWaiting] takes them
	gone, missed, back [][]any // keys
}

func (b *corrections) miss(s seenRow, began int64) {
	b.absent = append(b.absent, []any{s.id, s.account, s.domain, s.size, s.since, began, 0})
}

// correct writes nothing where all is as it should be, which is nearly always. What is new comes before what goes, so that
// a message of which only that is left is taken for the same.
func (l *Ledger) correct(ctx context.Context, b *corrections) error {
	var statements []statement
	for _, s := range []struct {
		sql  string
		rows [][]any
	}{
		{comeBack + theseRows, b.back},
		{insertWaiting + " ON CONFLICT DO NOTHING", b.absent},
		{"UPDATE waiting SET missed = missed + 1 WHERE" + theseRows, b.missed},
		{"DELETE FROM waiting WHERE" + theseRows, b.gone},
	} {
		if len(s.rows) > 0 {
			statements = append(statements, statement{s.sql, []any{asJSON(s.rows), l.opt.Host}})
		}
	}
	if len(statements) == 0 {
		return nil
	}
	return l.batch(ctx, statements...)
}

const theseRows = " (host, queue_id, account, domain) IN (SELECT ?2, value ->> 0, value ->> 1, value ->> 2 FROM json_each(?1))"

// comeBack makes rows wait again, like others of their message that do.
const comeBack = `
	UPDATE waiting AS q SET missed = 0, delivered = NULL,
		size = coalesce((SELECT w.size ` + waitBeside + `), size),
		since = coalesce((SELECT w.since ` + waitBeside + `), since),
		suspicion = coalesce((SELECT w.suspicion ` + waitBeside + `), suspicion)
	WHERE`

const waitBeside = "FROM waiting AS w WHERE w.host = q.host AND w.queue_id = q.queue_id AND w.account = q.account AND w.delivered IS NULL LIMIT 1"

// waitingBetween returns the rows of the queue IDs after one and up to another.
func (l *Ledger) waitingBetween(ctx context.Context, after, upto string) ([]waitingRow, error) {
	var list []waitingRow
	for rows, err := range l.rows(ctx, `
		SELECT queue_id, account, domain, noted, missed, coalesce(delivered, 0) FROM waiting
		WHERE host = ? AND queue_id > ? AND queue_id <= ? ORDER BY queue_id, account, domain`, l.opt.Host, after, upto) {
		var row waitingRow
		if err == nil {
			err = rows.Scan(&row.id, &row.account, &row.domain, &row.noted, &row.missed, &row.taken)
		}
		if err != nil {
			return nil, err
		}
		list = append(list, row)
	}
	return list, nil
}

// scratch remembers what a pass saw, in a private temporary database that SQLite removes with its
// connection. It is no part of the ledger.
type scratch struct{ db *sql.DB }

func openScratch(ctx context.Context) (*scratch, error) {
	db, err := sql.Open("sqlite3", "") // an empty name: SQLite makes and unlinks a temporary file
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1) // each connection would have a database of its own
	_, err = db.ExecContext(ctx, `
		PRAGMA synchronous = OFF;
		PRAGMA journal_mode = OFF;
		CREATE TABLE seen (queue_id TEXT, account INTEGER, domain TEXT, size INTEGER, since INTEGER) STRICT`)
	if err != nil {
		db.Close()
		return nil, err
	}
	return &scratch{db}, nil
}

func (s *scratch) Close() error { return s.db.Close() }

// add takes what [waitingRows] makes.
func (s *scratch) add(ctx context.Context, rows [][]any) error {
	if len(rows) == 0 {
		return nil
	}
	_, err := s.db.ExecContext(ctx, `
		INSERT INTO seen SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 FROM json_each(?)`, asJSON(rows))
	return err
}

// sort puts what was added in the order of the index. A queue is listed in none, and to sort it once costs less than to
// keep it sorted.
func (s *scratch) sort(ctx context.Context) error {
	_, err := s.db.ExecContext(ctx, "CREATE INDEX seen_order ON seen (queue_id, account, domain, size, since)")
	return err
}

// between returns what was seen of the queue IDs after one and up to another.
func (s *scratch) between(ctx context.Context, after, upto string) ([]seenRow, error) {
	rows, err := s.db.QueryContext(ctx, `
		SELECT queue_id, account, domain, size, since FROM seen
		WHERE queue_id > ? AND queue_id <= ? GROUP BY queue_id, account, domain ORDER BY queue_id, account, domain`, after, upto)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []seenRow
	for rows.Next() {
		var row seenRow
		if err := rows.Scan(&row.id, &row.account, &row.domain, &row.size, &row.since); err != nil {
			return nil, err
		}
		list = append(list, row)
	}
	return list, rows.Err()
}
