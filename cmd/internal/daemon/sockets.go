package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"

	"mailbag/cmd/internal/claim"
	"mailbag/cmd/internal/settings"
)

// Sockets are the listening sockets of a daemon: those that systemd passed (sd_listen_fds(3)), by
// their FileDescriptorName, and those that it opened itself.
type Sockets struct {
	group  string // which may connect to unix sockets
	log    *slog.Logger
	passed map[string][]net.Listener
}

// PassedSockets takes over what systemd passed to this process, once in its life.
func PassedSockets(group string, log *slog.Logger) (*Sockets, error) {
	passed, err := activation.ListenersWithNames()
	if err != nil {
		return nil, fmt.Errorf("the sockets passed by systemd cannot be used: %w", err)
	}
	return &Sockets{group: group, log: log, passed: passed}, nil
}

// Listen returns the sockets that systemd passed for a front, or, if there are none, opens those of its
// addresses. The caller closes them. A unix socket that was opened here disappears when it is closed;
// one of systemd's stays.
func (s *Sockets) Listen(ctx context.Context, front Front) ([]net.Listener, error) {
	if passed, ok := s.passed[front.Name]; ok {
		delete(s.passed, front.Name)
		s.compare(front, passed)
		for _, l := range passed {
			if u, ok := l.(*net.UnixListener); ok {
				u.SetUnlinkOnClose(false)
			}
		}
		return passed, nil
	}
	var all []net.Listener
	for _, a := range front.At {
		if a.IsZero() {
			continue
		}
		l, err := s.open(ctx, a)
		if err != nil {
			for _, l := range all {
				l.Close()
			}
			if errors.Is(err, fs.ErrPermission) {
				err = Final(notOurs(front, a, err))
			}
			return nil, fmt.Errorf("no socket for %s: %w", front.Name, err)
		}
		all = append(all, l)
	}
	return all, nil
}

// notOurs says what helps where only root may open a socket, as one whose port is below 1024.
func notOurs(front Front, a settings.Address, err error) error {
	switch {
	case a.Network == "unix":
		return err
	case front.Unit == "":
		return fmt.Errorf("only root may listen on %s; choose a port from 1024 on: %w", a, err)
	}
	_, port, _ := net.SplitHostPort(a.Address)
	return fmt.Errorf("only root may listen on %s, so systemd has to: see that %s has ListenStream=%s (systemctl edit %[2]s) and enable it (systemctl enable %[2]s); or choose a port from 1024 on: %[4]w",
		a, front.Unit, port, err)
}

// compare warns where the settings and systemd's .socket unit differ: the settings are without effect then.
func (s *Sockets) compare(front Front, passed []net.Listener) {
	var told, got []string
	for _, a := range front.At {
		if !a.IsZero() {
			told = append(told, place(a.Address))
		}
	}
	for _, l := range passed {
		got = append(got, place(l.Addr().String()))
	}
	if told, got = sortedSet(told), sortedSet(got); !slices.Equal(told, got) {
		s.log.Warn("systemd listens elsewhere than the settings say, and that is what counts; change the settings, or: systemctl edit "+front.Unit,
			"socket", front.Name, "settings", strings.Join(told, " "), "systemd", strings.Join(got, " "))
	}
}

// place is where an address is: each way to write all addresses of the machine comes to one.
func place(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address // a path
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "*"
	}
	return net.JoinHostPort(host, port)
}

func sortedSet(all []string) []string { slices.Sort(all); return slices.Compact(all) }

// CloseUnused closes the sockets that systemd passed and nobody asked for, and logs their names:
// they are a mistake in a .socket unit, and clients would wait in them for ever.
func (s *Sockets) CloseUnused() {
	for _, name := range slices.Sorted(maps.Keys(s.passed)) {
		s.log.Warn("systemd passed a socket with a name that is not used here; correct FileDescriptorName= in the .socket unit", "name", name)
		for _, l := range s.passed[name] {
			l.Close()
		}
		delete(s.passed, name)
	}
}

func (s *Sockets) open(ctx context.Context, a settings.Address) (net.Listener, error) {
	if a.Network == "unix" {
		return s.openUnix(ctx, a.Address)
	}
	l, err := new(net.ListenConfig).Listen(ctx, a.Network, a.Address)
	// Who may not listen there does not hear that it is another's.
	if errors.Is(err, fs.ErrPermission) && answered(ctx, a) {
		err = syscall.EADDRINUSE
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("another program listens on %s already; stop it or change the settings: %w", a, err)
	}
	return l, err
}

// answered reports whether somebody takes connections.
func answered(ctx context.Context, a settings.Address) bool {
	c, err := (&net.Dialer{Timeout: probeTime}).DialContext(ctx, a.Network, a.Address)
	if err == nil {
		c.Close()
	}
	return err == nil
}

// probeTime bounds the question whether somebody answers on a socket that is there already.
const probeTime = 2 * time.Second

