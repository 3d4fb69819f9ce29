package policy

import (
	"io"
	"net"
	"syscall"
	"unsafe"
)

// A socket reads and writes a non-blocking descriptor without telling Go's scheduler. Each of
// net.Conn's system calls does, and on an idle process that wakes a second thread: half of what a
// request costs, where it competes with Postfix for the processor. A call on a non-blocking
// descriptor does not block, so the scheduler has nothing to know. Waiting and deadlines are
// net.Conn's.
type socket struct {
	net.Conn
	raw syscall.RawConn
}

// rawSocket returns c as a socket, or c itself if it has no descriptor.
func rawSocket(c net.Conn) net.Conn {
	if s, ok := c.(syscall.Conn); ok {
		if raw, err := s.SyscallConn(); err == nil {
			return &socket{c, raw}
		}
	}
	return c
}

func (s *socket) Read(p []byte) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	waitErr := s.raw.Read(func(fd uintptr) bool {
		n, err = transfer(syscall.SYS_READ, fd, p)
		return err != syscall.EAGAIN
	})
	switch {
	case waitErr != nil:
		return 0, waitErr
	case err != nil:
		return 0, err
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

func (s *socket) Write(p []byte) (written int, err error) {
	for written < len(p) {
		n := 0
		waitErr := s.raw.Write(func(fd uintptr) bool {
			n, err = transfer(syscall.SYS_WRITE, fd, p[written:])
			return err != syscall.EAGAIN
		})
		if waitErr != nil {
			return written, waitErr
		}
		if err != nil {
			return written, err
		}
		written += n
	}
	return written, nil
}

// transfer is read(2) or write(2) of p, which is not empty.
func transfer(call, fd uintptr, p []byte) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall(call, fd, uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
		switch errno {
		case 0:
			return int(n), nil
		case syscall.EINTR:
			continue
		}
		return 0, errno
	}
}
