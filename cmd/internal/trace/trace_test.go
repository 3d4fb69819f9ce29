package trace

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"mailbag/cmd/internal/postfix"
)

// A desk has logs in files, and searches them.
type desk struct {
	t   *testing.T
	dir string
}

func newDesk(t *testing.T) desk {
	local := time.Local
	time.Local = time.UTC
	t.Cleanup(func() { time.Local = local })
	return desk{t, t.TempDir()}
}

// write writes a log, last written to so long after noon.
func (d desk) write(name string, after time.Duration, lines ...string) string {
	d.t.Helper()
	text := []byte(strings.Join(lines, "\n") + "\n")
	if strings.HasSuffix(name, ".gz") {
		var packed bytes.Buffer
		w := gzip.NewWriter(&packed)
		w.Write(text)
		w.Close()
		text = packed.Bytes()
	}
	path := filepath.Join(d.dir, name)
	if err := os.WriteFile(path, text, 0o644); err != nil {
		d.t.Fatal(err)
	}
	at := noon.Add(after)
	if err := os.Chtimes(path, at, at); err != nil {
		d.t.Fatal(err)
	}
	return path
}

var noon = time.Date(2026, 2, 3, 12, 0, 0, 0, time.UTC)

func (d desk) search(q Query, limit int) *Found {
	d.t.Helper()
	sources, err := Files(filepath.Join(d.dir, "*"))
	if err != nil {
		d.t.Fatal(err)
	}
	s := Search{Log: (postfix.Instance{}).Log(d.t.Context()), Sources: sources, Query: q, Limit: limit}
	found, err := s.Run(d.t.Context())
	if err != nil {
		d.t.Fatal(err)
	}
	return found
}

// tale is what is told, in short: ID and kinds of the events.
func tale(f *Found) []string {
	list := []string{}
	for _, m := range f.Messages {
		words := []string{m.ID}
		for _, e := range m.Events {
			words = append(words, fmt.Sprint(e.Kind, strings.Repeat("+", e.Times-1)))
		}
		list = append(list, strings.Join(words, " "))
	}
	return list
}

func (d desk) want(q Query, want ...string) {
	d.t.Helper()
	if got := tale(d.search(q, 10)); !slices.Equal(got, want) {
		d.t.Errorf("%+v tells\n%s\nwant\n%s", q, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// passage is a message as Postfix logs it, at a minute of the hour before noon.
func passage(minute int, id, from, to string) []string {
	at := fmt.Sprintf("Feb  3 11:%02d:00 mx postfix/", minute)
	return []string{
		at + "smtpd[1]: " + id + ": client=mail.elsewhere.example[192.0.2.7]",
		at + "cleanup[1]: " + id + ": message-id=<" + id + "@elsewhere.example>",
		at + "qmgr[1]: " + id + ": from=<" + from + ">, size=283, nrcpt=1 (queue active)",
		at + "error[1]: " + id + ": to=<" + to + ">, relay=none, delay=0, delays=0/0/0/0, dsn=4.3.2, status=deferred (deferred transport)",
		at + "error[1]: " + id + ": to=<" + to + ">, relay=none, delay=1, delays=0/0/0/0, dsn=4.3.2, status=deferred (deferred transport)",
		at + "lmtp[1]: " + id + ": to=<" + to + ">, relay=x, delay=2, delays=0/0/0/0, dsn=2.0.0, status=sent (250 2.0.0 Ok)",
		at + "qmgr[1]: " + id + ": removed",
	}
}

const whole = " came came came deferred+ delivered gone"

func TestMessageIsFoundByAllThatIsAskedFor(t *testing.T) {
	d := newDesk(t)
	refused := "Feb  3 11:30:00 mx postfix/smtpd[1]: NOQUEUE: reject: RCPT from x[192.0.2.9]: 550 5.1.1 <no@acme.example>: User unknown; from=<boss@elsewhere.example> to=<no@acme.example> proto=ESMTP helo=<x>"
	d.write("mail.log", 0, slices.Concat(passage(10, "A00001", "boss@elsewhere.example", "a@acme.example"), passage(20, "A00002", "boss@elsewhere.example", "b@bolt.example"),
		[]string{refused, refused}, passage(40, "A00003", "", "A@ACME.example"))...)
	d.want(Query{From: "BOSS@elsewhere.example"}, "A00001"+whole, "A00002"+whole, " refused+")
	d.want(Query{From: "elsewhere.example", To: "@Acme.example"}, "A00001"+whole, " refused+")
	d.want(Query{To: "a@acme.example"}, "A00001"+whole, "A00003"+whole)
	d.want(Query{From: "<>"}, "A00003"+whole)
	d.want(Query{To: "acme"})
	d.want(Query{To: "me.example"})
	d.want(Query{ID: "A00002"}, "A00002"+whole)
	d.want(Query{ID: "<a00002@elsewhere.example>"}, "A00002"+whole)
	d.want(Query{Domains: []string{"bolt.example", "corp.example"}}, "A00002"+whole)
	d.want(Query{Domains: []string{"a.example", "b.example", "c.example", "d.example", "bolt.example"}}, "A00002"+whole)
	d.want(Query{Text: "USER UNKNOWN"}, " refused+")
	d.want(Query{Text: "192.0.2.7", To: "bolt.example"}, "A00002"+whole)
	d.want(Query{To: "acme.example", Since: noon.Add(-45 * time.Minute)}, " refused+", "A00003"+whole)
	d.want(Query{To: "acme.example", Until: noon.Add(-45 * time.Minute)}, "A00001"+whole)
}

func TestLogsAreReadInTheirOrderAndUnpacked(t *testing.T) {
	d := newDesk(t)
	p := passage(10, "A00001", "x@elsewhere.example", "a@acme.example")
	d.write("mail.log", 0, p[5:]...)
	d.write("mail.log.1", -time.Minute, p[2:5]...)
	d.write("mail.log.2.gz", -2*time.Minute, p[:2]...)
	d.want(Query{To: "acme.example"}, "A00001"+whole)
}

func TestLogsThatWereCopiedAreReadInTheOrderOfTheirLines(t *testing.T) {
	d := newDesk(t)
	p, deferred := passage(10, "A00001", "x@elsewhere.example", "a@acme.example"), passage(20, "A00001", "x@elsewhere.example", "a@acme.example")
	d.write("mail.log.1", time.Second, p[:4]...)
	d.write("mail.log", 0, deferred[4:]...)
	d.want(Query{To: "acme.example"}, "A00001"+whole)
}

// What is missing from a log is not to look like mail that never came.
func TestPackedLogThatWasCutOffIsNamed(t *testing.T) {
	d := newDesk(t)
	path := d.write("mail.log.2.gz", 0, passage(10, "A00001", "x@elsewhere.example", "a@acme.example")...)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, info.Size()-20); err != nil {
		t.Fatal(err)
	}
	source, err := File(path)
	if err != nil {
		t.Fatal(err)
	}
	s := Search{Log: (postfix.Instance{}).Log(t.Context()), Sources: []Source{source}, Query: Query{To: "acme.example"}, Limit: 1}
	if found, err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), path+" cannot be read to its end: it was cut off") {
		t.Errorf("it found %+v, %v", found, err)
	}
}

