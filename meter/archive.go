package meter

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"iter"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Archived says how many days left the ledger, and how many rows of evidence: one for each account of each message.
type Archived struct {
	Days     int   `json:"days"`
	Messages int64 `json:"messages"`
}

// stays is how long evidence stays in the ledger after its day.
const stays = 2 * 24 * time.Hour

// Archive takes the evidence of days that are over out of the ledger, into files beside it: evidence/DAY.csv.gz, with the
// number of the host in the name where it is not the first. A file is on the disk, read back and known to the ledger by
// its SHA-256 before a row goes; what is in both meanwhile counts once, so that a crash at any moment leaves every row once.
//
// What may be asked about again stays: messages that the MTA's queue holds, by their IDs, and a day with messages of which
// it is not known whether they were accepted. So does what comes to a day that is archived already, such as after the
// clock was set back.
//
// Another Archive that is under way does the work alone.
func (l *Ledger) Archive(ctx context.Context, queue func() iter.Seq2[string, error]) (Archived, error) {
	var done Archived
	known, err := l.archives(ctx, "", pastAll)
	if err != nil {
		return done, err
	}
	days := map[string]archive{}
	for _, a := range known {
		if a.host == l.opt.Host {
			days[a.day] = a
		}
	}
	var oldest int64
	if err := l.row(ctx, "SELECT coalesce(min((SELECT min(at) FROM message WHERE account = a.id)), 0) FROM account a").Scan(&oldest); err != nil || oldest == 0 {
		return done, err
	}
	unlock, err := l.lockEvidence()
	if err != nil || unlock == nil {
		return done, err
	}
	defer unlock()
	var queued map[string]bool
	last := day(l.opt.Now().Add(-stays), l.opt.Location)
	for at := day(moment(oldest).Add(-anyZone), l.opt.Location); ; {
		if at, err = l.usedAfter(ctx, at); err != nil || at == "" || at >= last {
			return done, err
		}
		a, found := days[at]
		if found && a.cleared {
			continue
		}
		if !found {
			if queued == nil {
				if queued, err = idsOf(queue); err != nil {
					return done, err
				}
			}
			if a, err = l.archiveDay(ctx, at, queued); errors.Is(err, errDoubtful) || err == nil && a.messages == 0 {
				continue
			}
		}
		if err == nil {
			err = l.clear(ctx, a)
		}
		if err != nil {
			return done, fmt.Errorf("the evidence of %s stays in the ledger: %w", at, err)
		}
		done.Days++
		done.Messages += a.messages
	}
}

// usedAfter is the next day on which anything was counted; empty: there is none.
func (l *Ledger) usedAfter(ctx context.Context, after string) (next string, err error) {
	err = l.row(ctx, "SELECT coalesce(min((SELECT min(day) FROM usage WHERE account = a.id AND day > ?)), '') FROM account a", after).Scan(&next)
	return next, err
}

// idsOf are the queue IDs of two listings: each can miss a message that moves in the queue meanwhile.
func idsOf(queue func() iter.Seq2[string, error]) (map[string]bool, error) {
	ids := map[string]bool{}
	for range 2 {
		for id, err := range queue() {
			if err != nil {
				return nil, fmt.Errorf("whose evidence has to stay in the ledger cannot be seen: %w", err)
			}
			ids[id] = true
		}
	}
	return ids, nil
}

// errDoubtful is of a day with a message that may be taken back still.
var errDoubtful = errors.New("of a message it is not known whether it was accepted")

// archiveDay writes the file of a day, and makes it known to the ledger. A day of which nothing is in the ledger, or only what has
// to stay, has none.
func (l *Ledger) archiveDay(ctx context.Context, day string, queued map[string]bool) (archive, error) {
	a := archive{day: day, host: l.opt.Host, at: l.opt.Now().UnixMilli()}
	path := l.evidencePath(a)
	fresh := path + ".new" // one that a crash left is written anew
	written := sha256.New()
	err := l.writeEvidence(fresh, func(w *evidenceWriter) error {
		return l.eachOf(ctx, day, func(r evidenceRow, doubtful bool) error {
			switch {
			case doubtful:
				return errDoubtful
			case queued[r.queueID]:
				return nil
			}
			a.messages++
			sum(written, r)
			return w.write(r)
		})
	})
	if err == nil && a.messages > 0 {
		err = l.giveName(fresh, path)
	}
	if err != nil || a.messages == 0 {
		os.Remove(fresh)
		return a, err
	}
	read := sha256.New()
	if err := l.readEvidence(&a, func(r evidenceRow) error { sum(read, r); return nil }); err != nil {
		return a, err
	}
	if [sha256.Size]byte(read.Sum(nil)) != [sha256.Size]byte(written.Sum(nil)) {
		return a, fmt.Errorf("%s does not have what was written to it", path)
	}
	return a, l.batch(ctx, statement{"INSERT INTO archive (day, host, messages, octets, sha256, at) VALUES (?, ?, ?, ?, ?, ?)",
		[]any{a.day, a.host, a.messages, a.octets, a.sha256[:], a.at}})
}

