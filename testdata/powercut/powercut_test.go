package powercut_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mailbag/testdata/powercut"
)

// Each step is done in one directory, one after another.
func TestWhatWasNotSyncedIsLost(t *testing.T) {
	t.Parallel()
	steps := []struct {
		name             string
		act              func(dir string) error
		lost, kept, torn string
	}{
		{"a directory that its parent does not know", func(dir string) error {
			return os.Mkdir(filepath.Join(dir, "d"), 0o700)
		}, "d", "", ""},
		{"and that it knows", syncing("."), "", "", ""},
		{"a file that was written", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "d/a"), []byte("text"), 0o600)
		}, "d/a", "", ""},
		{"whose content alone is on the disk", syncing("d/a"), "d/a", "", ""},
		{"and that has its name there too", syncing("d"), "", "d/a", ""},
		{"a copy by the kernel", func(dir string) error {
			from, err := os.Open(filepath.Join(dir, "d/a"))
			if err != nil {
				return err
			}
			defer from.Close()
			to, err := os.Create(filepath.Join(dir, "d/b"))
			if err != nil {
				return err
			}
			defer to.Close()
			_, err = io.Copy(to, from)
			return err
		}, "d/b", "d/a", ""},
		{"whose name alone is on the disk", syncing("d"), "d/b", "d/a", ""},
		{"and in whose place another is put", func(dir string) error {
			return os.Rename(filepath.Join(dir, "d/b"), filepath.Join(dir, "d/a"))
		}, "d/a d/b", "d/a", "d/a"},
		{"in a directory that knows it", syncing("d"), "d/a", "", "d/a"},
		{"with its content", syncing("d/a"), "", "d/a", "d/a"},
		{"which is removed", func(dir string) error { return os.Remove(filepath.Join(dir, "d/a")) }, "d/a", "d/a", "d/a"},
		{"for good", syncing("d"), "", "", "d/a"},
	}
	trace := powercut.Watch(t, func(dir string) {
		for i, step := range steps {
			if err := step.act(dir); err != nil {
				t.Fatal(err)
			}
			fmt.Printf("done %d.\n", i)
		}
	})
	for i, step := range steps {
		disk := trace.At(fmt.Sprintf("done %d.", i))
		for what, c := range map[string]struct {
			got  []string
			want string
		}{"lost": {disk.Lost("."), step.lost}, "kept": {disk.Kept("."), step.kept}, "torn": {disk.Torn("."), step.torn}} {
			if got := strings.Join(c.got, " "); got != c.want {
				t.Errorf("%s: %s is %q, want %q", step.name, what, got, c.want)
			}
		}
	}
	if end := trace.At("done 11."); end.Holds("d/a", "text") {
		t.Error("a file that was removed has content")
	}
	if written := trace.At("done 4."); !written.Holds("d/a", "text") {
		t.Error("a file has not the content that it was given")
	}
}

// syncing brings a file or a directory to the disk.
func syncing(name string) func(dir string) error {
	return func(dir string) error {
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		defer f.Close()
		return f.Sync()
	}
}
