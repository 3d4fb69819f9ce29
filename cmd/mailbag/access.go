package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"mailbag/meter"
)

// lacking makes an error of a ledger that is kept from somebody say what he lacks.
func lacking(ledger string, err error) error {
	switch {
	case os.Geteuid() == 0 || meter.Remote(ledger) || !errors.Is(err, meter.ErrUnavailable) || errors.Is(err, meter.ErrNoLedger):
		return err
	case errors.Is(unix.Access(ledger, unix.R_OK), unix.EACCES):
		return fmt.Errorf("you may not read the ledger %s; use sudo, or be a member of the group %s to look at it", ledger, groupOf(ledger))
	case unix.Access(ledger, unix.W_OK) != nil && missing(ledger+"-shm"):
		// SQLite reads beside writers by the index of its write-ahead log, and has to make that where nobody else did.
		return fmt.Errorf("who may only read the ledger %s can do so while mailbag-policyd or another daemon has it open, and none does; start it, or use sudo", ledger)
	case errors.Is(err, meter.ErrReadOnly):
		return fmt.Errorf("you may read the ledger %s, but not change it; use sudo", ledger)
	}
	return err
}

func missing(file string) bool {
	_, err := os.Stat(file)
	return errors.Is(err, fs.ErrNotExist)
}

// groupOf is the group of a file, or of the directory around it that hides it.
func groupOf(file string) string {
	for {
		if st, err := os.Stat(file); err == nil {
			id := strconv.FormatUint(uint64(st.Sys().(*syscall.Stat_t).Gid), 10)
			if g, err := user.LookupGroupId(id); err == nil {
				return g.Name
			}
			return id
		}
		file = filepath.Dir(file)
	}
}
