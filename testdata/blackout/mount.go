package blackout

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// Mounted is a disk in its place.
type Mounted struct {
	dir    string
	disk   *disk
	server *fuse.Server
}

// Available is nil where a file system of a program can be mounted.
func Available() error {
	if os.Geteuid() != 0 {
		return errors.New("only root mounts file systems")
	}
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("no file system that forgets can be mounted: %w", err)
	}
	return f.Close()
}

// Mount mounts an empty disk at a directory until the test ends. Where that cannot be done the test is skipped. What runs on
// the disk has to have ended before, and the test itself opens no files there: the kernel would ask it, while it waits.
func Mount(t testing.TB, dir string, opt Options) *Mounted {
	t.Helper()
	if err := Available(); err != nil {
		t.Skip(err)
	}
	m := &Mounted{dir: dir, disk: newDisk(opt)}
	if err := m.mount(); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() {
		if err := m.unmount(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// Settle brings all that was written so far to the disk, as the kernel does by itself within half a minute.
func (m *Mounted) Settle() {
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	m.disk.settle()
}

// Fail has the power fail at the nth time from now that something is written, synced or named: that is not done any more,
// and from then on nothing can be read or written. It says when.
func (m *Mounted) Fail(n int) <-chan struct{} {
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	m.disk.left = n
	return m.disk.dead
}

// Return mounts in the same place what is left after the power failed. What ran on the disk must have been ended.
func (m *Mounted) Return(chance *rand.Rand) error {
	<-m.disk.dead
	if err := m.unmount(); err != nil {
		return err
	}
	m.disk = m.disk.after(chance)
	return m.mount()
}

func (m *Mounted) mount() error {
	var err error
	m.server, err = fs.Mount(m.dir, &entry{disk: m.disk, node: m.disk.root}, &fs.Options{
		MountOptions:    fuse.MountOptions{FsName: "blackout", Name: "blackout", DirectMountStrict: true, DisableXAttrs: true, AllowOther: true},
		NullPermissions: true,
		RootStableAttr:  &fs.StableAttr{Ino: m.disk.root.inode},
	})
	if err != nil {
		return fmt.Errorf("nothing can be mounted at %s: %w", m.dir, err)
	}
	return nil
}

func (m *Mounted) unmount() error {
	// A process that was killed may still be about to close its files.
	if err := syscall.Unmount(m.dir, syscall.MNT_DETACH); err != nil {
		return fmt.Errorf("%s cannot be unmounted: %w", m.dir, err)
	}
	return nil
}
