package maildir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// box is an empty Maildir in a directory of the test's.
func box(t testing.TB) *Maildir {
	t.Helper()
	d := At(filepath.Join(t.TempDir(), "a", "b"))
	if err := d.Create(); err != nil {
		t.Fatal(err)
	}
	return d
}

var names = NewNames("mx.example", time.Now)

// put delivers a message as it is sent.
func put(t testing.TB, d *Maildir, sent string) {
	t.Helper()
	w, err := d.Draft(names)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(sent)); err != nil {
		t.Fatal(err)
	}
	if err := w.Deliver(&syncer); err != nil {
		t.Fatal(err)
	}
}

// plant writes a file as another program would.
func plant(t testing.TB, d *Maildir, name, stored string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(d.Path(), name), []byte(stored), 0o600); err != nil {
		t.Fatal(err)
	}
}

var syncer Syncer

func list(t testing.TB, d *Maildir) *List {
	t.Helper()
	l, err := d.List()
	if err == nil {
		err = l.Unkept
	}
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// sent reads a message as it is sent, without the transparency of dots.
func sent(t testing.TB, l *List, m *Message) string {
	t.Helper()
	fd, err := l.Open(m)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	var w Wire
	var out []byte
	block := make([]byte, 7)
	for {
		n, err := syscall.Read(fd, block)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			break
		}
		out = w.Append(out, block[:n])
	}
	out = w.End(out)
	text := strings.ReplaceAll(string(out), "\r\n..", "\r\n.")
	if strings.HasPrefix(text, "..") {
		text = text[1:]
	}
	return text
}

// files are the names in a directory of the Maildir.
func files(t testing.TB, d *Maildir, sub string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(d.Path(), sub))
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// What a disk answers when it is full, and when it cannot keep what it took before.
func TestMessageThatTheDiskDoesNotTakeIsNotDelivered(t *testing.T) {
	t.Parallel()
	for device, want := range map[string]error{"/dev/full": syscall.ENOSPC, "/dev/null": syscall.EINVAL} {
		d := box(t)
		w, err := d.Draft(names)
		if err != nil {
			t.Fatal(err)
		}
		w.file.Close()
		if w.file, err = os.OpenFile(device, os.O_WRONLY, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte("x\r\n")); err != nil {
			t.Fatal(err)
		}
		if err := w.Deliver(&syncer); !errors.Is(err, want) {
			t.Errorf("on %s a message is delivered with %v, want %v", device, err, want)
		}
		if here, begun := files(t, d, "new"), files(t, d, "tmp"); len(here) > 0 || len(begun) > 0 {
			t.Errorf("on %s there are %q and %q", device, here, begun)
		}
	}
}

var bodies = []string{
	"",
	"Subject: x\r\n\r\nbody\r\n",
	"no end of line",
	"half an end of line\r",
	".\r\n..\r\n. dot\r\n",
	"a\rb\r\n\r\n\x00\xff\r\n",
	"bare\r\n" + strings.Repeat("long", 50_000) + "\r\nend\r\n",
}

func TestDeliveredMessageComesBackAsItWas(t *testing.T) {
	t.Parallel()
	d := box(t)
	for _, body := range bodies {
		put(t, d, body)
	}
	if left := files(t, d, "tmp"); len(left) > 0 {
		t.Errorf("tmp has %q", left)
	}
	l := list(t, d)
	if len(l.Messages) != len(bodies) {
		t.Fatalf("%d messages, want %d", len(l.Messages), len(bodies))
	}
	for i, body := range bodies {
		m := &l.Messages[i]
		want := body
		if body != "" && !strings.HasSuffix(body, "\r\n") {
			want += "\r\n"
		}
		if got := sent(t, l, m); got != want {
			t.Errorf("message %d is sent as %.60q, want %.60q", i, got, want)
		}
		if m.Size() != int64(len(want)) {
			t.Errorf("message %d has the size %d, want %d", i, m.Size(), len(want))
		}
	}
	messages, octets, err := d.Usage()
	stored := int64(0)
	for _, body := range bodies {
		stored += int64(len(strings.ReplaceAll(body, "\r\n", "\n")))
	}
	if messages != int64(len(bodies)) || octets != stored || err != nil {
		t.Errorf("%d messages of %d octets are stored, %v; want %d of %d", messages, octets, err, len(bodies), stored)
	}
}

