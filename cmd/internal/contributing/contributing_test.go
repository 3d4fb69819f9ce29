// Package contributing compares CONTRIBUTING.md with the code that it describes.
package contributing

import (
	"errors"
	"go/build"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const root = "../../.."

func text(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, "CONTRIBUTING.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var quoted = regexp.MustCompile("`([^`]+)`")

func quotedIn(s string) (all []string) {
	for _, m := range quoted.FindAllStringSubmatch(s, -1) {
		all = append(all, m[1])
	}
	return all
}

// packages are ours, without testdata, and what of ours they import besides their tests.
func packages(t *testing.T) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		name := entry.Name()
		switch {
		case err != nil || !entry.IsDir() || path == root:
			return err
		case name == "testdata" || name[0] == '.':
			return filepath.SkipDir
		}
		pkg, err := build.ImportDir(path, 0)
		if _, none := errors.AsType[*build.NoGoError](err); none {
			return nil
		}
		var ours []string
		for _, path := range pkg.Imports {
			if path, isOurs := strings.CutPrefix(path, "mailbag/"); isOurs {
				ours = append(ours, path)
			}
		}
		all[strings.TrimPrefix(path, root+"/")] = ours
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// covers reports whether a name in the table, such as cmd/internal/..., stands for the package.
func covers(name, pkg string) bool {
	tree, isTree := strings.CutSuffix(name, "/...")
	return pkg == name || isTree && (pkg == tree || strings.HasPrefix(pkg, tree+"/"))
}

// TestPackagesImportWhatTheTableSays takes the first row that a package is in. A row for one package names all that it
// imports, and nothing else.
func TestPackagesImportWhatTheTableSays(t *testing.T) {
	t.Parallel()
	type row struct {
		pkg     string
		imports []string
	}
	var rows []row
	_, section, _ := strings.Cut(text(t), "\n## What imports what\n")
	section, _, _ = strings.Cut(section, "\n## ")
	for line := range strings.Lines(section) {
		if cells := strings.Split(line, "|"); len(cells) == 5 && strings.Contains(cells[1], "`") {
			rows = append(rows, row{quotedIn(cells[1])[0], quotedIn(cells[2])})
		}
	}
	found := map[string]bool{}
	for pkg, imports := range packages(t) {
		i := slices.IndexFunc(rows, func(r row) bool { return covers(r.pkg, pkg) })
		if i < 0 {
			t.Errorf("%s is not in the table", pkg)
			continue
		}
		r := rows[i]
		found[r.pkg] = true
		for _, path := range imports {
			if !slices.ContainsFunc(r.imports, func(name string) bool { return covers(name, path) }) {
				t.Errorf("%s imports %s, which the table does not say", pkg, path)
			}
		}
		for _, name := range r.imports {
			if r.pkg == pkg && !slices.Contains(imports, name) {
				t.Errorf("the table has %s import %s, which it does not", pkg, name)
			}
		}
	}
	for _, r := range rows {
		if !found[r.pkg] {
			t.Errorf("the table has %s, which is not there", r.pkg)
		}
	}
	if len(rows) == 0 {
		t.Error("there is no table")
	}
}

func TestFilesThatAreNamedAreThere(t *testing.T) {
	t.Parallel()
	// A path in lower case; what is built, and a name that stands for others, is none.
	path := regexp.MustCompile(`^[a-z.][-a-z0-9_.*]*(/[-a-z0-9_.*]*[a-z0-9])+$`)
	for _, name := range quotedIn(text(t)) {
		if !path.MatchString(name) || strings.HasPrefix(name, "dist/") {
			continue
		}
		if there, err := filepath.Glob(filepath.Join(root, name)); err != nil || len(there) == 0 {
			t.Errorf("%s is not there: %v", name, err)
		}
	}
}