// claimTime bounds the wait for another instance that opens or closes a socket. It asks for as long as probeTime
// whether somebody answers.
const claimTime = 2*probeTime + time.Second

// openUnix opens a socket at which another instance may be, or may open its own now. The path is claimed meanwhile, so
// that two that start together cannot remove each other's socket.
func (s *Sockets) openUnix(ctx context.Context, path string) (net.Listener, error) {
	release, err := claim.Take(ctx, path, claimTime)
	switch {
	case errors.Is(err, claim.ErrTaken):
		return nil, fmt.Errorf("another instance opens or closes the socket %s and does not come to an end; stop it first: %w", path, err)
	case err != nil:
		return nil, fmt.Errorf("the directory of the socket %s cannot be used; create it, or start by systemd's .socket unit: %w", path, err)
	}
	defer release()
	own, err := listenUnix(ctx, path, s.group, s.log)
	if err != nil {
		return nil, err
	}
	own.shared = true
	return own, nil
}

// ListenUnix creates a unix socket that a group can reach, and which disappears when it is closed. One that is
// there already is replaced only if nobody answers on it. It is for a process that alone makes sockets in that
// directory.
func ListenUnix(ctx context.Context, path, group string, log *slog.Logger) (net.Listener, error) {
	own, err := listenUnix(ctx, path, group, log)
	if err != nil {
		return nil, err
	}
	return own, nil
}

// listenUnix lets the socket appear at path only once it listens and can be reached: whoever finds it there can
// connect.
func listenUnix(ctx context.Context, path, group string, log *slog.Logger) (*ownSocket, error) {
	if err := free(ctx, path); err != nil {
		return nil, err
	}
	unready := path + "~"
	if err := os.Remove(unready); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s, left by an instance that was killed, cannot be removed: %w", unready, err)
	}
	l, err := new(net.ListenConfig).Listen(ctx, "unix", unready)
	if err != nil {
		return nil, fmt.Errorf("the socket %s cannot be created; start as a user who may write there, or by systemd's .socket unit: %w", path, err)
	}
	unix := l.(*net.UnixListener)
	unix.SetUnlinkOnClose(false)
	own := &ownSocket{UnixListener: unix, path: path}
	if own.inode, err = os.Lstat(unready); err == nil {
		if err = share(unready, group, log); err == nil {
			err = os.Rename(unready, path)
		}
	}
	if err != nil {
		unix.Close()
		os.Remove(unready)
		return nil, fmt.Errorf("the socket %s cannot be made reachable: %w", path, err)
	}
	return own, nil
}

// free returns an error unless path is free, or is a socket on which nobody answers.
func free(ctx context.Context, path string) error {
	there, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if there.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s is there and is not a socket; move it away or change the settings", path)
	}
	c, err := (&net.Dialer{Timeout: probeTime}).DialContext(ctx, "unix", path)
	if err == nil {
		c.Close()
		return fmt.Errorf("another instance answers on %s; stop it first", path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("it cannot be told whether another instance uses %s: %w", path, err)
	}
	return nil
}

// share lets the MTA connect to a socket that another user created. In a directory that is closed to everybody else, as
// Postfix's private/ is, that is everybody who gets there; elsewhere it is the group with which its deliveries run.
func share(path, group string, log *slog.Logger) error {
	dir, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return err
	}
	if dir.Mode().Perm()&0o001 == 0 {
		return os.Chmod(path, 0o666)
	}
	if err := os.Chmod(path, 0o660); err != nil {
		return err
	}
	found, err := user.LookupGroup(group)
	if err == nil {
		var gid int
		if gid, err = strconv.Atoi(found.Gid); err == nil {
			err = os.Lchown(path, -1, gid)
		}
	}
	if err != nil {
		log.Warn("the socket could not be given to the group of the MTA; only this user and group can connect", "socket", path, "group", group, "error", err)
	}
	return nil
}

// An ownSocket removes its file when it is closed, unless the file is another's by then.
type ownSocket struct {
	*net.UnixListener
	path   string
	inode  fs.FileInfo
	shared bool // other instances have their sockets at this path
	once   sync.Once
	err    error
}

// Addr returns where the socket is found, which is not where it was bound.
func (s *ownSocket) Addr() net.Addr { return &net.UnixAddr{Name: s.path, Net: "unix"} }

func (s *ownSocket) Close() error {
	s.once.Do(func() { s.err = errors.Join(s.UnixListener.Close(), s.remove()) })
	return s.err
}

// remove leaves the file where it cannot be told whose it is: the next instance replaces a socket on which nobody
// answers.
func (s *ownSocket) remove() error {
	if s.shared {
		release, err := claim.Take(context.Background(), s.path, claimTime)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // the directory is gone, and the socket with it
		}
		if err != nil {
			return fmt.Errorf("the socket %s is left behind: %w", s.path, err)
		}
		defer release()
	}
	there, err := os.Lstat(s.path)
	if err != nil || !os.SameFile(there, s.inode) {
		return nil
	}
	return os.Remove(s.path)
}
