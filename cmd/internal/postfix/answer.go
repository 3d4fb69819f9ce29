package postfix

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"

	"mailbag/cmd/internal/mta"
)

// Answers returns nil when mailbag-policyd answers at both of the sockets at which this Postfix asks it, for the user as whom
// Postfix's processes run, before ctx ends. The error is mta.ErrSilent with the first that does not, mta.ErrMissing or mta.ErrBroken. Needs root.
func (in Instance) Answers(ctx context.Context) error {
	out, err := in.run(ctx, "", "postconf", "-x", "queue_directory", "mail_owner")
	if err != nil {
		if errors.Is(err, mta.ErrMissing) {
			return err
		}
		return fmt.Errorf("%w: %w", errBroken, err)
	}
	c := configuration{expanded: assignments(out)}
	for _, s := range asked {
		if err := s.ask(ctx, c); err != nil {
			return fmt.Errorf("%w: %w", errSilent, err)
		}
	}
	return nil
}

// A socket is one of mailbag-policyd's, what it is asked there, how the answer begins, and what ends the session.
type socket struct{ name, question, answer, farewell string }

// asked are the sockets. The milter is offered what a client of version 6 without any actions and steps offers first, and
// answers with as many octets; SMFIC_QUIT leaves it.
var asked = []socket{
	{PolicySocket, "request=smtpd_access_policy\nprotocol_state=CONNECT\n\n", "action=", ""},
	{MilterSocket, packet("O\x00\x00\x00\x06\x00\x00\x00\x00\x00\x00\x00\x00"), "\x00\x00\x00\x0dO", packet("Q")},
}

func packet(content string) string {
	return string(binary.BigEndian.AppendUint32(nil, uint32(len(content)))) + content
}

// ask asks as smtpd and cleanup do. The error names the socket and says what is wrong with it.
func (s socket) ask(ctx context.Context, c configuration) error {
	path, owner := filepath.Join(c.expanded["queue_directory"], s.name), c.expanded["mail_owner"]
	conn, err := dialAs(ctx, owner, path)
	if err != nil {
		return err
	}
	defer conn.Close()
	if until, ok := ctx.Deadline(); ok {
		conn.SetDeadline(until)
	}
	got := make([]byte, len(s.answer))
	if _, err := io.WriteString(conn, s.question); err != nil {
		return fmt.Errorf("nobody reads at %s: %w", path, err)
	}
	if _, err := io.ReadFull(conn, got); errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("no answer comes from %s", path)
	} else if err != nil {
		return fmt.Errorf("no answer comes from %s: %w", path, err)
	}
	if string(got) != s.answer {
		return fmt.Errorf("at %s somebody else answers: %q", path, got)
	}
	io.WriteString(conn, s.farewell) // who has answered may be gone
	return nil
}

// dialAs connects to a unix socket with the rights of a user and of that user's own group alone.
func dialAs(ctx context.Context, owner, path string) (net.Conn, error) {
	u, err := user.Lookup(owner)
	if err != nil {
		return nil, fmt.Errorf("there is no user %s, who is Postfix's mail_owner", owner)
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
