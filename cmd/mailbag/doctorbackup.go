package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"mailbag/meter"
)

// backups is where mailbag-backup.service puts copies of the ledger.
const backups = "/var/backups/mailbag"

// backupTime is how old the newest copy may be, of one each day.
const backupTime = 50 * time.Hour

// newestBackup is the newest copy in a directory; empty: there is none.
func newestBackup(dir string) (path string, info fs.FileInfo, err error) {
	all, err := filepath.Glob(filepath.Join(dir, "mailbag-*.db"))
	if err != nil {
		return "", nil, err
	}
	for _, candidate := range all {
		at, err := os.Stat(candidate)
		if err != nil {
			continue // it was just removed
		}
		if info == nil || at.ModTime().After(info.ModTime()) {
			path, info = candidate, at
		}
	}
	return path, info, nil
}

func (p *patient) examineBackup(ctx context.Context) []diagnosis {
	if p.units["mailbag-backup.timer"] == nil {
		return nil
	}
	return p.pace.examineBackup(ctx, backups, p.oldest(), p.now())
}

// oldest is since when there are accounts; zero: there are none, or that is not known.
func (p *patient) oldest() (since time.Time) {
	if p.accounts == nil {
		return since
	}
	for a := range p.accounts.Accounts() {
		if since.IsZero() || a.Created.Before(since) {
			since = a.Created
		}
	}
	return since
}

// examineBackup looks at the newest copy of a ledger that has accounts since then.
func (p pace) examineBackup(ctx context.Context, dir string, since, now time.Time) []diagnosis {
	const again = "run: systemctl start mailbag-backup; if it fails: journalctl -u mailbag-backup"
	made := func(unix int64) []reading { return []reading{{"mailbag_backup_timestamp_seconds", nil, float64(unix)}} }
	path, info, err := newestBackup(dir)
	_, gone := os.Stat(dir)
	switch {
	case errors.Is(gone, fs.ErrNotExist):
		return []diagnosis{{Part: "backup", Result: illness, Text: "there is no directory " + dir + ", so the ledger is not backed up", cause: noBackups, readings: made(0),
			Remedy: "run: systemd-tmpfiles --create mailbag.conf; systemctl start mailbag-backup"}}
	case err != nil:
		return []diagnosis{{Part: "backup", Result: illness, Text: err.Error(), Remedy: again}}
	case path == "" && !since.IsZero() && now.Sub(since) > backupTime:
		return []diagnosis{{Part: "backup", Result: illness, Text: "there is no copy of the ledger in " + dir, Remedy: again, readings: made(0), after: []cause{fullDisk, noBackups}}}
	case path == "":
		return []diagnosis{{Part: "backup", Result: well, Text: "none yet; the first is made tonight", readings: made(0)}}
	}
	age := now.Sub(info.ModTime())
	d := diagnosis{Part: "backup", Result: well, Text: fmt.Sprintf("%s is whole", path), readings: made(info.ModTime().Unix())}
	accounts, err := meter.CheckBackup(ctx, path, p.reads(path))
	switch {
	case err != nil && ctx.Err() == nil:
		d.Result, d.Text, d.Remedy = illness, fmt.Sprintf("the newest copy of the ledger, %s, is of no use: %v", path, err), again
	case age > backupTime:
		d.Result, d.Text, d.Remedy = illness, fmt.Sprintf("the newest copy of the ledger, %s, is %d days old", path, int(age.Hours()/24)), again
	case info.Mode().Perm()&0o077 != 0:
		d.Result, d.Text, d.Remedy = doubt, fmt.Sprintf("others may read %s (mode %04o), which has the verifiers of passwords", path, info.Mode().Perm()), "run: chmod 600 "+filepath.Join(dir, "mailbag-*.db")
	default:
		d.Text = fmt.Sprintf("%s has %s accounts", path, grouped(accounts))
	}
	return []diagnosis{d}
}
