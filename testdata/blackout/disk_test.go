package blackout

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What may be there after a power cut, by what was done. Each is tried often enough for all that may be to come.
func TestWhatWasSyncedIsThereAndTheRestByChance(t *testing.T) {
	for name, c := range map[string]struct {
		opt  Options
		done string
		may  []string // names and contents
	}{
		"nothing synced":              {Options{}, "printf old >a", []string{"", "a=", "a=old"}},
		"the content alone":           {Options{}, "printf old >a; sync a", []string{"", "a=old"}},
		"the content, with its names": {Options{Journal: true}, "mkdir d; printf old >d/a; sync d/a", []string{"d/a=old"}},
		"content and name":            {Options{}, "printf old >a; sync a .", []string{"a=old"}},
		"the name alone":              {Options{}, "printf old >a; sync .", []string{"a=", "a=old"}},
		"written again":               {Options{}, "printf old >a; sync a .; printf new >a", []string{"a=old", "a=new", "a="}},
		"renamed":                     {Options{}, "printf old >a; sync a .; mv a b", []string{"a=old", "b=old"}},
		"renamed elsewhere":           {Options{}, "mkdir d; printf old >a; sync a .; mv a d/b; sync d", []string{"a=old d/b=old", "d/b=old"}},
		"gone elsewhere":              {Options{}, "mkdir d; printf old >a; sync a .; mv a d/b; sync .", []string{"d/b=old"}},
		"put over another":            {Options{}, "printf old >a; printf new >b; sync a b .; mv b a", []string{"a=old b=new", "a=new"}},
		"put over another with its content unsynced": {Options{Journal: true}, "printf old >a; printf new >b; mv b a; sync a", []string{"a=new"}},
		"mounted with sync":                          {Options{Sync: true}, "printf old >a; mkdir d; mv a d/b; printf new >>d/b", []string{"d/b=oldnew"}},
		"removed":                                    {Options{}, "printf old >a; sync a .; rm a", []string{"", "a=old"}},
		"removed for good":                           {Options{}, "printf old >a; sync a .; rm a; sync .", []string{""}},
		"linked":                                     {Options{}, "printf old >a; sync a .; ln a b; sync .; rm a", []string{"a=old b=old", "b=old"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			may := map[string]bool{}
			for _, m := range c.may {
				may[m] = false
			}
			dir := t.TempDir()
			m := Mount(t, dir, c.opt)
			chance := rand.New(rand.NewPCG(1, 2))
			for range 50 {
				run(t, dir, "rm -rf * && sync . && "+c.done)
				cut(t, m, dir, chance)
				left := run(t, dir, `find . -type f | sort | while read -r f; do echo "${f#./}=$(cat "$f" | tr -d '\0')"; done`)
				left = strings.Join(strings.Fields(left), " ")
				if _, ok := may[left]; !ok {
					t.Fatalf("%q is left", left)
				}
				may[left] = true
			}
			for m, came := range may {
				if !came {
					t.Errorf("%q was never left", m)
				}
			}
		})
	}
}

func TestWritesAreTornAtSectors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m := Mount(t, dir, Options{})
	chance := rand.New(rand.NewPCG(3, 4))
	torn := false
	for range 100 {
		run(t, dir, "head -c 4096 /dev/zero | tr '\\0' a >f; sync f .; head -c 4096 /dev/zero | tr '\\0' b | dd of=f bs=4096 conv=notrunc status=none")
		cut(t, m, dir, chance)
		content := run(t, dir, "cat f")
		if len(content) != 4096 {
			t.Fatalf("the file has %d octets", len(content))
		}
		for i := 0; i < len(content); i += sector {
			if s := content[i : i+sector]; s != strings.Repeat(s[:1], sector) {
				t.Fatalf("a sector is torn: %q", s)
			}
		}
		torn = torn || strings.Contains(content, "ab") && strings.Contains(content, "ba")
	}
	if !torn {
		t.Error("no write was torn")
	}
}

func TestWithoutPowerNothingIsReadOrWritten(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m := Mount(t, dir, Options{})
	run(t, dir, "printf old >a; sync a .")
	dead := m.Fail(3)
	run(t, dir, "touch b") // a name and its times
	select {
	case <-dead:
		t.Error("the power failed too early")
	default:
	}
	for _, c := range []string{"sync DIR/b", "mv DIR/a DIR/c", "cat DIR/a", "touch DIR/b"} {
		out, err := exec.Command("sh", "-c", strings.ReplaceAll(c, "DIR", dir)).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "Input/output error") {
			t.Errorf("%s: %v, %s", c, err, out)
		}
	}
	if err := m.Return(rand.New(rand.NewPCG(5, 6))); err != nil {
		t.Fatal(err)
	}
	if got := run(t, dir, "cat a"); got != "old" {
		t.Errorf("the file has %q", got)
	}
}

// cut has the power fail at once.
func cut(t *testing.T, m *Mounted, dir string, chance *rand.Rand) {
	t.Helper()
	m.Fail(1)
	if err := exec.Command("touch", filepath.Join(dir, "last")).Run(); err == nil {
		t.Fatal("the power did not fail")
	}
	if err := m.Return(chance); err != nil {
		t.Fatal(err)
	}
}

// run runs a shell in the directory. It goes there itself: the fork of a program that serves a file system may not ask it.
func run(t *testing.T, dir, script string) string {
	t.Helper()
	cmd := exec.Command("sh", "-c", `cd "$1" && eval "$2"`, "sh", dir, script)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", script, err)
	}
	return string(out)
}
