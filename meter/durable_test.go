package meter

import (
	"fmt"
	"path/filepath"
	"testing"

	"mailbag/testdata/powercut"
)

func TestAMessageIsOnTheDiskWhenItIsRecorded(t *testing.T) {
	t.Parallel()
	needsFile(t)
	trace := powercut.Watch(t, func(dir string) {
		l, err := Open(t.Context(), filepath.Join(dir, "mailbag.db"), Options{Create: true})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		mustAdd(t, l, Account{Name: "acme", Mode: Backup, Domains: []string{"acme.example"}})
		fmt.Println("added acme.")
		r := NewRecorder(l, nil)
		defer r.Close()
		for i := range 3 {
			m := Message{Instance: fmt.Sprint("instance", i), Size: 1, At: noon, Accounts: []*Account{mustLoad(t, l).Account("acme")}}
			if err := r.Record(m, nil); err != nil {
				t.Fatal(err)
			}
			fmt.Printf("recorded %d.\n", i)
		}
	})
	for _, c := range []struct{ said, written string }{
		{"added acme.", "acme"}, {"recorded 0.", "instance0"}, {"recorded 1.", "instance1"}, {"recorded 2.", "instance2"},
	} {
		disk := trace.At(c.said)
		if !disk.Holds("mailbag.db-wal", c.written) {
			t.Errorf("%s is not on the disk", c.written)
		}
		if lost := append(disk.Lost("mailbag.db"), disk.Lost("mailbag.db-wal")...); len(lost) > 0 {
			t.Errorf("when %s was answered, a power cut would undo %q", c.written, lost)
		}
	}
}

func TestABackupIsOnTheDiskWhenItIsMade(t *testing.T) {
	t.Parallel()
	trace := powercut.Watch(t, func(dir string) {
		l := newTestLedger(t, Options{})
		mustAdd(t, l, Account{Name: "acme", Mode: Backup, Domains: []string{"acme.example"}})
		if err := l.Backup(t.Context(), filepath.Join(dir, "copy.db")); err != nil {
			t.Fatal(err)
		}
		fmt.Println("backed up.")
	})
	disk := trace.At("backed up.")
	if lost := disk.Lost("."); len(lost) > 0 || !disk.Holds("copy.db", "acme") {
		t.Errorf("a power cut would undo %q", lost)
	}
}
