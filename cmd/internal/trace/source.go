package trace

import (
	"bufio"
	"cmp"
	"compress/bzip2"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"mailbag/cmd/internal/mta"
)

// A Source is a log to read: a file, or journalctl(1).
type Source struct {
	Name  string
	Until time.Time // when it was written to last
	Size  int64     // octets that are to be read of it; 0: nobody knows

	// open begins at what was written since then, or earlier, and tells what it reads.
	open func(since time.Time, read func(octets int)) (io.ReadCloser, error)
}

// Files are the logs of these names, as filepath.Glob takes them, in the order in which they were written. Those that
// match nothing are left out.
func Files(patterns ...string) ([]Source, error) {
	var list []Source
	for _, pattern := range patterns {
		names, err := filepath.Glob(pattern)
		if err != nil {
			return nil, fmt.Errorf("%q is no name of files: %w", pattern, err)
		}
		if len(names) == 0 {
			// What may not be looked into is empty to Glob.
			if _, err := os.ReadDir(filepath.Dir(pattern)); errors.Is(err, fs.ErrPermission) {
				return nil, unreadable(pattern, err)
			}
		}
		for _, name := range names {
			source, err := File(name)
			if err != nil {
				return nil, err
			}
			list = append(list, source)
		}
	}
	Sort(list)
	return list, nil
}

// Sort puts first what was written first, as its first line says: a copy is often younger than what is in it.
func Sort(list []Source) {
	begun := map[string]time.Time{}
	for _, s := range list {
		begun[s.Name] = s.begun()
	}
	slices.SortStableFunc(list, func(a, b Source) int {
		return cmp.Or(begun[a.Name].Compare(begun[b.Name]), a.Until.Compare(b.Until), cmp.Compare(b.Name, a.Name))
	})
}

// begun is the first time in it, or when it was written to last where it does not begin with one. Why it cannot be read is
// told when it is.
func (s Source) begun() time.Time {
	in, err := s.open(time.Time{}, func(int) {})
	if err != nil {
		return s.Until
	}
	defer in.Close()
	line := make([]byte, 64)
	n, _ := io.ReadFull(in, line)
	if at, _, ok := mta.ReadStamp(line[:n], s.Until); ok {
		return at
	}
	return s.Until
}

// File is a log in a file, which may be packed as logrotate(8) does it.
func File(name string) (Source, error) {
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return Source{}, unreadable(name, err)
	case info.IsDir():
		return Source{}, fmt.Errorf("%s is a directory; name the files in it", name)
	}
	unpack := plain
	switch filepath.Ext(name) {
	case ".gz":
		unpack = gunzip
	case ".bz2":
		unpack = func(r io.Reader) (io.Reader, error) { return bzip2.NewReader(r), nil }
	case ".xz", ".zst":
		return Source{}, fmt.Errorf("%s is packed in a way that is not read here; unpack it and name the file with --log", name)
	}
	return Source{Name: name, Until: info.ModTime(), Size: info.Size(), open: func(_ time.Time, read func(int)) (io.ReadCloser, error) {
		f, err := os.Open(name)
		if err != nil {
			return nil, unreadable(name, err)
		}
		in, err := unpack(counting{f, read})
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("%s cannot be unpacked: %w", name, err)
		}
		return unpacked{in, f}, nil
	}}, nil
}

// unreadable says why a log cannot be read, and what to do.
func unreadable(name string, err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return forbidden("the log " + name)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("the log %s does not exist", name)
	}
	return fmt.Errorf("the log cannot be read: %w", err)
}

func forbidden(log string) error {
	return fmt.Errorf("%s may not be read by this user; run this as root, or as a member of the group adm", log)
}

func plain(r io.Reader) (io.Reader, error) { return r, nil }

func gunzip(r io.Reader) (io.Reader, error) { return gzip.NewReader(bufio.NewReaderSize(r, 256<<10)) }

type unpacked struct {
	io.Reader
	io.Closer
}

// Read tells a file that was cut off from one that ends.
func (u unpacked) Read(p []byte) (int, error) {
	n, err := u.Reader.Read(p)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = errTorn
	}
	return n, err
}

var errTorn = errors.New("it was cut off, or is being packed just now; to search without it, name the other files with --log")

// counting tells how much is read.
type counting struct {
	io.Reader
	read func(int)
}

func (c counting) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.read(n)
	return n, err
}

// Journal is what the journal has that fits these matches of journalctl(1), until now. The error is [ErrNoJournal] where
// there is none.
func Journal(ctx context.Context, until time.Time, matches ...string) (Source, error) {
	path, err := exec.LookPath("journalctl")
	if err != nil {
		return Source{}, ErrNoJournal
	}
	return Source{Name: "the journal", Until: until, open: func(since time.Time, read func(int)) (io.ReadCloser, error) {
		// Without --system a user who may not read it is shown a journal of their own instead, where there is one.
		args := []string{"--system", "--output=short-unix", "--quiet", "--no-pager", "--all"}
		if !since.IsZero() {
			args = append(args, "--since=@"+strconv.FormatInt(since.Unix(), 10))
		}
		ctx, cancel := context.WithCancel(ctx)
		cmd := exec.CommandContext(ctx, path, append(args, matches...)...)
		var said strings.Builder
		cmd.Stderr = &said
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			cancel()
			return nil, fmt.Errorf("journalctl cannot be started: %w", err)
		}
		return &listing{counting{out, read}, cmd, &said, cancel, false}, nil
	}}, nil
}

// ErrNoJournal is a machine without systemd's journal.
var ErrNoJournal = errors.New("there is no journalctl")

// A listing is journalctl as it runs.
type listing struct {
	io.Reader
	cmd    *exec.Cmd
	said   *strings.Builder
	cancel context.CancelFunc
	closed bool
}

func (l *listing) Close() error {
	if l.closed {
		return nil
	}
	l.closed = true
	defer l.cancel()
	var rest [1]byte
	if _, err := l.Reader.Read(rest[:]); !errors.Is(err, io.EOF) { // left early
		l.cancel()
		l.cmd.Wait()
		return nil
	}
	err, said := l.cmd.Wait(), strings.TrimSpace(l.said.String())
	switch {
	case err == nil || said == "":
		return nil
	case strings.Contains(said, "insufficient permissions"):
		return forbidden("the journal")
	}
	return fmt.Errorf("journalctl failed (%w): %s", err, said)
}
