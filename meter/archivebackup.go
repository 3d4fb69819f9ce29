package meter

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// keepsBackups is how much longer than the ledger a backup keeps files: as long as the older copies beside it are kept.
const keepsBackups = 14 * 24 * time.Hour

// BackupEvidence copies what lacks of this host's files of evidence to a directory, where they are for all copies of the ledger that
// are beside it, and removes those of days that the ledger has not had for two weeks. It is to come after the [Ledger.Backup] that the
// files belong to.
func (l *Ledger) BackupEvidence(ctx context.Context, dir string) error {
	all, err := l.archives(ctx, "", pastAll)
	if err != nil || len(all) == 0 {
		return err
	}
	if err = os.Mkdir(dir, 0o700); err == nil {
		err = syncDirectory(filepath.Dir(dir))
	}
	if err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	for _, a := range all {
		if a.host != l.opt.Host {
			continue
		}
		if err := errors.Join(ctx.Err(), l.backUp(ctx, a, filepath.Join(dir, a.name()))); err != nil {
			return err
		}
	}
	return forget(dir, all[0].day)
}

// backUp copies a file, unless it is there.
func (l *Ledger) backUp(ctx context.Context, a archive, path string) error {
	if info, err := os.Stat(path); err == nil && info.Size() == a.octets {
		if digest, err := digestOf(path); err == nil && digest == a.sha256 {
			return nil
		}
	}
	if err := l.verify(a); err != nil {
		if still, other := l.archives(ctx, a.day, a.day); other == nil && len(still) == 0 {
			return nil // it was pruned meanwhile
		}
		return err
	}
	fresh := path + ".new"
	err := copyFile(l.evidencePath(a), fresh)
	if err == nil {
		err = l.giveName(fresh, path)
	}
	if err != nil {
		os.Remove(fresh)
	}
	return err
}

func copyFile(from, to string) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := makeAnew(to, 0o600)
	if err != nil {
		return err
	}
	defer target.Close()
	if _, err := io.Copy(target, source); err != nil {
		return err
	}
	return target.Sync()
}

// forget removes the files of days that are two weeks before the ledger's oldest.
func forget(dir, oldest string) error {
	day, err := time.Parse(time.DateOnly, oldest)
	if err != nil {
		return err
	}
	before := day.Add(-keepsBackups).Format(time.DateOnly)
	files, err := filepath.Glob(filepath.Join(dir, "????-??-??*.csv.gz"))
	for _, file := range files {
		if strings.Compare(filepath.Base(file), before) < 0 {
			err = errors.Join(err, os.Remove(file))
		}
	}
	return err
}
