package daemon

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestExitStatusTellsFailureFromWrongUsage(t *testing.T) {
	t.Parallel()
	p := Program{Name: "mailbag-testd"} // none of these cases comes to New
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good, bad := file("good.toml", "[limits]\nmessages = 5\n"), file("bad.toml", "[limits]\nmesages = 5\n")
	for _, c := range []struct {
		args        []string
		status      int
		out, errors string
	}{
		{[]string{"--version"}, Done, p.Name + " ", ""},
		{[]string{"--check", "--config", good}, Done, "settings are valid\n", ""},
		{[]string{"--check", "--config", bad}, Failed, "", "line 2: limits.mesages"},
		{[]string{"--check", "--config", filepath.Join(dir, "missing.toml")}, Failed, "", "missing.toml"},
		{[]string{"--help"}, Done, "", "-config FILE"},
		{[]string{"--foo"}, WrongUsage, "", "-foo"},
		{[]string{"foo"}, WrongUsage, "", `unexpected argument "foo"`},
		{[]string{"--log-level", "chatty"}, WrongUsage, "", "chatty"},
	} {
		var out, errors bytes.Buffer
		status := p.Main(c.args, &out, &errors)
		if status != c.status || !strings.HasPrefix(out.String(), c.out) || !strings.Contains(errors.String(), c.errors) {
			t.Errorf("%v: status %d, printed %q and %q; want %d, %q and %q", c.args, status, out.String(), errors.String(), c.status, c.out, c.errors)
		}
	}
}
