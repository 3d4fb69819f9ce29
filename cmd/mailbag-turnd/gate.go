package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"mailbag/cmd/internal/daemon"
)

// A gateDirectory is where the sockets of turns are. Who can write there could put a socket in the place of an
// account's and be given its mail, so nobody else may.
type gateDirectory string

// prepare makes the directory where it is missing.
func (d gateDirectory) prepare() error {
	if err := os.MkdirAll(string(d), 0o755); err != nil {
		return fmt.Errorf("the directory of the turns' sockets cannot be made; make it, owned by the user that mailbag-turnd runs as: %w", err)
	}
	info, err := os.Stat(string(d))
	if err != nil {
		return fmt.Errorf("the directory of the turns' sockets cannot be used: %w", err)
	}
	if info.Mode().Perm()&0o022 != 0 {
		return daemon.Final(fmt.Errorf("others may write into %s (mode %04o) and could take accounts' mail there; chmod go-w it", d, info.Mode().Perm()))
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; owner != 0 && int(owner) != os.Geteuid() {
		return daemon.Final(fmt.Errorf("%s belongs to another user (%d), who could take accounts' mail there; chown it to the user that mailbag-turnd runs as", d, owner))
	}
	return nil
}

// clean removes sockets of turns that ended with their process, and any that it was just opening. Nobody answers on
// them; the MTA would only find them refusing where it should find nothing.
func (d gateDirectory) clean() error {
	left, err := filepath.Glob(filepath.Join(string(d), "*.sock*"))
	if err != nil {
		return err
	}
	for _, path := range left {
		if info, err := os.Lstat(path); err != nil || info.Mode().Type() != fs.ModeSocket {
			continue
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("a socket that was left behind cannot be removed: %w", err)
		}
	}
	return nil
}

// open opens the socket of an account's turn, as the MTA's transport names it. Its place need not be claimed: who has the
// control socket is the only mailbag-turnd. A lock could be held by whoever can open the directory, and that is everybody.
func (d gateDirectory) open(ctx context.Context, account, group string, log *slog.Logger) (net.Listener, error) {
	return daemon.ListenUnix(ctx, filepath.Join(string(d), account+".sock"), group, log)
}
