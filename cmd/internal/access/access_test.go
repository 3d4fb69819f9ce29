package access

import (
	"errors"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func TestFileIsUsableOnlyByWhomItIsFor(t *testing.T) {
	t.Parallel()
	const other = "nobody"
	if self, err := user.Current(); err != nil || self.Username == other {
		t.Skip("this needs another user than ", other)
	}
	u, err := Lookup(other)
	if err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	key, link := filepath.Join(dir, "key.pem"), filepath.Join(t.TempDir(), "link.pem")
	if err := errors.Join(os.WriteFile(key, nil, 0o600), os.Symlink(key, link)); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{filepath.Dir(dir), dir, filepath.Dir(link)} { // the first is closed to others
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		what      string
		key, dir  os.FileMode
		path      string
		need      Right
		want, why string // empty: he may
	}{
		{"closed", 0o600, 0o755, key, Read, key, "may not read " + key + ": " + key + " has the mode 0600"},
		{"open to read", 0o604, 0o755, key, Read, "", ""},
		{"open to read only", 0o604, 0o755, key, Read | Write, key, "may not write " + key},
		{"open to all", 0o606, 0o755, key, Read | Write, "", ""},
		{"in a closed directory", 0o604, 0o700, key, Read, dir, "may not read " + key + ": " + dir + " has the mode 0700"},
		{"in one that can be listed only", 0o604, 0o704, key, Read, dir, "has the mode 0704"},
		{"by a link into a closed one", 0o604, 0o700, link, Read, dir, "may not read " + link},
	} {
		if err := errors.Join(os.Chmod(key, c.key), os.Chmod(dir, c.dir)); err != nil {
			t.Fatal(err)
		}
		err := u.Denied(c.path, c.need)
		var d *Denial
		if c.want == "" && err != nil || c.want != "" && (!errors.As(err, &d) || d.At != c.want || d.Owned || !strings.Contains(err.Error(), c.why)) {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}

func TestOwnersModeDecidesForTheOwner(t *testing.T) {
	t.Parallel()
	self, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	if self.Uid == "0" {
		if self, err = user.Lookup("nobody"); err != nil {
			t.Skip(err)
		}
	}
	u, err := LookupAlone(self.Username)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		uid, err := strconv.Atoi(self.Uid)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat("/")
		if err != nil || info.Mode().Perm()&1 == 0 {
			t.Skip("the root directory is closed")
		}
		if err := errors.Join(os.Chmod(filepath.Dir(filepath.Dir(path)), 0o755), os.Chown(path, uid, 0)); err != nil {
			t.Fatal(err)
		}
	}
	if err := u.Denied(path, Read|Write); err != nil {
		t.Errorf("his own file: %v", err)
	}
	if err := os.Chmod(path, 0o077); err != nil {
		t.Fatal(err)
	}
	var d *Denial
	if err := u.Denied(path, Read); !errors.As(err, &d) || !d.Owned {
		t.Errorf("his own file, whose mode grants nothing to him: %v", err)
	}
}

func TestSocketThatTheMTACannotReachIsExplained(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil { // which is closed to others
		t.Fatal(err)
	}
	file, closed, open := filepath.Join(dir, "file"), filepath.Join(dir, "closed"), filepath.Join(dir, "open")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]os.FileMode{closed: 0o700, open: 0o666} {
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "none"): "there is no socket", file: "is not a socket", closed: "may not connect", open: "",
	} {
		if got := Unreachable(path, "nobody"); (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	if got := Unreachable(open, "no-such-user"); !strings.Contains(got, "no user") {
		t.Errorf("of an unknown owner: %q", got)
	}
}
