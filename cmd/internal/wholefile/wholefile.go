// Package wholefile writes files so that a reader, and a crash at any moment, finds the old one or the new one.
//
// It promises that the new file is on the disk when one of its functions returns nil. Replace keeps neither the owner nor
// hard links of the old file; a symbolic link stays, and what it leads to is replaced. Add replaces nothing. Security: the
// new file has its mode from its first moment on, or a stricter one.
package wholefile

import (
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Replace writes a file of exactly that mode, in place of one that is there.
func Replace(path string, text []byte, mode fs.FileMode) error {
	return replace(path, text, mode, func(f *os.File) error { return f.Chmod(mode) })
}

// ReplaceIn is Replace for who does not trust those that may write to the directory: a link is replaced, and not followed.
// settle, too, may prepare the new file before it is seen.
func ReplaceIn(dir *os.Root, name string, content io.WriterTo, mode fs.FileMode, settle func(*os.File) error) (err error) {
	fresh := "." + name + "." + rand.Text()
	tmp, err := dir.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = dir.Remove(fresh)
		}
	}()
	_, err = content.WriteTo(tmp)
	if err = errors.Join(err, tmp.Chmod(mode), settle(tmp), tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err = dir.Rename(fresh, name); err != nil {
		return err
	}
	itself, err := dir.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(itself.Sync(), itself.Close())
}

// Add makes a new file of that mode, as far as the umask lets it.
func Add(path string, text []byte, mode fs.FileMode) error {
	return AddMade(path, func(name string) error { return write(name, text, mode, func(*os.File) error { return nil }) })
}

// AddMade makes a new file of the one that is made under the name that made is given, and that is on the disk when it
// returns nil. What has the path already, be it a link that leads nowhere, stays: the error is fs.ErrExist then.
func AddMade(path string, made func(name string) error) (err error) {
	if _, err := os.Lstat(path); err == nil {
		return &fs.PathError{Op: "create", Path: path, Err: fs.ErrExist} // before the work is done
	}
	tmp := beside(path)
	defer func() {
		if err != nil {
			_ = os.Remove(tmp)
		}
	}()
	if err = made(tmp); err != nil {
		return err
	}
	if err = give(tmp, path); err != nil {
		return err
	}
	return syncDirectory(path)
}

// give gives a file its name, which is nobody's.
func give(tmp, path string) error {
	err := unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, path, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) { // a file system that cannot do that, such as NFS
		if err = os.Link(tmp, path); err == nil {
			err = os.Remove(tmp)
		}
	}
	return err
}

func replace(path string, text []byte, mode fs.FileMode, settle func(*os.File) error) (err error) {
	if path, err = target(path); err != nil {
		return err
	}
	tmp := beside(path)
	defer func() {
		if err != nil {
			_ = os.Remove(tmp)
		}
	}()
	if err = write(tmp, text, mode, settle); err != nil {
		return err
	}
	if err = os.Rename(tmp, path); err != nil {
		return err
	}
	return syncDirectory(path)
}

// beside is a name in the directory of path that nobody else chooses.
func beside(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+"."+rand.Text())
}

func write(name string, text []byte, mode fs.FileMode, settle func(*os.File) error) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, settle(f), f.Sync(), f.Close())
}

func syncDirectory(path string) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// maxLinks is how many symbolic links Linux follows, too (path_resolution(7)).
const maxLinks = 40

// target is where symbolic links lead, be it there or not.
func target(path string) (string, error) {
	for range maxLinks {
		link, err := os.Readlink(path)
		if err != nil {
			return path, nil // it is none
		}
		if !filepath.IsAbs(link) {
			link = filepath.Join(filepath.Dir(path), link)
		}
		path = link
	}
	return "", &fs.PathError{Op: "open", Path: path, Err: syscall.ELOOP}
}
