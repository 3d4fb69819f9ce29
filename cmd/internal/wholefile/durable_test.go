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
		for name, write := range map[string]func(string, []byte, fs.FileMode) error{"Replace": Replace, "Write": Write} {
			for _, text := range []string{"first", "second"} { // to where nothing is yet, and in place of a file
				if err := write(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				fmt.Println(name, "wrote the", text)
			}
		}
	})
	for _, name := range []string{"Replace", "Write"} {
		for _, text := range []string{"first", "second"} {
			disk := trace.At(name + " wrote the " + text)
			if len(disk.Lost(".")) > 0 || !disk.Holds(name, text) {
				t.Errorf("%s has written the %s file, and a power cut would undo it", name, text)
			}
			if len(disk.Torn(".")) > 0 {
				t.Errorf("%s has named the %s file before its content was on the disk", name, text)
			}
		}
	}
}
