// Package answer tells whether mailbag-policyd answers at a socket, as the MTA asks it there.
//
// It promises that what the MTA's user may not connect to does not answer, although root, as whom it runs, could connect.
// Security: only the connection is made with that user's rights; needs root.
package answer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/user"
	"runtime"
	"strconv"
	"syscall"
)

// A Question is what is asked at a socket, how the answer begins, and what ends the session.
type Question struct{ Text, Answer, Farewell string }

// Policy is one of the policy protocol, which mailbag-policyd answers without a thought.
var Policy = Question{"request=smtpd_access_policy\nprotocol_state=CONNECT\n\n", "action=", ""}

// Ask asks at a unix socket with the rights of a user, whose part in the MTA is told by role. The error names the socket and
// says what is wrong with it.
func (q Question) Ask(ctx context.Context, path, owner, role string) error {
	conn, err := dialAs(ctx, owner, role, path)
	if err != nil {
		return err
	}
	defer conn.Close()
	if until, ok := ctx.Deadline(); ok {
		conn.SetDeadline(until)
	}
	got := make([]byte, len(q.Answer))
	if _, err := io.WriteString(conn, q.Text); err != nil {
		return fmt.Errorf("nobody reads at %s: %w", path, err)
	}
	if _, err := io.ReadFull(conn, got); errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("no answer comes from %s", path)
	} else if err != nil {
		return fmt.Errorf("no answer comes from %s: %w", path, err)
	}
	if string(got) != q.Answer {
		return fmt.Errorf("at %s somebody else answers: %q", path, got)
	}
	io.WriteString(conn, q.Farewell) // who has answered may be gone
	return nil
}

// dialAs connects to a unix socket with the rights of a user and of that user's own group alone.
func dialAs(ctx context.Context, owner, role, path string) (net.Conn, error) {
	u, err := user.Lookup(owner)
	if err != nil {
		return nil, fmt.Errorf("there is no user %s, who is %s", owner, role)
	}
	uid, errUID := strconv.Atoi(u.Uid)
	gid, errGID := strconv.Atoi(u.Gid)
	if err := errors.Join(errUID, errGID); err != nil {
		return nil, err
	}
	var conn net.Conn
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Linux has these for each thread by itself. It is never unlocked, so it ends with the goroutine.
		runtime.LockOSThread()
		_, _, errno := syscall.RawSyscall(syscall.SYS_SETGROUPS, 0, 0, 0)
		if errno != 0 {
			err = fmt.Errorf("to connect to %s as the user %s does takes root: %w", path, owner, errno)
			return
		}
		if err = errors.Join(syscall.Setfsgid(gid), syscall.Setfsuid(uid)); err == nil {
			conn, err = new(net.Dialer).DialContext(ctx, "unix", path)
		}
	}()
	<-done
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return nil, fmt.Errorf("nobody takes connections at %s", path)
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("there is no socket %s", path)
	case errors.Is(err, fs.ErrPermission) && !errors.Is(err, syscall.EPERM):
		return nil, fmt.Errorf("the user %s may not connect to %s: %w", owner, path, fs.ErrPermission)
	case errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("nobody listens at %s", path)
	}
	return conn, err
}
