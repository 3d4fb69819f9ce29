// Package claim lets one process at a time have what a path names: the place of a socket, or the ledger.
//
// A claim ends with its process at the latest. Security: flock(2) asks for no permission but to open the file, so what
// is locked is what strangers cannot open: the directory where it is closed to them, else a file beside the path that
// only its owner can open. Who can write into the directory can still be in the way, as with the path itself.
package claim

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// ErrTaken says that another process has the claim.
var ErrTaken = errors.New("another process has it at this moment")

// pause is between two tries.
const pause = 10 * time.Millisecond

// Take claims a path, trying for as long as wait if another process has it, and then fails with ErrTaken. The
// path itself is not touched.
func Take(ctx context.Context, path string, wait time.Duration) (release func(), err error) {
	for begun := time.Now(); ; {
		release, err := try(path)
		if !errors.Is(err, ErrTaken) || time.Since(begun) >= wait {
			return release, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause):
		}
	}
}

func try(path string) (release func(), err error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	info, err := dir.Stat()
	if err == nil && info.Mode().Perm()&0o004 != 0 {
		dir.Close()
		return tryFile(path + ".lock")
	}
	if err == nil {
		err = lock(dir)
	}
	if err != nil {
		dir.Close()
		return nil, err
	}
	return func() { dir.Close() }, nil
}

// tryFile makes the lock file, which is removed with the claim, so that another user can have the next one.
func tryFile(name string) (release func(), err error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	if err := lock(f); err != nil {
		return nil, err
	}
	mine, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if mine.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("others can open %s and keep it locked; remove it", name)
	}
	// Who had the claim until now has removed the file that was opened here.
	if there, err := os.Lstat(name); err != nil || !os.SameFile(there, mine) {
		return nil, ErrTaken
	}
	return func() {
		os.Remove(name)
		f.Close()
	}, nil
}

func lock(f *os.File) error {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return ErrTaken
	}
	if err != nil {
		return &fs.PathError{Op: "lock", Path: f.Name(), Err: err}
	}
	return nil
}
