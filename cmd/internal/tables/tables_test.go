package tables

import (
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"mailbag/policy/routes"
)

const stranger = 65534

// directoryOf makes one that is the stranger's.
func directoryOf(t *testing.T, path string) string {
	t.Helper()
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, stranger, stranger); err != nil {
		t.Fatal(err)
	}
	return path
}

func asRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root writes for others")
	}
}

func TestWhatRootWritesBelongsToTheOwnerOfTheDirectory(t *testing.T) {
	asRoot(t)
	dir := filepath.Join(directoryOf(t, filepath.Join(t.TempDir(), "state")), "postfix")
	if err := Write(dir, table("new")); err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]os.FileMode{dir: 0o755 | os.ModeDir, filepath.Join(dir, "routes.cdb"): 0o644} {
		if st, err := os.Lstat(path); err != nil || st.Mode() != mode || st.Sys().(*syscall.Stat_t).Uid != stranger {
			t.Errorf("%s: %v, %+v", path, err, st)
		}
	}
}

func TestLinkInPlaceOfATableLeadsRootNowhere(t *testing.T) {
	asRoot(t)
	state := directoryOf(t, filepath.Join(t.TempDir(), "state"))
	dir := directoryOf(t, filepath.Join(state, "postfix"))
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	if err := os.Symlink(elsewhere, filepath.Join(dir, "routes.cdb")); err != nil {
		t.Fatal(err)
	}
	if err := Write(dir, table("new")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(elsewhere); err == nil {
		t.Error("the link was followed")
	}
	if got, err := os.ReadFile(filepath.Join(dir, "routes.cdb")); err != nil || string(got) != "new" {
		t.Errorf("the table is %q, %v", got, err)
	}
}

func TestLinkInPlaceOfTheDirectoryLeadsRootNowhere(t *testing.T) {
	asRoot(t)
	state := directoryOf(t, filepath.Join(t.TempDir(), "state"))
	elsewhere := t.TempDir()
	dir := filepath.Join(state, "postfix")
	if err := os.Symlink(elsewhere, dir); err != nil {
		t.Fatal(err)
	}
	if err := Write(dir, table("new")); err == nil {
		t.Error("the link was followed")
	}
	if all, err := os.ReadDir(elsewhere); err != nil || len(all) > 0 {
		t.Errorf("%v was written elsewhere (%v)", all, err)
	}
}

func TestOnlyAFileThatSaysSomethingElseIsReplaced(t *testing.T) {
	t.Parallel()
	for _, there := range []string{"new", "", "ne", "nex", "newer"} {
		dir := t.TempDir()
		file := filepath.Join(dir, "routes.cdb")
		if err := os.WriteFile(file, []byte(there), 0o644); err != nil {
			t.Fatal(err)
		}
		before, err := os.Stat(file)
		if err == nil {
			err = Write(dir, table("new"))
		}
		if err != nil {
			t.Fatal(err)
		}
		after, err := os.Stat(file)
		if got, _ := os.ReadFile(file); string(got) != "new" || err != nil || os.SameFile(before, after) != (there == "new") {
			t.Errorf("%q became %q, in the same file: %v (%v)", there, got, os.SameFile(before, after), err)
		}
	}
}

// table is one of that content.
func table(content string) []routes.Table {
	return []routes.Table{{Name: "routes.cdb", WriterTo: text(content)}}
}

type text string

func (t text) WriteTo(w io.Writer) (int64, error) {
	n, err := io.WriteString(w, string(t))
	return int64(n), err
}