// sum adds a row to a digest of rows.
func sum(to hash.Hash, r evidenceRow) {
	fmt.Fprintf(to, "%d %d %q %q %d %q %q\n", r.account, r.at, r.instance, r.queueID, r.size, r.client, r.domains)
}

// eachOf reads this host's evidence of a day in the order of its file, and says of each row whether it may be taken back still.
func (l *Ledger) eachOf(ctx context.Context, day string, row func(r evidenceRow, doubtful bool) error) error {
	groups, err := l.usersOf(ctx, day)
	if err != nil {
		return err
	}
	for _, accounts := range groups {
		for after := (evidenceRow{}); ; {
			doubtful, err := underwayIn(l.opt.Beside + "-underway")
			if err != nil {
				return err
			}
			rows, err := l.evidenceAfter(ctx, day, accounts, after)
			if err != nil {
				return err
			}
			for _, r := range rows {
				if err := row(r, doubtful[r.instance]); err != nil {
					return err
				}
			}
			if len(accounts) > 1 || len(rows) < evidencePage {
				break
			}
			after = rows[len(rows)-1]
		}
	}
	return nil
}

// evidencePage is how many rows of evidence one query reads.
const evidencePage = 5000

// usersOf are the accounts that used anything on a day, in order: in each group as many as have no more than a page together, or one.
func (l *Ledger) usersOf(ctx context.Context, day string) (groups [][]int64, err error) {
	room := int64(0)
	for rows, err := range l.rows(ctx, "SELECT a.id, u.messages FROM account a CROSS JOIN usage u ON u.account = a.id AND u.day = ? ORDER BY a.id", day) {
		var account, messages int64
		if err == nil {
			err = rows.Scan(&account, &messages)
		}
		if err != nil {
			return nil, err
		}
		if room -= messages; room < 0 || len(groups) == 0 {
			groups = append(groups, nil)
			room = evidencePage - messages
		}
		last := &groups[len(groups)-1]
		*last = append(*last, account)
	}
	return groups, nil
}

// evidenceAfter returns the next page of an account's evidence of a day, or all of several accounts that have no more than a page.
func (l *Ledger) evidenceAfter(ctx context.Context, day string, accounts []int64, after evidenceRow) (list []evidenceRow, err error) {
	// The day decides, but a row is found by its time: see countedAfter.
	end, err := time.Parse(time.DateOnly, day)
	if err != nil {
		return nil, err
	}
	to := end.AddDate(0, 0, 1).Add(anyZone).UnixMilli()
	const columns = "SELECT account, at, instance, queue_id, size, client, domains FROM "
	page := statement{columns + `
		message WHERE account = ? AND (at, instance) > (?, ?) AND at <= ? AND day = ? AND host = ? ORDER BY at, instance LIMIT ?`,
		[]any{accounts[0], after.at, after.instance, to, day, l.opt.Host, evidencePage}}
	if len(accounts) > 1 {
		page = statement{columns + `
			json_each(?) AS a CROSS JOIN message ON account = a.value AND at <= ? AND day = ? AND host = ? ORDER BY account, at, instance`,
			[]any{asJSON(accounts), to, day, l.opt.Host}}
	}
	for rows, err := range l.rows(ctx, page.sql, page.args...) {
		var r evidenceRow
		if err == nil {
			err = rows.Scan(&r.account, &r.at, &r.instance, &r.queueID, &r.size, &r.client, &r.domains)
		}
		if err != nil {
			return nil, err
		}
		list = append(list, r)
	}
	return list, nil
}