func TestMessageMayBeWrittenInAnyPieces(t *testing.T) {
	t.Parallel()
	d := box(t)
	const body = "a\r\n\r\rb\r\n.\r\n"
	for size := 1; size < len(body); size++ {
		w, err := d.Draft(names)
		if err != nil {
			t.Fatal(err)
		}
		for piece := range slices.Chunk([]byte(body), size) {
			if _, err := w.Write(piece); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Deliver(&syncer); err != nil {
			t.Fatal(err)
		}
	}
	l := list(t, d)
	if len(l.Messages) != len(body)-1 {
		t.Errorf("%d messages, want %d", len(l.Messages), len(body)-1)
	}
	for i := range l.Messages {
		if got := sent(t, l, &l.Messages[i]); got != body {
			t.Errorf("in pieces of %d octets it becomes %q", i+1, got)
		}
	}
}

func TestDraftsShareWhatFollowsTheirHeaders(t *testing.T) {
	t.Parallel()
	d := box(t)
	first, err := d.Draft(names)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(first, "For: a\r\n")
	first.Shared()
	fmt.Fprint(first, "x\r\ny")
	second, err := d.Draft(names)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(second, "For: somebody else\r\n")
	if err := errors.Join(second.Append(first), second.Deliver(&syncer), first.Deliver(&syncer)); err != nil {
		t.Fatal(err)
	}
	l := list(t, d)
	for i, want := range []string{"For: a\r\nx\r\ny\r\n", "For: somebody else\r\nx\r\ny\r\n"} {
		if got := sent(t, l, &l.Messages[i]); got != want || l.Messages[i].Size() != int64(len(want)) {
			t.Errorf("message %d is %q of %d octets, want %q", i, got, l.Messages[i].Size(), want)
		}
	}
}

func TestDiscardedDraftLeavesNothing(t *testing.T) {
	t.Parallel()
	d := box(t)
	w, err := d.Draft(names)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(w, "x\r\n")
	w.Discard()
	if left := append(files(t, d, "tmp"), files(t, d, "new")...); len(left) > 0 {
		t.Errorf("%q are left", left)
	}
}

func TestMaildirsOfOthersAreMeasuredOnceAndRemembered(t *testing.T) {
	t.Parallel()
	d := box(t)
	plant(t, d, "new/1700000001.M5P1.host", "a\nb\n")              // Postfix
	plant(t, d, "cur/1700000000.M5P1.host,S=4:2,S", "a\r\nb")      // without W=, with a CR of its own, without an end
	plant(t, d, "cur/1700000002.M5P1.host,S=4,W=6:2,RS", "a\nb\n") // Dovecot
	plant(t, d, "cur/.hidden", "x")
	want := []int64{6, 6, 6}
	for range 2 {
		l := list(t, d)
		var sizes []int64
		for i := range l.Messages {
			sizes = append(sizes, l.Messages[i].Size())
			if got := len(sent(t, l, &l.Messages[i])); int64(got) != want[i] {
				t.Errorf("%s is sent in %d octets", l.Messages[i].name, got)
			}
		}
		if !slices.Equal(sizes, want) {
			t.Errorf("the sizes are %d, want %d", sizes, want)
		}
	}
	// Whoever reads them again would find another size.
	if got, err := os.ReadFile(filepath.Join(d.Path(), sizesFile)); err != nil ||
		string(got) != "6 1700000000.M5P1.host,S=4\n6 1700000001.M5P1.host\n" {
		t.Errorf("remembered are %q, %v", got, err)
	}
	plant(t, d, sizesFile, "7 1700000000.M5P1.host,S=4\n7 1700000001.M5P1.host\n")
	if l := list(t, d); l.Messages[0].Size() != 7 || l.Messages[1].Size() != 7 {
		t.Error("the messages were read again")
	}
	// What is gone is forgotten.
	if err := os.Remove(filepath.Join(d.Path(), "new/1700000001.M5P1.host")); err != nil {
		t.Fatal(err)
	}
	list(t, d)
	if got, _ := os.ReadFile(filepath.Join(d.Path(), sizesFile)); string(got) != "7 1700000000.M5P1.host,S=4\n" {
		t.Errorf("remembered are %q", got)
	}
}

func TestMessageIsFoundWhereAnotherProgramMovedIt(t *testing.T) {
	t.Parallel()
	d := box(t)
	put(t, d, "one\r\n")
	put(t, d, "two\r\n")
	put(t, d, "three\r\n")
	l := list(t, d)
	id := l.Messages[1].UniqueID()
	news := files(t, d, "new")
	move := func(i int, flags string) {
		if err := os.Rename(filepath.Join(d.Path(), "new", news[i]), filepath.Join(d.Path(), "cur", news[i]+flags)); err != nil {
			t.Fatal(err)
		}
	}
	move(1, ":2,S")
	move(2, ":2,")
	if got := sent(t, l, &l.Messages[1]); got != "two\r\n" {
		t.Errorf("it is %q", got)
	}
	if got := list(t, d).Messages[1].UniqueID(); got != id {
		t.Errorf("its unique-id was %s and is %s", id, got)
	}
	if n, err := l.Remove([]*Message{&l.Messages[1], &l.Messages[2]}, &syncer); n != 2 || err != nil {
		t.Errorf("%d removed, %v", n, err)
	}
	if err := os.Remove(filepath.Join(d.Path(), "new", news[0])); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Open(&l.Messages[0]); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a message that vanished opens with %v", err)
	}
	if n, err := l.Remove([]*Message{&l.Messages[0]}, &syncer); n != 0 || err != nil {
		t.Errorf("removing what is gone: %d, %v", n, err)
	}
}

