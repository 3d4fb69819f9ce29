// Package tables writes the files that the MTA reads by itself, see package routes.
//
// It promises that a reader finds the former file or the new one, and that a file which says the same already is left
// as it is, so that the MTA does not read it again. Security: what root writes belongs to the owner of the directory
// above, who is the user that the daemons run as. That user is not trusted: no link of theirs leads root elsewhere.
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
// missing, and none above it; it may not be a link that leads elsewhere.
func Write(dir string, all []routes.Table) error {
	in, err := openDirectory(dir)
	if err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	defer in.Close()
	for _, t := range all {
		if there, err := in.ReadFile(t.Name); err == nil && bytes.Equal(there, t.Content) {
			continue
		}
		if err := wholefile.ReplaceIn(in, t.Name, t.Content, 0o644, belong(in)); err != nil {
			return fmt.Errorf("%s: %w", filepath.Join(dir, t.Name), err)
		}
	}
	return nil
}

// openDirectory makes it where it is missing, open to Postfix, whatever the umask.
func openDirectory(path string) (*os.Root, error) {
	above, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer above.Close()
	name := filepath.Base(path)
	made := above.Mkdir(name, 0o755)
	if made != nil && !errors.Is(made, fs.ErrExist) {
		return nil, made
	}
	in, err := above.OpenRoot(name)
	if err != nil || made != nil {
		return in, err
	}
	itself, err := in.Open(".")
	if err == nil {
		err = errors.Join(itself.Chmod(0o755), belong(above)(itself), itself.Close())
	}
	if err != nil {
		in.Close()
		return nil, err
	}
	return in, nil
}

// belong gives what root made to the owner of the directory that it is in.
func belong(in *os.Root) func(*os.File) error {
	return func(f *os.File) error {
		if os.Geteuid() != 0 {
			return nil
		}
		directory, err := in.Stat(".")
		if err != nil {
			return err
		}
		owner := directory.Sys().(*syscall.Stat_t)
		return f.Chown(int(owner.Uid), int(owner.Gid))
	}
}
