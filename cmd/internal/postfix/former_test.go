package postfix

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"mailbag/cmd/internal/mta"
)

func TestSetupIsIdempotentAndRemovalRestores(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/maincf/*.cf")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			in, _ := configured(t, string(text))
			services, err := os.ReadFile(strings.TrimSuffix(file, ".cf") + ".master")
			if err == nil {
				appendTo(t, filepath.Join(in.ConfigDir, "master.cf"), services)
			} else if !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			before := written(t, in)
			first := setUp(t, in, longHold())
			wired := shown(t, in)
			golden(t, strings.TrimSuffix(file, ".cf")+".diff", strings.ReplaceAll(first.Diff(), string(noRoutes), "/var/lib/mailbag/postfix"))
			if again := setUp(t, in, longHold()); !again.Empty() {
				t.Errorf("a second setup changes something:\n%s", again.Diff())
			}
			found, err := in.Check(t.Context(), longHold())
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range found {
				if f.Remedy == runSetup {
					t.Errorf("after setup check says to run it: %s", f.Text)
				}
			}
			// A wiring that is turned off and on again, and a Postfix without the file of former values, end up the same.
			setUp(t, in, wiring())
			setUp(t, in, longHold())
			if diff := cmp.Diff(wired, shown(t, in)); diff != "" {
				t.Errorf("setup after a smaller setup differs: %s", diff)
			}
			for _, stance := range []func() (mta.Plan, error){
				func() (mta.Plan, error) { return in.PlanAside(t.Context(), since) },
				func() (mta.Plan, error) { return in.PlanIn(t.Context()) },
			} {
				p, err := stance()
				if err != nil {
					t.Fatal(err)
				}
				apply(t, p)
			}
			remove(t, in)
			if diff := cmp.Diff(before, written(t, in)); diff != "" {
				t.Errorf("a removal does not restore: %s", diff)
			}
			p, err := in.PlanRemoval(t.Context(), wiring())
			if err != nil || !p.Empty() {
				t.Errorf("a second removal changes something: %v\n%s", err, p.Diff())
			}
		})
	}
}

func appendTo(t *testing.T, path string, text []byte) {
	t.Helper()
	old, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, append(old, text...), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// golden compares with a file; UPDATE=1 writes it.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s: %s", file, diff)
	}
}

func TestRemovalWithoutTheFileOfFormerValuesTakesOurEntriesOut(t *testing.T) {
	t.Parallel()
	in, _ := configured(t, "compatibility_level = 3.6\nrelay_domains = a.example\n")
	before := shown(t, in)
	setUp(t, in, wiring())
	if err := os.Remove(filepath.Join(in.ConfigDir, FormerFile)); err != nil {
		t.Fatal(err)
	}
	setUp(t, in, wiring()) // which finds no files that are the operator's alone
	remove(t, in)
	got := shown(t, in)
	edit(t, in, "-X", "fast_flush_domains") // what is left of it is Postfix's default
	if diff := cmp.Diff(before, shown(t, in)); diff != "" {
		t.Errorf("%s\n%s", diff, got)
	}
}

// postconf gives both files the mode 0644, and the file of former values has all that is in them.
func TestWhoMayNotReadPostfixsFilesMayNotDoSoAfterSetup(t *testing.T) {
	t.Parallel()
	in, _ := configured(t, "compatibility_level = 3.6\n")
	files := []string{"main.cf", "master.cf"}
	for _, name := range files {
		if err := os.Chmod(filepath.Join(in.ConfigDir, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	mode := func(name string) {
		st, err := os.Stat(filepath.Join(in.ConfigDir, name))
		if err != nil {
			t.Fatal(err)
		}
		if st.Mode().Perm() != 0o600 {
			t.Errorf("%s has the mode %v", name, st.Mode())
		}
	}
	setUp(t, in, wiring())
	for _, name := range append(files, FormerFile) {
		mode(name)
	}
	remove(t, in)
	for _, name := range files {
		mode(name)
	}
}