func TestMessageSeenTwiceIsOne(t *testing.T) {
	t.Parallel()
	d := box(t)
	plant(t, d, "new/1.a,S=2,W=3", "x\n")
	plant(t, d, "cur/1.a,S=2,W=3:2,S", "x\n")
	plant(t, d, "new/1.a,S=4,W=5", "xyz\n") // a twin by no convention
	l := list(t, d)
	if len(l.Messages) != 2 {
		t.Fatalf("%d messages", len(l.Messages))
	}
	if a, b := l.Messages[0].UniqueID(), l.Messages[1].UniqueID(); a == b {
		t.Errorf("both have the unique-id %s", a)
	}
	if !l.Messages[0].seen {
		t.Error("the message is looked for where it was before")
	}
}

// Whatever program named them: the time is a number of as many digits as it has.
func TestMessagesAreListedInTheOrderInWhichTheyCame(t *testing.T) {
	t.Parallel()
	d := box(t)
	inOrder := []string{"999999999.M5P1.a", "1700000000.1.z", "1700000000.M999P1.a", "1700000000.M1000P1.b", "1700000000.M1000P2.a", "1700000001.M0P1.a"}
	for i, name := range []int{3, 0, 5, 1, 4, 2} {
		plant(t, d, []string{"new/", "cur/"}[i%2]+inOrder[name], "x\n")
	}
	var got []string
	l := list(t, d)
	for i := range l.Messages {
		got = append(got, l.Messages[i].UniqueID())
	}
	if !slices.Equal(got, inOrder) {
		t.Errorf("listed are %q, want %q", got, inOrder)
	}
}

func TestSymbolicLinkIsNotFollowed(t *testing.T) {
	t.Parallel()
	d := box(t)
	plant(t, d, "secret", "x\n")
	if err := os.Symlink("../secret", filepath.Join(d.Path(), "new", "1.link,S=2,W=3")); err != nil {
		t.Fatal(err)
	}
	l := list(t, d)
	if _, err := l.Open(&l.Messages[0]); err == nil {
		t.Error("the link was followed")
	}
}

func TestMaildirIsLockedForOneAtATime(t *testing.T) {
	t.Parallel()
	d := box(t)
	lock, err := d.Lock()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Lock(); !errors.Is(err, ErrInUse) {
		t.Errorf("a second lock: %v", err)
	}
	lock.Unlock()
	again, err := d.Lock()
	if err != nil {
		t.Fatal(err)
	}
	again.Unlock()
}

func TestSweepTakesWhatWasAbandoned(t *testing.T) {
	t.Parallel()
	d := box(t)
	now := time.Now()
	for name, age := range map[string]time.Duration{"old": 37 * time.Hour, "young": 35 * time.Hour} {
		plant(t, d, "tmp/"+name, "x")
		when := now.Add(-age)
		if err := os.Chtimes(filepath.Join(d.Path(), "tmp", name), when, when); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := d.Sweep(now.Add(-Abandoned)); n != 1 || err != nil {
		t.Errorf("%d removed, %v", n, err)
	}
	if left := files(t, d, "tmp"); !slices.Equal(left, []string{"young"}) {
		t.Errorf("%q are left", left)
	}
}

func TestManyDeliverAtOnce(t *testing.T) {
	t.Parallel()
	d := box(t)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 20 {
				put(t, d, fmt.Sprintf("%d %d\r\n", i, j))
			}
		})
	}
	all.Wait()
	l := list(t, d)
	seen := map[string]bool{}
	for i := range l.Messages {
		seen[sent(t, l, &l.Messages[i])] = true
	}
	if len(seen) != 160 {
		t.Errorf("%d messages came of 160", len(seen))
	}
}

