package meter

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Backup writes a whole and consistent copy of the ledger to a new file while everything goes on. It
// is durable when Backup returns nil. A file that is there already is not overwritten.
func (l *Ledger) Backup(ctx context.Context, path string) error {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s exists already; name a new file", path)
	}
	// The copy holds verifiers: nobody else may read it, from its first moment on.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	err = l.engine.backup(ctx, path)
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		os.Remove(path)
		return unavailable(err)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// Check returns what is wrong with the ledger, nothing when it is sound: damage that SQLite finds,
// references to what is not there, days and domains whose evidence exceeds their usage, files of evidence that
// are not as they were written, and months that are not the sum of their days.
//
// Of a ledger on nodes it looks at a copy of one of them, made for it beside [Options.Beside]: what reads each row would keep
// the node from its leader.
func (l *Ledger) Check(ctx context.Context) (faults []string, err error) {
	if !Remote(l.path) {
		return l.check(ctx)
	}
	path := l.opt.Beside + "-checking"
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, fmt.Errorf("somebody else checks it: %s: %w", path, err)
	}
	defer os.Remove(path)
	if err := l.engine.backup(ctx, path); err != nil {
		return nil, unavailable(err)
	}
	copied := New(path, l.opt)
	defer copied.Close()
	return copied.check(ctx)
}

// manyFaults is how many faults of a kind are told.
const manyFaults = 100

func (l *Ledger) check(ctx context.Context) (faults []string, err error) {
	for _, check := range []struct{ sql, format string }{
		{"SELECT integrity_check FROM pragma_integrity_check WHERE integrity_check <> 'ok'", "damaged: %s"},
		{`SELECT "table" || ' row ' || coalesce(rowid, '') || ' lacks its ' || parent FROM pragma_foreign_key_check`, "dangling reference: %s"},
		{`SELECT a.name || ' on ' || e.day FROM
			(SELECT account, day, count(*) AS messages, sum(size) AS bytes FROM message GROUP BY account, day) AS e
			JOIN account a ON a.id = e.account
			LEFT JOIN usage u ON u.account = e.account AND u.day = e.day
			WHERE e.messages > coalesce(u.messages, 0) OR e.bytes > coalesce(u.bytes, 0)`,
			"usage is less than its evidence: %s"},
		{`SELECT a.name || ' for ' || e.domain || ' in ' || e.month FROM
			(SELECT substr(day, 1, 7) AS month, account, value AS domain, count(*) AS messages, sum(size) AS bytes FROM message, json_each(domains) GROUP BY 1, 2, 3) AS e
			JOIN account a ON a.id = e.account
			LEFT JOIN domain_usage u ON u.month = e.month AND u.account = e.account AND u.domain = e.domain
			WHERE e.messages > coalesce(u.messages, 0) OR e.bytes > coalesce(u.bytes, 0)`,
			"usage is less than its evidence: %s"},
		{`SELECT a.name || ' in ' || m.month FROM month_usage m JOIN account a ON a.id = m.account
			WHERE m.messages <> (SELECT coalesce(sum(messages), 0) FROM usage WHERE account = m.account AND day BETWEEN m.month || '-01' AND m.month || '-31')
				+ (SELECT coalesce(sum(messages), 0) FROM adjustment WHERE account = m.account AND month = m.month)
			OR m.bytes <> (SELECT coalesce(sum(bytes), 0) FROM usage WHERE account = m.account AND day BETWEEN m.month || '-01' AND m.month || '-31')
				+ (SELECT coalesce(sum(bytes), 0) FROM adjustment WHERE account = m.account AND month = m.month)`,
			"the month's usage is not the sum of its days: %s"},
		{"SELECT coalesce(domain, 'none') FROM recipient_list l WHERE size <> (SELECT count(*) FROM recipient WHERE list = l.id)",
			"a recipient list has another number of addresses than is noted, of the domain %s"},
	} {
		n := 0
		for rows, err := range l.rows(ctx, check.sql) {
			var what string
			if err == nil {
				err = rows.Scan(&what)
			}
			if err != nil {
				return nil, err
			}
			if n++; n <= manyFaults {
				faults = append(faults, fmt.Sprintf(check.format, what))
			}
		}
		if n > manyFaults {
			faults = append(faults, fmt.Sprintf(check.format, fmt.Sprintf("%d more", n-manyFaults)))
		}
	}
	archived, err := l.checkArchive(ctx)
	return append(faults, archived...), err
}

// CheckBackup looks whether a copy that [Ledger.Backup] made is whole, and returns how many accounts it has: by its length,
// and, if thorough, by reading all of it. It writes nothing, beside the copy neither.
func CheckBackup(ctx context.Context, path string, thorough bool) (accounts int64, err error) {
	db, err := sql.Open(driverName, (&url.URL{Scheme: "file", Opaque: url.PathEscape(path), RawQuery: "mode=ro&immutable=1"}).String())
	if err != nil {
		return 0, err
	}
	defer db.Close()
	if thorough {
		var damage string
		if err := db.QueryRowContext(ctx, "SELECT quick_check FROM pragma_quick_check LIMIT 1").Scan(&damage); err != nil {
			return 0, err
		}
		if damage != "ok" {
			return 0, fmt.Errorf("it is damaged: %s", damage)
		}
	}
	// SQLite refuses a file that is shorter than its header says.
	err = db.QueryRowContext(ctx, "SELECT count(*) FROM account WHERE deleted IS NULL").Scan(&accounts)
	return accounts, err
}

// Writable returns nil where something could be written now. Nothing is.
func (l *Ledger) Writable(ctx context.Context) error { return l.batch(ctx) }

// Newest is the time of the newest record of a message, a turn or a change; zero: there is none.
func (l *Ledger) Newest(ctx context.Context) (time.Time, error) {
	var at int64
	// By the index of each account's messages: there may be millions.
	err := l.row(ctx, `SELECT max(coalesce((SELECT max((SELECT max(at) FROM message WHERE account = account.id)) FROM account), 0),
		coalesce((SELECT max(began) FROM turn), 0), coalesce((SELECT max(at) FROM change), 0))`).Scan(&at)
	return moment(at), err
}
