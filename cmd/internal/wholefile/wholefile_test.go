package wholefile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestReplaceLeavesOneWholeFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	for _, text := range []string{"first", "second"} {
		if err := Replace(path, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != text {
			t.Errorf("the file has %q, %v; want %q", got, err, text)
		}
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o640 {
		t.Errorf("its mode is %v, %v", st.Mode(), err)
	}
	if err := Replace(filepath.Join(dir, "none", "file"), nil, 0o600); err == nil {
		t.Error("a file was written into a directory that does not exist")
	}
	if err := os.Mkdir(filepath.Join(dir, "taken"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := Replace(filepath.Join(dir, "taken"), nil, 0o600); err == nil {
		t.Error("a file took the place of a directory")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 2 {
		t.Errorf("left behind are %v, %v", left, err)
	}
}

func TestALinkStaysAndWhatItLeadsToIsReplaced(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "there"), 0o755), os.Symlink("there/link", filepath.Join(dir, "link")),
		os.Symlink(filepath.Join(dir, "there", "file"), filepath.Join(dir, "there", "link")), os.Symlink("loop", filepath.Join(dir, "loop"))); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"first", "second"} { // to where nothing is yet, and in place of a file
		if err := Replace(filepath.Join(dir, "link"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(dir, "there", "file")); err != nil || string(got) != text {
			t.Errorf("the file has %q, %v; want %q", got, err, text)
		}
	}
	for _, link := range []string{"link", "there/link"} {
		if _, err := os.Readlink(filepath.Join(dir, link)); err != nil {
			t.Errorf("the link is gone: %v", err)
		}
	}
	if err := Replace(filepath.Join(dir, "loop"), nil, 0o600); !errors.Is(err, syscall.ELOOP) {
		t.Errorf("a link to itself: %v", err)
	}
}

func TestAddReplacesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, link, dangling := filepath.Join(dir, "file"), filepath.Join(dir, "link"), filepath.Join(dir, "dangling")
	if err := errors.Join(os.Symlink("file", link), os.Symlink("nowhere", dangling), Add(file, []byte("first"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, link, dangling} {
		if err := Add(path, []byte("second"), 0o600); !errors.Is(err, fs.ErrExist) {
			t.Errorf("Add over %s: %v", filepath.Base(path), err)
		}
	}
	// Somebody makes the file while its content is made.
	raced := filepath.Join(dir, "raced")
	if err := AddMade(raced, func(name string) error {
		return errors.Join(os.WriteFile(name, []byte("ours"), 0o600), os.WriteFile(raced, []byte("theirs"), 0o600))
	}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("AddMade over a file that came meanwhile: %v", err)
	}
	failure := errors.New("the disk is full")
	if err := AddMade(filepath.Join(dir, "failed"), func(name string) error {
		return errors.Join(os.WriteFile(name, []byte("half"), 0o600), failure)
	}); !errors.Is(err, failure) {
		t.Errorf("AddMade of what cannot be made: %v", err)
	}
	for path, want := range map[string]string{file: "first", raced: "theirs"} {
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("%s has %q, %v", filepath.Base(path), got, err)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 4 {
		t.Errorf("left behind are %v, %v", left, err)
	}
}

// The umask is the whole process's: this test does not run beside others.
func TestTheUmaskHolds(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o027))
	path := filepath.Join(t.TempDir(), "file")
	for _, c := range []struct {
		write func(string, []byte, fs.FileMode) error
		want  fs.FileMode
	}{{Add, 0o640}, {Replace, 0o644}} {
		if err := c.write(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != c.want {
			t.Errorf("the mode is %v, %v; want %v", st.Mode(), err, c.want)
		}
	}
}
