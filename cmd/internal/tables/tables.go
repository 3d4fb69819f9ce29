// Package tables writes the files that the MTA reads by itself, see package routes.
//
// It promises that a reader finds the former file or the new one, and that a file which says the same already is left
// as it is, so that the MTA does not read it again. Security: what root writes belongs to the owner of the directory
// above, who is the user that the daemons run as.
package tables

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"mailbag/cmd/internal/wholefile"
	"mailbag/policy/routes"
)

// Write replaces those tables in the directory that say something else, in their order. The directory is made where it is
// missing, and none above it.
func Write(dir string, all []routes.Table) error {
	if err := makeDirectory(dir); err != nil {
		return err
	}
	for _, t := range all {
		file := filepath.Join(dir, t.Name)
		if there, err := os.ReadFile(file); err == nil && bytes.Equal(there, t.Content) {
			continue
		}
		err := wholefile.Replace(file, t.Content, 0o644)
		if err == nil {
			err = giveAway(file)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	return nil
}

// makeDirectory makes it open to Postfix, whatever the umask.
func makeDirectory(dir string) error {
	err := os.Mkdir(dir, 0o755)
	switch {
	case errors.Is(err, fs.ErrExist):
		return nil
	case err != nil:
		return err
	}
	return errors.Join(os.Chmod(dir, 0o755), giveAway(dir))
}

func giveAway(path string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	above, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return err
	}
	owner := above.Sys().(*syscall.Stat_t)
	return os.Chown(path, int(owner.Uid), int(owner.Gid))
}