func TestQueueIDThatIsUsedAgainIsAnotherMessage(t *testing.T) {
	d := newDesk(t)
	d.write("mail.log", 0, append(passage(10, "A00001", "x@elsewhere.example", "a@acme.example"), passage(20, "A00001", "y@elsewhere.example", "b@bolt.example")...)...)
	d.want(Query{To: "bolt.example"}, "A00001"+whole)
	if got := d.search(Query{To: "bolt.example"}, 10).Messages[0].Events[2].Sender; got != "y@elsewhere.example" {
		t.Errorf("it is from %s", got)
	}
}

func TestTheLatestAreToldOfAndThatThereAreMore(t *testing.T) {
	d := newDesk(t)
	var lines []string
	for i := range 50 {
		lines = append(lines, passage(i, fmt.Sprintf("A%05d", i), "x@elsewhere.example", "a@acme.example")...)
	}
	d.write("mail.log", 0, lines...)
	found := d.search(Query{To: "acme.example"}, 2)
	if got := tale(found); !found.More || !slices.Equal(got, []string{"A00048" + whole, "A00049" + whole}) {
		t.Errorf("it tells %q, and more is %v", got, found.More)
	}
	if found := d.search(Query{To: "acme.example"}, 50); found.More || len(found.Messages) != 50 {
		t.Errorf("it tells of %d messages, and more is %v", len(found.Messages), found.More)
	}
}

// TestLinesThatAreNoneOfTheMTAsArePassedOver has torn, long and hostile ones between, so long that blocks end in them.
func TestLinesThatAreNoneOfTheMTAsArePassedOver(t *testing.T) {
	d := newDesk(t)
	lines := []string{strings.Repeat("x", 2*blockSize) + passage(5, "A00002", "x@elsewhere.example", "a@acme.example")[3]}
	for i, line := range passage(10, "A00001", "x@elsewhere.example", "a@acme.example") {
		lines = append(lines, line, line[:len(line)/2], "a@acme.example"+strings.Repeat("\x00", i*blockSize/3), strings.Repeat("a@acme.example ", 2*blockSize/14), "")
	}
	d.write("mail.log", 0, lines...)
	found := d.search(Query{To: "a@acme.example"}, 10)
	if got := tale(found); !slices.Equal(got, []string{"A00001" + whole}) || found.Skipped == 0 {
		t.Errorf("it tells %q, and %d lines were too long", got, found.Skipped)
	}
}

