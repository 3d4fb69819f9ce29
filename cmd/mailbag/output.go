package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"mailbag/cmd/internal/settings"
	"mailbag/cmd/internal/wholefile"
)

// outputMeaning is for the help texts of all commands that write to a FILE.
const outputMeaning = `FILE is a new one, and is there when it is whole: a file that exists already is kept and the command refused, as is
a name in a place that mailbag reads or writes itself. With - it goes to stdout, and what is a pipe or a device is written to.`

// writeText writes to what an operator named. It reports whether that is a file, and not a stream to somebody who
// wants nothing else in it.
func (d *desk) writeText(path string, text []byte, mode fs.FileMode) (file bool, err error) {
	return d.write(d.settings, path,
		func(w io.Writer) error { _, err := w.Write(text); return err },
		func() error { return wholefile.Add(path, text, mode) })
}

// write is writeText for what streams to a writer, or else adds the file itself.
func (c *console) write(s *settings.Settings, path string, stream func(io.Writer) error, add func() error) (file bool, err error) {
	isStream, err := c.isStream(s, path)
	switch {
	case err != nil:
		return false, err
	case !isStream:
		return true, unwritten(path, add())
	case c.isStdout(path):
		return false, outputError(stream(c.out))
	}
	return false, unwritten(path, toDevice(path, stream))
}

// isStream reports whether what an operator named to be written is a stream, or else why it cannot be a file.
func (c *console) isStream(s *settings.Settings, path string) (bool, error) {
	st, err := os.Stat(path)
	switch {
	case c.isStdout(path), err == nil && (st.Mode().Type() == fs.ModeNamedPipe || st.Mode().Type() == fs.ModeDevice|fs.ModeCharDevice):
		return true, nil
	case err == nil && st.IsDir():
		return false, fmt.Errorf("%s is a directory; name a file in it", path)
	case path == "":
		return false, errors.New("the name of the file to write is empty")
	}
	return false, refuseOwnPlace(s, path)
}

// isStdout reports whether stdout is named, as /dev/stdout perhaps, whatever it leads to.
func (c *console) isStdout(path string) bool {
	st, err := os.Stat(path)
	return path == "-" || err == nil && os.SameFile(st, c.stdout)
}

func toDevice(path string, stream func(io.Writer) error) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(stream(f), f.Close())
}

// unwritten says why a file could not be written, without the name that it had meanwhile.
func unwritten(path string, err error) error {
	var number syscall.Errno
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrExist):
		return fmt.Errorf("%s exists already; name a new file", path)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s cannot be written: the directory %s does not exist", path, filepath.Dir(path))
	case errors.As(err, &number):
		err = number
	}
	return fmt.Errorf("%s cannot be written: %w", path, err)
}

// refuseOwnPlace refuses a new file where mailbag, the MTA or SQLite would take it for one of theirs.
func refuseOwnPlace(s *settings.Settings, path string) error {
	dir, err := filepath.Abs(filepath.Dir(path))
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return unwritten(path, err)
	}
	for _, own := range []struct{ place, what string }{
		{s.POP.Maildirs, "the Maildirs are"},
		{s.Policy.Tables, "the tables that the MTA reads are"},
		{s.Turn.Sockets, "the sockets of turns are"},
		{s.Notices.Templates, "the texts of notices are"},
	} {
		if below(own.place, dir) || sameName(own.place, path, dir) {
			return fmt.Errorf("%s is in %s, where %s; name a file elsewhere", path, own.place, own.what)
		}
	}
	for _, own := range []struct{ file, what string }{
		{cmp.Or(s.File, settings.DefaultFile), "the settings"},
		{s.TLS.Certificate, "the certificate"},
		{s.TLS.Key, "the certificate's key"},
		{s.Policy.Milter.Address, "a socket of mailbag-policyd"},
		{s.Policy.Listen.Address, "a socket of mailbag-policyd"},
		{s.Turn.Control.Address, "a socket of mailbag-turnd"},
		{s.POP.Deliver.Address, "a socket of mailbag-popd"},
	} {
		if sameName(own.file, path, dir) {
			return fmt.Errorf("%s is the name of %s; name another file", path, own.what)
		}
	}
	ledgers := []string{s.Beside()}
	if real, err := filepath.EvalSymlinks(s.Beside()); err == nil {
		ledgers = append(ledgers, real)
	}
	for _, ledger := range ledgers {
		if sameName(ledger, path, dir) || strings.HasPrefix(filepath.Base(path), filepath.Base(ledger)+"-") && sameDirectory(filepath.Dir(ledger), dir) {
			return fmt.Errorf("%s is a name that belongs to the ledger %s; name another file", path, ledger)
		}
	}
	return nil
}

// sameName reports whether path, which is in dir, is the name of a place of mailbag's own.
func sameName(own, path, dir string) bool {
	return filepath.Base(path) == filepath.Base(own) && sameDirectory(filepath.Dir(own), dir)
}

// below reports whether dir, which no link leads to, is top or below it.
func below(top, dir string) bool {
	for {
		if sameDirectory(top, dir) {
			return true
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return false
		}
		dir = parent
	}
}

func sameDirectory(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}