// goes is how many rows one batch deletes. They are in the order of accounts, and so each is in another page of the table; others'
// commits wait meanwhile.
const goes = 250

// clear deletes from the ledger what is in a file.
func (l *Ledger) clear(ctx context.Context, a archive) error {
	if err := l.verify(a); err != nil {
		return err
	}
	const rows = "DELETE FROM message WHERE (instance, account) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?))"
	var keys [][]any
	err := l.readEvidence(&a, func(r evidenceRow) error {
		if keys = append(keys, []any{r.instance, r.account}); len(keys) < goes {
			return nil
		}
		err := l.leisurely(ctx, statement{rows, []any{asJSON(keys)}})
		keys = keys[:0]
		return err
	})
	if err != nil {
		return err
	}
	return l.batch(ctx, statement{rows, []any{asJSON(keys)}},
		statement{"UPDATE archive SET cleared = 1 WHERE day = ? AND host = ?", []any{a.day, a.host}})
}

// pruneArchive removes this host's files of days before one, and what was kept of other ledgers.
func (l *Ledger) pruneArchive(ctx context.Context, pruned *int64, before string) error {
	all, err := l.archives(ctx, "", before)
	if err != nil {
		return err
	}
	for _, a := range all {
		if a.host != l.opt.Host || a.day >= before {
			continue
		}
		// The file goes first: one that the ledger does not know is not found again.
		if err := os.Remove(l.evidencePath(a)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := syncDirectory(l.evidenceDir()); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := l.batch(ctx, statement{"DELETE FROM archive WHERE day = ? AND host = ?", []any{a.day, a.host}}); err != nil {
			return err
		}
		*pruned += a.messages
	}
	others, err := filepath.Glob(filepath.Join(l.evidenceDir(), "????-??-??*.csv.gz.*"))
	for _, path := range others {
		if filepath.Base(path) < before {
			err = errors.Join(err, os.Remove(path))
		}
	}
	return err
}

func (l *Ledger) evidenceDir() string { return filepath.Join(filepath.Dir(l.opt.Beside), "evidence") }

func (l *Ledger) evidencePath(a archive) string { return filepath.Join(l.evidenceDir(), a.name()) }

// lockEvidence makes the directory where it is missing, and keeps others from writing to it; unlock is nil where one is at it.
func (l *Ledger) lockEvidence() (unlock func(), err error) {
	made := os.Mkdir(l.evidenceDir(), 0o750)
	if made != nil && !errors.Is(made, os.ErrExist) {
		return nil, made
	}
	dir, err := os.Open(l.evidenceDir())
	if err != nil {
		return nil, err
	}
	if made == nil {
		err = errors.Join(giveToOwner(dir, dir.Name()), syncDirectory(filepath.Dir(l.evidenceDir())))
	}
	if err == nil {
		err = syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	}
	if err != nil {
		dir.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = nil
		}
		return nil, err
	}
	return func() { dir.Close() }, nil
}

// writeEvidence writes a file that is on the disk when it returns nil.
func (l *Ledger) writeEvidence(path string, write func(*evidenceWriter) error) error {
	f, err := makeAnew(path, 0o640)
	if err != nil {
		return err
	}
	defer f.Close()
	w, err := newEvidenceWriter(f)
	if err == nil {
		err = write(w)
	}
	if err != nil {
		return err
	}
	return errors.Join(w.close(), giveToOwner(f, f.Name()), f.Sync())
}

// giveName gives a file its name. One of that name that has other content is not of this ledger as it is, but of what it was before an
// older copy of it was restored: it is kept.
func (l *Ledger) giveName(fresh, path string) error {
	if before, err := digestOf(path); err == nil {
		now, err := digestOf(fresh)
		if err != nil {
			return err
		}
		if before != now {
			l.opt.Logger.Warn("a file of evidence is not of this ledger, and is kept under another name", "path", path)
			if err := os.Rename(path, fmt.Sprintf("%s.%d", path, l.opt.Now().Unix())); err != nil {
				return err
			}
		}
	}
	return errors.Join(os.Rename(fresh, path), syncDirectory(filepath.Dir(path)))
}

func digestOf(path string) (digest [sha256.Size]byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return digest, err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return [sha256.Size]byte(h.Sum(nil)), err
}

func syncDirectory(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
