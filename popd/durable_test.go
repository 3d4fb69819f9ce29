package popd

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"mailbag/popd/maildir"
	"mailbag/testdata/powercut"
)

// watch has something done at a desk whose Maildirs are in a directory "mail" that is not there yet.
func watch(t *testing.T, act func(*desk)) *powercut.Trace {
	t.Helper()
	return powercut.Watch(t, func(dir string) {
		act(openDesk(t, func(cfg *Config) { cfg.Store = NewStore(filepath.Join(dir, "mail"), time.Now) }))
	})
}

// keeps tells that a power cut would leave so many messages in a Maildir, or more where it still grows.
func keeps(t *testing.T, disk *powercut.Disk, box string, want int) {
	t.Helper()
	if kept := disk.Kept(box + "/new"); len(kept) < want {
		t.Errorf("of %s a power cut would leave %q, not %d messages", box, kept, want)
	}
	if torn := disk.Torn(box); len(torn) > 0 {
		t.Errorf("names were given before the content was on the disk: %q", torn)
	}
}

// settled tells that a power cut would change nothing in a Maildir.
func settled(t *testing.T, disk *powercut.Disk, box string) {
	t.Helper()
	if lost := disk.Lost(box); len(lost) > 0 {
		t.Errorf("a power cut would undo %q", lost)
	}
}

func TestEveryRecipientsCopyIsOnTheDiskWhenItIsAnswered(t *testing.T) {
	t.Parallel()
	boxes := map[string]string{
		"ford@dent.example":   "mail/dent/catch-all",
		"arthur@dent.example": "mail/dent/mailboxes/dent.example/arthur",
		"zaphod@dent.example": "mail/dent/mailboxes/dent.example/zaphod",
		"han@solo.example":    "mail/solo/mailboxes/solo.example/han",
		"a@once.example":      "mail/once/catch-all", // one copy for both
		"b@once.example":      "mail/once/catch-all",
	}
	var to []string
	for address := range boxes {
		to = append(to, address)
	}
	large := "Subject: x\r\n\r\n" + strings.Repeat("more than what is written at a time\r\n", 4000)
	trace := watch(t, func(d *desk) {
		d.put(body, to...) // with which the Maildirs are made
		d.put(large, to...)
	})
	for address, box := range boxes {
		answer := "<" + address + "> Stored as "
		for _, said := range [][]string{{answer}, {answer, answer}} {
			disk := trace.At(said...)
			keeps(t, disk, box, len(said))
			settled(t, disk, box)
		}
	}
}

// Deliveries to one Maildir share fsyncs of its directory; none may share one that began before it came.
func TestMailThatComesAtOnceIsOnTheDiskWhenItIsAnswered(t *testing.T) {
	t.Parallel()
	const connections, each = 8, 4
	trace := watch(t, func(d *desk) {
		var all sync.WaitGroup
		for range connections {
			all.Go(func() {
				for range each {
					d.put(body, "ford@dent.example")
				}
			})
		}
		all.Wait()
	})
	for answered := 1; answered <= connections*each; answered++ {
		keeps(t, trace.At(slices.Repeat([]string{"> Stored as "}, answered)...), "mail/dent/catch-all", answered)
	}
}

func TestDeletedMailIsGoneFromTheDiskWhenQUITIsAnswered(t *testing.T) {
	t.Parallel()
	trace := watch(t, func(d *desk) {
		for range 3 {
			d.put(body, "ford@dent.example")
		}
		c := d.enter("dent")
		c.say("DELE 1", "+OK")
		c.say("DELE 3", "+OK")
		c.say("QUIT", "+OK")
	})
	const box = "mail/dent/catch-all"
	keeps(t, trace.At("DELE 3", "+OK"), box, 3)
	disk := trace.At("QUIT", "+OK")
	settled(t, disk, box)
	if kept := disk.Kept(box + "/new"); len(kept) != 1 {
		t.Errorf("a power cut would leave %q, not 1 message", kept)
	}
}

// What is kept of sizes may be lost, since they are computed again, but not be there in part: it would be believed.
func TestSizesAreKeptWholeOrNotAtAll(t *testing.T) {
	t.Parallel()
	const box = "mail/dent/catch-all"
	trace := watch(t, func(d *desk) {
		d.put(body, "ford@dent.example")
		other := filepath.Join(d.cfg.Store.Maildir("dent", "").Path(), "new", "1700000000.M1P1.other")
		d.must(os.WriteFile(other, []byte("Subject: x\n"), 0o600)) // by a program that tells no sizes
		c := d.enter("dent")
		c.say("STAT", "+OK 2 ")
		c.say("QUIT", "+OK")
		sizes, err := os.ReadFile(filepath.Join(d.cfg.Store.Maildir("dent", "").Path(), "mailbag-sizes"))
		d.must(err)
		fmt.Printf("kept %d octets\n", len(sizes))
	})
	if torn := trace.At("kept").Torn(box); len(torn) > 0 {
		t.Errorf("names were given before the content was on the disk: %q", torn)
	}
}

func TestAMaildirIsOnTheDiskWhenItIsMade(t *testing.T) {
	t.Parallel()
	trace := powercut.Watch(t, func(dir string) {
		for _, name := range []string{"a", "b"} { // below directories that are not there, and that are
			if err := maildir.At(filepath.Join(dir, "mail", name)).Create(); err != nil {
				t.Fatal(err)
			}
			fmt.Println("made", name)
		}
	})
	for _, name := range []string{"a", "b"} {
		disk := trace.At("made " + name)
		settled(t, disk, "mail")
	}
}
