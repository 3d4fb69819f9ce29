package maildir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// A Maildir is one mailbox on the disk. It is a path and no more: two of the same path are the same.
type Maildir struct{ path string }

// At returns the Maildir at path, whether or not it is there.
func At(path string) *Maildir { return &Maildir{path} }

// Path is where the Maildir is.
func (d *Maildir) Path() string { return d.path }

// The three directories of a Maildir.
const (
	tmp = "tmp" // being written
	new = "new" // delivered, seen by no reader yet
	cur = "cur" // seen
)

// Create makes the Maildir durably where it is not there, with the directories above it.
func (d *Maildir) Create() error {
	// tmp last: where a draft can be begun the rest is there, and on the disk.
	for _, sub := range []string{new, cur, tmp} {
		if err := makeDirectory(filepath.Join(d.path, sub)); err != nil {
			return fmt.Errorf("the Maildir %s cannot be made: %w", d.path, err)
		}
	}
	return nil
}

// makeDirectory is mkdir -p that is on the disk when it returns.
func makeDirectory(path string) error {
	err := os.Mkdir(path, 0o700)
	switch {
	case errors.Is(err, fs.ErrExist):
		// By somebody who may not have come to the next line yet.
	case errors.Is(err, fs.ErrNotExist):
		if err := makeDirectory(filepath.Dir(path)); err != nil {
			return err
		}
		return makeDirectory(path)
	case err != nil:
		return err
	}
	return syncDirectory(filepath.Dir(path))
}

// Exists reports whether there is a Maildir.
func (d *Maildir) Exists() (bool, error) {
	info, err := os.Stat(filepath.Join(d.path, new))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return false, nil
	}
	return err == nil && info.IsDir(), err
}

// ErrInUse says that somebody else has the Maildir locked.
var ErrInUse = errors.New("the mailbox is in use")

// A Lock keeps other sessions out of a Maildir.
type Lock struct{ dir *os.File }

// Lock locks the Maildir against everybody else who locks it, in this process and in others, or returns
// [ErrInUse]. Delivery needs no lock, and other programs know nothing of this one. It is held on the
// directory itself and so leaves no file behind, whatever becomes of the process.
func (d *Maildir) Lock() (*Lock, error) {
	dir, err := os.Open(d.path)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		dir.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, ErrInUse
		}
		return nil, &fs.PathError{Op: "lock", Path: d.path, Err: err}
	}
	return &Lock{dir}, nil
}

// Unlock lets the next one in.
func (l *Lock) Unlock() {
	// A child that is just being started holds the lock as well, until it executes its program.
	_ = syscall.Flock(int(l.dir.Fd()), syscall.LOCK_UN)
	l.dir.Close()
}

// Abandoned is how old a file in tmp is when its writer has given it up (maildir(5)).
const Abandoned = 36 * time.Hour

// Sweep removes files in tmp that were last written before a time, and returns how many there were.
func (d *Maildir) Sweep(before time.Time) (removed int, err error) {
	entries, err := os.ReadDir(filepath.Join(d.path, tmp))
	if err != nil {
		return 0, err
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil || !info.Mode().IsRegular() || !info.ModTime().Before(before) {
			continue // gone meanwhile, or none of ours
		}
		if err := os.Remove(filepath.Join(d.path, tmp, entry.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return removed, err
		}
		removed++
	}
	return removed, nil
}