func TestUniqueIDsAreWithinTheRules(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"1700000000.M1P2Q3R4.host,S=1,W=2:2,S": "1700000000.M1P2Q3R4.host",
		"1700000000.M1P2.host":                 "1700000000.M1P2.host",
		"1700000000.M1P2,x.host,S=1":           "1700000000.M1P2,x.host",
		"1700000000.M1P2.host,W=2,S=1":         "1700000000.M1P2.host",
		"1700000000.M1P2.host,S=x":             "1700000000.M1P2.host,S=x",
		"1700000000.M1P2.host,U=7,S=1":         "1700000000.M1P2.host,U=7",
		"a b":                                  "", // hashed
		strings.Repeat("x", 71):                "",
		"ü":                                    "",
		",S=1":                                 "",
	} {
		m := Message{name: name, unique: uint16(parseName(name).unique)}
		got := m.UniqueID()
		if want == "" && len(got) != 64 || want != "" && got != want {
			t.Errorf("%q has the unique-id %q, want %q", name, got, want)
		}
	}
	long := NewNames("a-very-long-host-name.of-a-provider.example", time.Now)
	long.count.Store(999_999_999)
	if name := long.next(); uniqueID(name) != name {
		t.Errorf("our own name %s cannot be a unique-id", name)
	}
	if name := NewNames("a/b:c,d", time.Now).next(); strings.ContainsAny(name, "/:,") {
		t.Errorf("the host got into the name as it is: %s", name)
	}
}

func FuzzName(f *testing.F) {
	for _, s := range []string{"1.M2P3.host,S=4,W=5:2,S", ",S=,W=", "1,S=99999999999999999999", ":2,", "a,W=1,W=2", "1,S=1x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n := parseName(s)
		if n.unique < 0 || n.unique > n.base || n.base > len(s) || n.stored < -1 || n.sent < -1 {
			t.Errorf("%q is read as %+v", s, n)
		}
		m := Message{name: s, unique: uint16(n.unique)}
		if len(s) > 255 { // NAME_MAX
			return
		}
		id := m.UniqueID()
		if len(id) < 1 || len(id) > maxUniqueID {
			t.Errorf("the unique-id of %q is %q", s, id)
		}
		for i := range len(id) {
			if id[i] <= ' ' || id[i] > '~' {
				t.Errorf("the unique-id of %q is %q", s, id)
			}
		}
	})
}

func FuzzWire(f *testing.F) {
	for _, s := range bodies[:5] {
		f.Add([]byte(s), 3)
	}
	f.Fuzz(func(t *testing.T, stored []byte, piece int) {
		piece = max(1, piece)
		var w Wire
		var size meter
		var out []byte
		for p := range slices.Chunk(stored, piece) {
			out = w.Append(out, p)
			size.add(p)
		}
		out = w.End(out)
		dots := 0
		for line := range strings.SplitAfterSeq(string(out), "\n") {
			if line == ".\r\n" {
				t.Errorf("%q is sent as %q, which ends before its end", stored, out)
			}
			if strings.HasPrefix(line, "..") {
				dots++
			}
			if line != "" && !strings.HasSuffix(line, "\r\n") {
				t.Errorf("%q is sent with the line %q", stored, line)
			}
		}
		if got, want := size.total(), int64(len(out)-dots); got != want {
			t.Errorf("%q has the size %d and is sent in %d octets", stored, got, want)
		}
	})
}

func FuzzDirectory(f *testing.F) {
	f.Add("0123456789012345\x18\x00\x08name\x00")
	f.Fuzz(func(t *testing.T, entries string) {
		split(entries, func(name string) {
			if name == "" || name[0] == '.' || strings.ContainsRune(name, 0) {
				t.Errorf("%q has the name %q", entries, name)
			}
		})
	})
}

func FuzzSizes(f *testing.F) {
	f.Add("6 1700000000.M5P1.host,S=4\n-1 x\n6\n 6\n")
	f.Fuzz(func(t *testing.T, text string) {
		sizes := readSizes(text)
		for _, line := range slices.Backward(sizes.lines) {
			if octets, known := sizes.of(line.base); !known || octets < 0 || line.base == "" {
				t.Errorf("%q has %q of %d octets, %t", text, line.base, octets, known)
			}
		}
	})
}

func BenchmarkListOf100000(b *testing.B) {
	d := box(b)
	for i := range 100_000 {
		plant(b, d, fmt.Sprintf("new/17%08d.M%06dP4711Q%dR0123abcd.mx.example,S=2000,W=2040", i/10, i*7919%1000000, i), "")
	}
	for b.Loop() {
		if l := list(b, d); len(l.Messages) != 100_000 {
			b.Fatal(len(l.Messages))
		}
	}
}
