package wholefile

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"testing"

	"mailbag/testdata/powercut"
)

func TestAFileIsOnTheDiskWhenItIsWritten(t *testing.T) {
	t.Parallel()
	trace := powercut.Watch(t, func(dir string) {
		for _, step := range []struct {
			write      func(string, []byte, fs.FileMode) error
			name, text string
		}{{Replace, "replaced", "first"}, {Replace, "replaced", "second"}, {Add, "added", "only"}} {
			if err := step.write(filepath.Join(dir, step.name), []byte(step.text), 0o600); err != nil {
				t.Fatal(err)
			}
			fmt.Println("wrote", step.name, step.text)
		}
	})
	for _, step := range []struct{ name, text string }{{"replaced", "first"}, {"replaced", "second"}, {"added", "only"}} {
		disk := trace.At("wrote " + step.name + " " + step.text)
		if len(disk.Lost(".")) > 0 || !disk.Holds(step.name, step.text) {
			t.Errorf("the %s file is %s, and a power cut would undo it", step.text, step.name)
		}
		if len(disk.Torn(".")) > 0 {
			t.Errorf("the %s file was %s before its content was on the disk", step.text, step.name)
		}
	}
}