func TestWhatIsKeptOfAMessageIsBounded(t *testing.T) {
	d := newDesk(t)
	lines := passage(10, "A00001", "x@elsewhere.example", "a@acme.example")[:4]
	for i := range maxEvents + 10 {
		lines = append(lines, strings.Replace(lines[3], "a@acme", fmt.Sprint("a", i, "@acme"), 1))
	}
	d.write("mail.log", 0, lines...)
	if m := d.search(Query{ID: "A00001"}, 1).Messages[0]; !m.Truncated || len(m.Events) != maxEvents {
		t.Errorf("%d events are kept, truncated is %v", len(m.Events), m.Truncated)
	}
}

func TestASearchThatIsInterruptedEnds(t *testing.T) {
	d := newDesk(t)
	source, err := File(d.write("mail.log", 0, passage(10, "A00001", "x@elsewhere.example", "a@acme.example")...))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s := Search{Log: (postfix.Instance{}).Log(t.Context()), Sources: []Source{source}, Query: Query{To: "acme.example"}, Limit: 1}
	if _, err := s.Run(ctx); err != context.Canceled {
		t.Errorf("it ended with %v", err)
	}
}

func TestNotesOfADaemonAreRead(t *testing.T) {
	d := newDesk(t)
	d.write("popd.log", 0,
		`1770116400.000001 mx mailbag-popd[7]: level=INFO msg="message handed over" account=dent mailbox="" client=192.0.2.1 message=1.M2 fetched=true deleted=false`,
		`time=2026-02-03T11:30:00.000Z level=INFO msg="message handed over" account=dent mailbox="a b\"@dent.example" message=1.M3`,
		`time=2026-02-03T11:30:00.000Z level=INFO msg="session ended" account=dent`,
		`time=2026-02-03 level=INFO msg="message handed over" account=torn`,
		`time=2026-02-01T11:30:00.000Z level=INFO msg="message handed over" account=early`,
		`1770116400.000001 mx postfix/smtp[7]: A00001: to=<a@b.example>, relay=c.example[192.0.2.9]:25, delay=1, status=sent (250 level=INFO msg="message handed over" account=dent message=1.M2 fetched=true)`,
		`1770116400.000001 mx exim[7]: 1xWUcn-0001R7-0n => a@b.example C="250 level=INFO msg="message handed over" account=dent message=1.M2 fetched=true"`)
	sources, err := Files(filepath.Join(d.dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	notes, err := Notes(t.Context(), sources, noon.Add(-2*time.Hour), "message handed over")
	if err != nil || len(notes) != 2 || notes[0].Fields["message"] != "1.M2" || !notes[0].At.Equal(noon.Add(-time.Hour).Add(time.Microsecond)) ||
		notes[1].Fields["mailbox"] != `a b"@dent.example` {
		t.Errorf("they are %+v, %v", notes, err)
	}
}

func TestFilesThatCannotBeReadAreNamed(t *testing.T) {
	d := newDesk(t)
	for _, name := range []string{filepath.Join(d.dir, "none"), d.dir, d.write("mail.log.xz", 0)} {
		if _, err := File(name); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A log that is there is not to be looked for elsewhere.
func TestDirectoryOfLogsThatMayNotBeReadIsNamed(t *testing.T) {
	d := newDesk(t)
	d.write("mainlog", 0, "a line")
	if os.Geteuid() != 0 {
		t.Skip("only root becomes another user")
	}
	if err := os.Chmod(d.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread() // for good, so that no other test gets this thread
	if err := syscall.Setfsuid(65534); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Setfsuid(0) })
	pattern := filepath.Join(d.dir, "mainlog*")
	if all, err := Files(pattern); err == nil || !strings.Contains(err.Error(), pattern+" may not be read by this user") {
		t.Errorf("%v, %v", all, err)
	}
}

func FuzzNote(f *testing.F) {
	f.Add([]byte(`1770116400.000001 mx mailbag-popd[7]: level=INFO msg="message handed over" account=dent mailbox="" message=1.M2`))
	f.Add([]byte(`time=2026-02-03T11:30:00.000Z level=INFO msg="message handed over" account="\x00`))
	f.Fuzz(func(_ *testing.T, line []byte) { readNote(line, []byte(`msg="message handed over" `), noon) })
}

// FuzzSearch compares a search in whatever is in a log with a reading of each line.
func FuzzSearch(f *testing.F) {
	f.Add([]byte(strings.Join(passage(10, "A00001", "x@elsewhere.example", "a@acme.example"), "\n")), "a@acme.example")
	log := (postfix.Instance{}).Log(context.Background())
	f.Fuzz(func(t *testing.T, text []byte, to string) {
		if to == "" || strings.ContainsAny(to, "\n") {
			return
		}
		q := Query{To: to}
		finder := finder{search: &Search{Log: log, Query: q}, criteria: q.criteria(), ids: map[string]*hit{}}
		found := finder.read(block{slices.Clone(text), noon})
		want := 0
		for line := range (block{text, noon}).lines() {
			if e, ok := log.Event(line, noon); ok && finder.criteria[0].fits(e) {
				want++
			}
		}
		if got := len(found.hits) + len(found.refused); got != want {
			t.Errorf("%d lines are found, want %d", got, want)
		}
	})
}
