package exim

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mailbag/cmd/internal/mta"
)

func TestQueueIsReadFromTheSpool(t *testing.T) {
	for _, split := range []bool{true, false} {
		l := newLab(t, split)
		begun := time.Now().Add(-time.Second)
		l.submit("a@held.example", "one\ntwo\n", "u1@c1.example", "u2@c1.example")
		l.submit("b@other.example", strings.Repeat("x\n", 500), "later@c1.example", "anna@mx.example.org")
		l.submit("<>", "bounce\n", "anna@mx.example.org")
		all := l.queue()
		if len(all) != 3 {
			t.Fatalf("the queue has %+v, want three messages", all)
		}
		for i, want := range []mta.Entry{
			{Queue: "queued", Recipients: []mta.Recipient{{Address: "anna@mx.example.org"}}},
			{Queue: "held", Held: true, Sender: "a@held.example", Recipients: []mta.Recipient{{Address: "u1@c1.example"}, {Address: "u2@c1.example"}}},
			{Queue: "queued", Sender: "b@other.example", Recipients: []mta.Recipient{{Address: "later@c1.example"}, {Address: "anna@mx.example.org"}}},
		} {
			got := all[i]
			if got.Arrival.Before(begun) || got.Arrival.After(time.Now()) {
				t.Errorf("%s arrived at %s, and it is %s", got.ID, got.Arrival, begun)
			}
			// What Exim shows of a message whole is what its size counts.
			queue := ""
			if want.Held {
				queue = heldQueue
			}
			if text := l.exim(onMessages(queue, "-Mvc", []string{got.ID})...); int(got.Size) != len(text) {
				t.Errorf("%s has %d octets, want %d", got.ID, got.Size, len(text))
			}
			want.ID, want.Arrival, want.Size = got.ID, got.Arrival, got.Size
			if !slices.Equal(got.Recipients, want.Recipients) || got.Queue != want.Queue || got.Sender != want.Sender || got.Held != want.Held || got.OnHold {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		}

		// One recipient has it, the other does not; then the operator freezes it.
		id := all[2].ID
		l.openTurn(nil)
		l.exim("-M", id)
		e := l.queue()[2]
		if len(e.Recipients) != 1 || e.Recipients[0].Address != "later@c1.example" || !strings.Contains(e.Recipients[0].Reason, "450 later") {
			t.Errorf("after a delivery: %+v", e)
		}
		l.exim("-Mf", id)
		if e := l.queue()[2]; e.Queue != "frozen" || !e.OnHold || len(e.Waiting().Recipients) != 0 {
			t.Errorf("frozen: %+v", e)
		}
		gone := "1aaaaa-000000-00"
		missing, err := l.Missing(context.Background(), []string{all[0].ID, gone, all[1].ID, id})
		if err != nil || !slices.Equal(missing, []string{gone, id}) {
			t.Errorf("missing are %q, %v", missing, err)
		}
		if err := l.Try(context.Background()); err != nil {
			t.Error(err)
		}
	}
}

func TestWordsThawAMessageInEitherQueue(t *testing.T) {
	l := newLab(t, true)
	l.submit("a@held.example", "one\n", "later1@c1.example")
	l.submit("b@other.example", "two\n", "later2@c1.example")
	for _, e := range l.queue() {
		l.exim(onMessages(queueOf(e), "-Mf", []string{e.ID})...)
	}
	for _, e := range l.queue() {
		if command := l.Words().Unhold(e); e.OnHold {
			l.exim(append(strings.Fields(command)[1:], e.ID)...)
		} else {
			t.Errorf("%+v is not frozen", e)
		}
	}
	for _, e := range l.queue() {
		if e.OnHold {
			t.Errorf("%+v is frozen still", e)
		}
	}
}

func TestJournalOfADeliveryThatWasCutOffCounts(t *testing.T) {
	l := newLab(t, true)
	l.submit("a@held.example", "one\n", "u1@c1.example", "u2@C1.Example", "u3@c1.example")
	id := l.ids()[0]
	journal := filepath.Join(l.dir, "spool", "mailbag", "input", id[5:6], id+"-J")
	if err := os.WriteFile(journal, []byte("u2@c1.example\nu1@c1.exam"), 0o600); err != nil {
		t.Fatal(err)
	}
	if e := l.queue()[0]; len(e.Recipients) != 2 || e.Recipients[0].Address != "u1@c1.example" || e.Recipients[1].Address != "u3@c1.example" {
		t.Errorf("%+v", e)
	}
}

func TestWhatIsNoMessageIsPassedOver(t *testing.T) {
	l := newLab(t, true)
	l.submit("a@held.example", "one\n", "u1@c1.example")
	id := l.ids()[0]
	dir := filepath.Join(l.dir, "spool", "mailbag", "input", id[5:6])
	whole, err := os.ReadFile(filepath.Join(dir, id+"-H"))
	if err != nil {
		t.Fatal(err)
	}
	other := id[:5] + id[5:6] + "-zzzzzz" + id[13:]
	if len(id) > 16 {
		other = id[:6] + "-zzzzzzzzzzz" + id[18:]
	}
	for name, text := range map[string]string{
		"torn":         strings.ReplaceAll(string(whole[:len(whole)-10]), id, other),
		"of another":   string(whole),
		"zeroes":       strings.ReplaceAll(string(whole[:len(whole)-100]), id, other) + strings.Repeat("\x00", 100),
		"empty":        "",
		"in the tree":  strings.Replace(strings.ReplaceAll(string(whole), id, other), "\nXX\n", "\nZZ\n", 1),
		"in the count": strings.Replace(strings.ReplaceAll(string(whole), id, other), "\n1\n", "\nmany\n", 1),
	} {
		for _, suffix := range []string{"-D", "-H"} {
			if err := os.WriteFile(filepath.Join(dir, other+suffix), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := l.ids(); !slices.Equal(got, []string{id}) {
			t.Errorf("%s: the queue has %q", name, got)
		}
	}
	for _, name := range []string{"hdr." + id, "-H", "x-H", "..-H"} {
		if err := os.WriteFile(filepath.Join(dir, name), whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := l.ids(); !slices.Equal(got, []string{id}) {
		t.Errorf("the queue has %q", got)
	}
}

func TestUnfinishedIsWhatAnEximThatWasKilledLeft(t *testing.T) {
	l := newLab(t, true)
	l.submit("a@held.example", "one\n", "u1@c1.example")
	dir := filepath.Join(l.dir, "spool", "input", "a")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	long := time.Now().Add(-time.Hour)
	files := map[string]*os.File{}
	for _, id := range []string{"1aaaaa-000000-01", "1aaaaa-000000-02", "1aaaaa-00000000000-0003"} {
		f, err := os.Create(filepath.Join(dir, id+"-D"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString(id + "-D\nbody\n"); err != nil {
			t.Fatal(err)
		}
		files[id] = f
		if err := os.Chtimes(f.Name(), long, long); err != nil {
			t.Fatal(err)
		}
	}
	// One comes in: another process has Exim's lock.
	unlock := lockElsewhere(t, files["1aaaaa-000000-02"].Name())
	unfinished := func() []string {
		ids, err := l.Unfinished(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(ids)
		return ids
	}
	if got := unfinished(); !slices.Equal(got, []string{"1aaaaa-000000-01", "1aaaaa-00000000000-0003"}) {
		t.Errorf("unfinished are %q while one comes in", got)
	}
	unlock()
	if got := unfinished(); len(got) != 3 {
		t.Errorf("unfinished are %q", got)
	}
	if err := os.Chtimes(files["1aaaaa-000000-01"].Name(), time.Now(), time.Now()); err != nil {
		t.Fatal(err)
	}
	if got := unfinished(); len(got) != 2 {
		t.Errorf("unfinished are %q, one of which was made just now", got)
	}
}

// lockElsewhere has another process lock a file as Exim does.
func lockElsewhere(t *testing.T, name string) (unlock func()) {
	t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command("python3", "-c", `
import fcntl, os, sys
f = open(sys.argv[1], "r+")
fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 19)
print("locked", flush=True)
sys.stdin.read()`, name)
	child.Stdin = read
	out, err := child.StdoutPipe()
	if err == nil {
		err = child.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	read.Close()
	if _, err := out.Read(make([]byte, 7)); err != nil {
		t.Fatal(err)
	}
	return func() {
		write.Close()
		_ = child.Wait()
	}
}
