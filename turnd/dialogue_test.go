package turnd

import (
	"path/filepath"
	"strings"
	"testing"

	postfixtest "mailbag/testdata/postfix"
)

// TestDialogues plays the scripts in testdata. Clients are at 127.0.0.1 but for those of this table.
func TestDialogues(t *testing.T) {
	t.Parallel()
	elsewhere := map[string]string{
		"in-the-clear": "127.0.0.30", "outside": "127.0.0.1", "etrn": "127.0.0.9", "etrn-outside": "127.0.0.30",
	}
	f := open(t, func(c *Config) { c.Limits.Failures, c.Limits.Commands = 10, 50 })
	vars := map[string]string{
		"LONG": "NOOP " + strings.Repeat("x", maxLine), "BELL": "NOOP \a",
		"wrong": plainText("corp", "shut"), "nobody": plainText("nobody", "shut"),
	}
	for _, a := range customers() {
		vars[a.Name] = plainText(a.Name, password(a.Name))
	}
	files, err := filepath.Glob("testdata/*.smtp")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".smtp")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := postfixtest.Dialogue(f.addr, elsewhere[name], file, vars); err != nil {
				t.Error(err)
			}
		})
	}
}
