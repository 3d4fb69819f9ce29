// Package access says whether a user may use a file, by owners and modes. Root, as whom it is asked, may use every
// file, so trying tells nothing of the daemons' user or of the MTA's.
//
// It knows the modes that POSIX has, and no access control lists: what only those grant looks denied.
package access

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
)

// A User is somebody with his groups.
type User struct {
	name   string
	uid    string
	groups []string
}

// Lookup finds a user with all his groups, as whom systemd starts a daemon.
func Lookup(name string) (User, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return User{}, err
	}
	groups, err := u.GroupIds()
	if err != nil {
		return User{}, fmt.Errorf("the groups of the user %s cannot be seen: %w", name, err)
	}
	return User{name, u.Uid, groups}, nil
}

// LookupAlone finds a user with his own group alone, as whom Postfix's daemons and Exim's deliveries run.
func LookupAlone(name string) (User, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return User{}, err
	}
	return User{name, u.Uid, []string{u.Gid}}, nil
}

// A Right is what a user needs to do with a file, in the bits of others. They can be joined.
type Right uint32

const (
	Search Right = 1 << iota // a directory
	Write                    // also to connect to a socket
	Read
)

// verb names the right that matters most.
func (r Right) verb(of os.FileMode) string {
	switch {
	case of.Type() == os.ModeSocket:
		return "connect to"
	case r&Write != 0:
		return "write"
	case r&Read != 0:
		return "read"
	}
	return "search"
}

// A Denial is why a user may not use a file.
type Denial struct {
	Path  string // what he cannot use
	At    string // what keeps him out: the file itself, or a directory that leads to it
	Owned bool   // At is his own, and so its mode is wrong and not its owner
	text  string
}

func (d *Denial) Error() string { return d.text }

// Denied returns nil where the user may use the file. Else the error is a [*Denial], or that of looking at it.
func (u User) Denied(path string, need Right) error {
	// A path that leads through symbolic links, as certbot's do, leads through other directories too.
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	wanted, verb := need, ""
	for at := real; ; at = filepath.Dir(at) {
		info, err := os.Stat(at)
		if err != nil {
			return err
		}
		if at == real {
			verb = need.verb(info.Mode())
		}
		sys, granted := info.Sys().(*syscall.Stat_t), Right(info.Mode().Perm())
		own := strconv.Itoa(int(sys.Uid)) == u.uid
		switch {
		case own:
			granted >>= 6
		case slices.Contains(u.groups, strconv.Itoa(int(sys.Gid))):
			granted >>= 3
		}
		if granted&wanted != wanted && u.uid != "0" {
			return &Denial{path, at, own, fmt.Sprintf("the user %s may not %s %s: %s has the mode %04o, uid %d and gid %d",
				u.name, verb, path, at, info.Mode().Perm(), sys.Uid, sys.Gid)}
		}
		if at == filepath.Dir(at) {
			return nil
		}
		wanted = Search
	}
}

// Unreachable says why a process of the MTA, which runs as its owner with that user's own group alone, cannot connect to a
// socket; empty if it can.
func Unreachable(path, owner string) string {
	st, err := os.Stat(path)
	if err != nil {
		return "there is no socket " + path
	}
	if st.Mode().Type() != os.ModeSocket {
		return path + " is not a socket"
	}
	u, err := LookupAlone(owner)
	if err != nil {
		return fmt.Sprintf("there is no user %s, as whom the MTA runs", owner)
	}
	if err := u.Denied(path, Write); err != nil {
		return err.Error()
	}
	return ""
}
