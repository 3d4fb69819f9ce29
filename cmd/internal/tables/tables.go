// Package tables writes the files that the MTA reads by itself, see package routes.
//
// It promises that a reader finds the former file or the new one, and that a file which says the same already is left
// as it is, so that the MTA does not read it again. Security: what root writes belongs to the owner of the directory
// above, who is the user that the daemons run as. That user is not trusted: no link of theirs leads root elsewhere.
package tables

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
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
		if says(in, t) {
			continue
		}
		if err := wholefile.ReplaceIn(in, t.Name, t, 0o644, belong(in)); err != nil {
			return fmt.Errorf("%s: %w", filepath.Join(dir, t.Name), err)
		}
	}
	return nil
}

// says reports whether the file has that content. Most that a change makes differ in the first lines.
func says(in *os.Root, t routes.Table) bool {
	f, err := in.Open(t.Name)
	if err != nil {
		return false
	}
	defer f.Close()
	there := &comparison{with: bufio.NewReader(f)}
	if _, err = t.WriteTo(there); err != nil {
		return false
	}
	_, err = there.with.ReadByte()
	return err == io.EOF
}

// A comparison is a writer that takes what another file has, too, and no more.
type comparison struct {
	with *bufio.Reader
	had  []byte
}

var errDiffers = errors.New("it differs")

func (c *comparison) Write(p []byte) (int, error) {
	c.had = slices.Grow(c.had[:0], len(p))[:len(p)]
	if _, err := io.ReadFull(c.with, c.had); err != nil {
		return 0, err
	}
	if !bytes.Equal(c.had, p) {
		return 0, errDiffers
	}
	return len(p), nil
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
