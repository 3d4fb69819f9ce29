package wholefile

import (
	"errors"
	"io"
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
	for name, write := range map[string]func(string, []byte, fs.FileMode) error{"Replace": Replace, "Write": Write} {
		dir := t.TempDir()
		if err := errors.Join(os.Mkdir(filepath.Join(dir, "there"), 0o755), os.Symlink("there/link", filepath.Join(dir, "link")),
			os.Symlink(filepath.Join(dir, "there", "file"), filepath.Join(dir, "there", "link")), os.Symlink("loop", filepath.Join(dir, "loop"))); err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{"first", "second"} { // to where nothing is yet, and in place of a file
			if err := write(filepath.Join(dir, "link"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(filepath.Join(dir, "there", "file")); err != nil || string(got) != text {
				t.Errorf("%s: the file has %q, %v; want %q", name, got, err, text)
			}
		}
		for _, link := range []string{"link", "there/link"} {
			if _, err := os.Readlink(filepath.Join(dir, link)); err != nil {
				t.Errorf("%s: the link is gone: %v", name, err)
			}
		}
		if err := write(filepath.Join(dir, "loop"), nil, 0o600); !errors.Is(err, syscall.ELOOP) {
			t.Errorf("%s: a link to itself: %v", name, err)
		}
	}
}

func TestAPipeIsWrittenTo(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	pipe, err := os.OpenFile(path, os.O_RDWR, 0) // which waits for no writer
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	if err := Write(path, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Type() != fs.ModeNamedPipe {
		t.Fatalf("the pipe is %v now, %v", st.Mode(), err)
	}
	got := make([]byte, 4)
	if _, err := io.ReadFull(pipe, got); err != nil || string(got) != "text" {
		t.Errorf("the pipe had %q, %v", got, err)
	}
}

// The umask is the whole process's: this test does not run beside others.
func TestTheUmaskHolds(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o027))
	path := filepath.Join(t.TempDir(), "file")
	for _, c := range []struct {
		write func(string, []byte, fs.FileMode) error
		want  fs.FileMode
	}{{Write, 0o640}, {Replace, 0o644}} {
		if err := c.write(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != c.want {
			t.Errorf("the mode is %v, %v; want %v", st.Mode(), err, c.want)
		}
	}
}
