// Package wholefile replaces files so that a reader, and a crash at any moment, finds the old one or the new one.
//
// It promises that the new file is on the disk when Replace or Write returns nil. It keeps neither the owner nor hard
// links of the old file; a symbolic link stays, and what it leads to is replaced. Security: the new file has its mode
// from its first moment on, or a stricter one.
package wholefile

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Replace writes a file of exactly that mode, in place of one that is there.
func Replace(path string, text []byte, mode fs.FileMode) error {
	return replace(path, text, mode, func(f *os.File) error { return f.Chmod(mode) })
}

// ReplaceIn is Replace for who does not trust those that may write to the directory: a link is replaced, and not followed.
// settle, too, may prepare the new file before it is seen.
func ReplaceIn(dir *os.Root, name string, text []byte, mode fs.FileMode, settle func(*os.File) error) (err error) {
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
	_, err = tmp.Write(text)
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

// Write writes to what somebody named. What is there and is no regular file, such as a device or a pipe, is written
// to; else a file is replaced, of that mode as far as the umask lets it.
func Write(path string, text []byte, mode fs.FileMode) error {
	if st, err := os.Stat(path); err != nil || st.Mode().IsRegular() {
		return replace(path, text, mode, func(*os.File) error { return nil })
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Close())
}

func replace(path string, text []byte, mode fs.FileMode, settle func(*os.File) error) (err error) {
	if path, err = target(path); err != nil {
		return err
	}
	name := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+"."+rand.Text())
	tmp, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(name)
		}
	}()
	_, err = tmp.Write(text)
	if err = errors.Join(err, settle(tmp), tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err = os.Rename(name, path); err != nil {
		return err
	}
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
