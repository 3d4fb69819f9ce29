package maildir

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// dirents are the buffers into which directories are read. A large one makes few system calls.
var dirents = sync.Pool{New: func() any {
	b := make([]byte, 256<<10)
	return &b
}}

// names calls each with every file name in new or cur; those that begin with a dot are none (maildir(5)), and
// directories are none either. What was read is looked at while the kernel reads on. Names of one read share one
// string: a large mailbox is then few allocations.
func (d *Maildir) names(sub string, each func(name string)) error {
	read := make(chan string, 2)
	failed := make(chan error, 1)
	go func() {
		failed <- d.entries(sub, read)
		close(read)
	}()
	whole := true
	for text := range read {
		whole = whole && split(text, each)
	}
	if err := <-failed; err != nil {
		return err
	}
	if !whole {
		return fmt.Errorf("the entries of %s/%s cannot be read: they are none", d.path, sub)
	}
	return nil
}

// entries sends the entries of a directory as the kernel gives them.
func (d *Maildir) entries(sub string, to chan<- string) error {
	path := filepath.Join(d.path, sub)
	fd, err := openFile(path, syscall.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	buffer := dirents.Get().(*[]byte)
	defer dirents.Put(buffer)
	for {
		n, err := syscall.ReadDirent(fd, *buffer)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return &fs.PathError{Op: "read", Path: path, Err: err}
		case n == 0:
			return nil
		default:
			to <- string((*buffer)[:n])
		}
	}
}

// Of struct linux_dirent64 (getdents64(2)): an inode, an offset, the length of the record, a type, and the name up
// to a NUL.
const (
	lengthAt = 16
	typeAt   = 18
	nameAt   = 19
)

// split takes entries apart, and reports whether they were whole.
func split(entries string, each func(name string)) bool {
	for len(entries) > 0 {
		if len(entries) < nameAt {
			return false
		}
		length := int(binary.NativeEndian.Uint16([]byte(entries[lengthAt:typeAt])))
		if length < nameAt || length > len(entries) {
			return false
		}
		name := entries[nameAt:length]
		if end := strings.IndexByte(name, 0); end > 0 && name[0] != '.' && entries[typeAt] != syscall.DT_DIR {
			each(name[:end])
		}
		entries = entries[length:]
	}
	return true
}

// openFile opens for reading, and follows no symbolic link at the end of the path.
func openFile(path string, flags int) (int, error) {
	for {
		fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC|syscall.O_NOFOLLOW|syscall.O_NONBLOCK|flags, 0)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return -1, &fs.PathError{Op: "open", Path: path, Err: err}
		default:
			return fd, nil
		}
	}
}
