package relay

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"mailbag/testdata/certificate"
)

// ways are what servers offer, and so the ways in which the relay talks to them.
var ways = map[string][]string{
	"chunks pipelined":   allExtensions,
	"lines pipelined":    slices.DeleteFunc(slices.Clone(allExtensions), func(e string) bool { return e == "CHUNKING" }),
	"chunks in lockstep": slices.DeleteFunc(slices.Clone(allExtensions), func(e string) bool { return e == "PIPELINING" }),
	"lines in lockstep":  {"SIZE"},
}

func eachWay(t *testing.T, test func(t *testing.T, extensions []string)) {
	for name, extensions := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, extensions)
		})
	}
}

func open(t testing.TB, s *server) *Channel {
	t.Helper()
	return openWith(t, s, Options{})
}

// openMany opens a channel that probes at its beginning.
func openMany(t testing.TB, s *server) *Channel {
	t.Helper()
	return openWith(t, s, Options{Many: true})
}

func openWith(t testing.TB, s *server, o Options) *Channel {
	t.Helper()
	o.Hostname = "mx.provider.example"
	c, err := Open(t.Context(), s.dial(t), nil, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// deliver hands one message over and returns what is reported.
func deliver(c *Channel, from, content string, to ...string) []Reply {
	d := c.Begin(from, to)
	io.WriteString(d, content)
	replies, _ := d.Commit()
	return replies
}

// commit is Commit without the fate.
func commit(d *Delivery) []Reply {
	replies, _ := d.Commit()
	return replies
}

func codes(replies []Reply) string {
	var s []string
	for _, r := range replies {
		s = append(s, fmt.Sprint(r.Code))
	}
	return strings.Join(s, " ")
}

const letter = "Received: by mx.provider.example\r\n\r\nhello\r\n"

func TestMessagesArriveWholeAndInOnePiece(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, extensions []string) {
		s := &server{extensions: extensions}
		c := open(t, s)
		big := make([]byte, 300_000)
		rand.Read(big)
		for i, b := range big {
			if b == '\n' || b == '\r' {
				big[i] = 'x'
			}
		}
		contents := []string{
			letter,
			"",
			".\r\n",
			"..\r\n.x\r\n\r\n.\r\n",
			"Received: x\r\n\r\nQUIT\r\n.\r\nMAIL FROM:<evil@example>\r\nRCPT TO:<a@b>\r\nDATA\r\n",
			strings.Repeat("long", 5000) + "\r\n",
			"a bare \r in it\r\n",
			"8-bit \xff\x00\xe4\r\n",
			string(big) + "\r\n" + strings.Repeat(".\r\n", 40_000),
		}
		var senders sync.WaitGroup
		for i, content := range contents {
			senders.Go(func() {
				for range 3 {
					from := fmt.Sprintf("<%d@sender.example> SIZE=%d", i, len(content))
					replies := deliver(c, from, content, "<a@customer.example>", "<b@customer.example> NOTIFY=NEVER")
					if got := codes(replies); got != "250 250" {
						t.Errorf("message %d: %s: %v", i, got, replies)
					}
				}
			})
		}
		senders.Wait()
		if err := c.Quit(); err != nil {
			t.Error(err)
		}
		got := s.taken()
		if len(got) != 3*len(contents) {
			t.Fatalf("%d messages arrived, want %d", len(got), 3*len(contents))
		}
		for _, m := range got {
			var i int
			fmt.Sscanf(m.from, "<%d@", &i)
			if m.content != contents[i] {
				t.Errorf("message %d arrived with %d octets, want %d: %.60q", i, len(m.content), len(contents[i]), m.content)
			}
			if !slices.Equal(m.to, []string{"<a@customer.example>", "<b@customer.example> NOTIFY=NEVER"}) {
				t.Errorf("message %d arrived for %q", i, m.to)
			}
		}
	})
}

func TestEachRecipientGetsTheServersWord(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, extensions []string) {
		s := &server{
			extensions: extensions,
			mail: func(path string) string {
				return map[string]string{"<blocked@sender.example>": "550 5.7.1 not you", "<later@sender.example>": "450 4.7.1 later"}[path]
			},
			rcpt: func(path string) string {
				switch {
				case strings.HasPrefix(path, "<unknown"):
					return "550-5.1.1 nobody\n550 5.1.1 of that name"
				case strings.HasPrefix(path, "<full"):
					return "452 4.2.2 full"
				}
				return ""
			},
			data: func(content []byte) string {
				if bytes.Contains(content, []byte("spam")) {
					return "554 5.7.1 spam"
				}
				return ""
			},
		}
		c := open(t, s)
		for range 2 { // the second time the server is known
			for _, test := range []struct {
				from, content string
				to            []string
				want          string
			}{
				{"<>", letter, []string{"<a@x>"}, "250"},
				{"<a@x>", letter, []string{"<unknown1@x>", "<a@x>", "<full@x>"}, "550 250 452"},
				{"<a@x>", letter, []string{"<unknown1@x>", "<unknown2@x>"}, "550 550"},
				{"<a@x>", letter, []string{"<full@x>"}, "452"},
				{"<blocked@sender.example>", letter, []string{"<a@x>", "<unknown1@x>"}, "550 550"},
				{"<later@sender.example>", letter, []string{"<a@x>"}, "450"},
				{"<a@x>", "Received: x\r\n\r\nspam\r\n", []string{"<a@x>", "<unknown@x>"}, "554 550"},
				{"<a@x>", letter, []string{"<a@x>"}, "250"},
			} {
				if got := deliver(c, test.from, test.content, test.to...); codes(got) != test.want {
					t.Errorf("from %s to %v: %v, want %s", test.from, test.to, got, test.want)
				}
			}
		}
		if err := c.Quit(); err != nil {
			t.Error(err)
		}
		if got := len(s.taken()); got != 6 {
			t.Errorf("%d messages were taken, want 6", got)
		}
	})
}

// Exim ends a session in which more than ten commands do nothing for a message, one RSET behind each aside.
func TestNoCommandIsSentInVain(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, extensions []string) {
		s := &server{extensions: extensions}
		c := open(t, s)
		var senders sync.WaitGroup
		for i := range 40 {
			senders.Go(func() { deliver(c, fmt.Sprintf("<%d@x>", i), letter, fmt.Sprintf("<to%d@x>", i)) })
		}
		senders.Wait()
		c.Quit()
		if messages, resets := len(s.taken()), s.said("RSET"); messages != 40 || resets > 41 { // the probe's
			t.Errorf("%d messages, RSET was said %d times", messages, resets)
		}
	})
}

const smuggled = "Received: by mx.provider.example\r\nNOOP\r\nRSET\r\nMAIL FROM:<evil@x>\r\nRCPT TO:<ceo@x>\r\nBDAT 5 LAST\r\nevil\n\r\n"

// A server that takes a refused chunk for commands gets none to take, also where it refuses what it accepted before.
func TestContentIsNeverTakenForCommands(t *testing.T) {
	t.Parallel()
	refuse := false
	s := &server{extensions: allExtensions, unread: true}
	s.rcpt = func(path string) string {
		if refuse || path == "<unknown@x>" {
			return "550 5.1.1 no"
		}
		return ""
	}
	c := openMany(t, s)
	for range 3 {
		if got := codes(deliver(c, "<a@x>", smuggled, "<unknown@x>")); got != "550" {
			t.Fatalf("the refused message is reported %s", got)
		}
		if got := codes(deliver(c, "<a@x>", smuggled, "<known@x>", "<unknown@x>")); got != "250 550" {
			t.Fatalf("the half refused message is reported %s", got)
		}
	}
	refuse = true
	if got := deliver(c, "<a@x>", smuggled, "<known@x>"); got[0].Code != 550 {
		t.Errorf("reported %v", got)
	}
	refuse = false
	if got := codes(deliver(c, "<a@x>", letter, "<known@x>")); got != "250" {
		t.Errorf("the message behind is reported %s", got)
	}
	if err := c.Quit(); err != nil {
		t.Error(err)
	}
	for _, m := range s.taken() {
		if m.from != "<a@x>" {
			t.Errorf("a message was smuggled in: %+v", m)
		}
	}
}

// refusing is a server that takes the empty path for a recipient, so that a probe does not tell what it does behind refused
// ones, and has accepted <known@x>.
func refusing(t *testing.T, unread bool, o Options) (c *Channel, refuse *bool, s *server) {
	refuse = new(bool)
	s = &server{extensions: allExtensions, anyRcpt: true}
	s.rcpt = func(path string) string {
		if *refuse && path == "<known@x>" {
			return "452 4.2.2 full"
		}
		return ""
	}
	o.Many = true
	c = openWith(t, s, o)
	warm(t, c)
	*refuse, s.unread = true, unread
	return c, refuse, s
}

// Where nobody knows what the server does with a refused chunk, its reply to RSET tells: nothing is believed behind a chunk
// that was taken for commands, and no message is sent behind it before.
func TestNothingIsBelievedBehindAChunkTakenForCommands(t *testing.T) {
	t.Parallel()
	for name, content := range map[string]string{
		"one chunk":   smuggled,
		"more chunks": smuggled + strings.Repeat("NOOP\r\n", 20_000),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, _, s := refusing(t, true, Options{})
			refused := make(chan string)
			go func() { refused <- codes(deliver(c, "<a@x>", content, "<known@x>")) }()
			behind := c.Begin("<a@x>", []string{"<other@x>"})
			io.WriteString(behind, letter)
			if got := <-refused; got != "452" && got != "451" {
				t.Errorf("the refused message is reported %s", got)
			}
			if replies, fate := behind.Commit(); codes(replies) != "451" || fate != Unsent {
				t.Errorf("a message behind one that was executed is reported %v, %v; want 451, and that nothing is known of it", replies, fate)
			}
			if err := c.Err(); !errors.Is(err, ErrSequence) || !c.Lessons().Chunking {
				t.Errorf("the channel ended with %v, learnt %+v", err, c.Lessons())
			}
			if n := len(s.taken()); n > mostWary+1 { // and what the chunk smuggled in
				t.Errorf("%d messages were taken", n)
			}
		})
	}
}

// A server that reads the chunk goes on, and what was on its way behind it counts.
func TestRecipientRefusedAfterItWasAcceptedHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	for name, s := range map[string]*server{"a probe told": {extensions: allExtensions}, "a probe told nothing": {extensions: allExtensions, anyRcpt: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			room := 20
			s.rcpt = func(path string) string {
				mu.Lock()
				defer mu.Unlock()
				if path != "<full@x>" {
					return ""
				}
				if room--; room < 0 {
					return "452 4.2.2 full"
				}
				return ""
			}
			c := openMany(t, s)
			warm(t, c)
			var senders sync.WaitGroup
			got := make([]string, 100)
			for i := range got {
				senders.Go(func() {
					got[i] = codes(deliver(c, "<a@x>", fmt.Sprintf("%s%d\r\n", letter, i), []string{"<full@x>", "<b@x>"}[i%2]))
				})
			}
			senders.Wait()
			if err := c.Quit(); err != nil {
				t.Error(err)
			}
			taken := map[string]int{}
			for _, m := range s.taken() {
				taken[m.content]++
			}
			refused := 0
			for i, code := range got {
				switch n := taken[fmt.Sprintf("%s%d\r\n", letter, i)]; {
				case code == "452" && n == 0 && i%2 == 0:
					refused++
				case code != "250" || n != 1:
					t.Errorf("message %d is reported %s and was taken %d times", i, code, n)
				}
			}
			if refused != 30 {
				t.Errorf("%d were refused, want 30", refused)
			}
		})
	}
}

func TestRefusedChunkEndsItsMessageAlone(t *testing.T) {
	t.Parallel()
	{
		n := 0
		s := &server{extensions: allExtensions, chunk: func(size int, last bool) string {
			if n++; n == 3 { // the first one is the probe's
				return "452 4.3.1 no room"
			}
			return ""
		}}
		c := openMany(t, s)
		if got := deliver(c, "<a@x>", strings.Repeat("0123456789abcd\r\n", 20_000), "<b@x>"); got[0].Code != 452 {
			t.Errorf("reported %v", got)
		}
		if got := deliver(c, "<a@x>", letter, "<b@x>"); got[0].Code != 250 {
			t.Errorf("the next message is reported %v", got)
		}
		if err := c.Quit(); err != nil {
			t.Error(err)
		}
		if got := s.taken(); len(got) != 1 || got[0].content != letter {
			t.Errorf("%d messages were taken", len(got))
		}
	}
}

func TestAbortedMessageDoesNotCount(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, extensions []string) {
		s := &server{extensions: extensions}
		c := open(t, s)
		d := c.Begin("<a@x>", []string{"<b@x>"})
		io.WriteString(d, letter)
		d.Abort()
		if got := deliver(c, "<a@x>", letter, "<b@x>"); got[0].Code != 250 {
			t.Errorf("the next message is reported %v", got)
		}
		// One that is under way already: where it cannot be taken back, the channel ends.
		d = c.Begin("<a@x>", []string{"<b@x>"})
		d.Write(bytes.Repeat([]byte("0123456789abcd\r\n"), 20_000))
		d.Abort()
		deliver(c, "<a@x>", letter, "<b@x>")
		c.Quit()
		for _, m := range s.taken() {
			if m.content != letter {
				t.Errorf("an aborted message was taken, with %d octets", len(m.content))
			}
		}
	})
}

// One that waits is answered while the server is busy with another. One that is on its way does not count where it
// travels in chunks, and is finished where it cannot be taken back: what follows does not suffer.
func TestWithdrawnMessageHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, extensions []string) {
		busy, finish := make(chan struct{}), make(chan struct{})
		s := &server{extensions: extensions, data: func(content []byte) string {
			if bytes.Contains(content, []byte("first")) {
				close(busy)
				<-finish
			}
			return ""
		}}
		c := open(t, s)
		first := make(chan []Reply)
		go func() { first <- deliver(c, "<a@x>", "first\r\n", "<b@x>") }()
		<-busy
		ahead := c.Begin("<new@x>", []string{"<b@x>"}) // it may be begun, but not more before the server answers
		io.WriteString(ahead, letter)
		waits := make(chan []Reply)
		go func() { waits <- commit(ahead) }()
		c.mu.Lock()
		for !ahead.given {
			c.changed.Wait()
		}
		c.mu.Unlock()
		d := c.Begin("<a@x>", []string{"<b@x>"})
		io.WriteString(d, letter)
		withdrawn := make(chan []Reply)
		go func() { withdrawn <- commit(d) }()
		d.Withdraw()
		if got := codes(<-withdrawn); got != "451" {
			t.Errorf("the withdrawn message is reported %s", got)
		}
		close(finish)
		if got := codes(<-first) + " " + codes(<-waits); got != "250 250" {
			t.Errorf("the others are reported %s", got)
		}

		d = c.Begin("<a@x>", []string{"<b@x>"})
		d.Write(bytes.Repeat([]byte("0123456789abcd\r\n"), 20_000)) // begun: more than may wait
		d.Withdraw()
		want := "451"
		if c.chunks != atOnce {
			want = "250"
		}
		if got := codes(commit(d)); got != want {
			t.Errorf("the message on its way is reported %s, want %s", got, want)
		}
		if got := codes(deliver(c, "<a@x>", letter, "<b@x>")); got != "250" {
			t.Errorf("the next message is reported %s", got)
		}
		if err := c.Quit(); err != nil {
			t.Error(err)
		}
	})
}

// The connection breaks at every command, before it is answered: what the server took is reported as
// taken unless its answer was lost, everything else as transient, and nobody waits for ever.
func TestNothingIsLostWhereverTheConnectionBreaks(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, extensions []string) {
		for cut := 2; cut < 40; cut++ {
			s := &server{extensions: extensions, before: func(n int, _ string) bool { return n == cut }}
			c := open(t, s)
			var senders sync.WaitGroup
			var mu sync.Mutex
			confirmed := map[string]bool{}
			for i := range 5 {
				senders.Go(func() {
					content := fmt.Sprintf("%s%d\r\n", letter, i)
					replies := deliver(c, "<a@x>", content, "<b@x>")
					mu.Lock()
					defer mu.Unlock()
					switch replies[0].Code {
					case 250:
						confirmed[content] = true
					case 451:
					default:
						t.Errorf("cut at %d: reported %v", cut, replies)
					}
				})
			}
			senders.Wait()
			c.Quit()
			taken := map[string]bool{}
			for _, m := range s.taken() {
				taken[m.content] = true
			}
			for content := range confirmed {
				if !taken[content] {
					t.Errorf("cut at %d: a message was confirmed that the server never took", cut)
				}
			}
		}
	})
}

func TestClosingServerIsBelieved(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, extensions []string) {
		s := &server{extensions: extensions, rcpt: func(path string) string {
			if path == "<enough@x>" {
				return "421 4.7.0 too many errors"
			}
			return map[string]string{"<unknown@x>": "550 5.1.1 no"}[path]
		}}
		c := open(t, s)
		if got := codes(deliver(c, "<a@x>", letter, "<unknown@x>", "<enough@x>", "<b@x>")); got != "550 451 451" {
			t.Errorf("reported %s; what was refused before the end stays refused", got)
		}
		if err := c.Err(); !errors.Is(err, ErrLost) || !strings.Contains(err.Error(), "421") {
			t.Errorf("the channel ended with %v", err)
		}
	})
}

func TestRepliesOutOfSequenceEndTheChannel(t *testing.T) {
	t.Parallel()
	for _, reply := range []string{"354 go on", "garbage", "99 small", "600 large"} {
		s := &server{extensions: allExtensions, data: func([]byte) string { return reply }}
		c := open(t, s)
		d := deliver(c, "<a@x>", letter, "<b@x>")
		if d[0].Code != 451 {
			t.Errorf("%q: reported %v", reply, d)
		}
		c.Quit()
		if c.Err() == nil {
			t.Errorf("%q did not end the channel", reply)
		}
	}
}

func TestSilentServerEndsTheChannel(t *testing.T) {
	t.Parallel()
	silent := make(chan struct{})
	defer close(silent)
	s := &server{extensions: allExtensions, data: func([]byte) string { <-silent; return "" }}
	c, err := Open(t.Context(), s.dial(t), nil, Options{Hostname: "mx.provider.example", Limits: Limits{Stall: time.Second}})
	if err != nil {
		t.Fatal(err)
	}
	if got := deliver(c, "<a@x>", letter, "<b@x>"); got[0].Code != 451 || !errors.Is(c.Err(), ErrStalled) {
		t.Errorf("reported %v, the channel ended with %v", got, c.Err())
	}
}

func TestServerThatReadsNoContentEndsTheChannel(t *testing.T) {
	t.Parallel()
	deaf := make(chan struct{})
	s := &server{extensions: ways["lines pipelined"], content: func() { <-deaf }}
	ours, theirs := net.Pipe() // takes nothing that is not read
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.serve(theirs)
		theirs.Close()
	}()
	defer func() {
		close(deaf)
		<-done
	}()
	c, err := Open(t.Context(), ours, nil, Options{Hostname: "mx.provider.example", Limits: Limits{Stall: time.Second}})
	if err != nil {
		t.Fatal(err)
	}
	if got := deliver(c, "<a@x>", strings.Repeat(letter, 5_000), "<b@x>"); got[0].Code != 451 || !errors.Is(c.Err(), ErrStalled) {
		t.Errorf("reported %v, the channel ended with %v", got, c.Err())
	}
	c.Quit()
}

func TestOpeningFailsWithAClearReason(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		s    *server
		want error
	}{
		{"busy", &server{greeting: "421 4.3.2 busy"}, ErrRefused},
		{"no mail", &server{greeting: "554 no mail here"}, ErrRefused},
		{"no SMTP", &server{greeting: "SSH-2.0-OpenSSH"}, ErrRefused},
		{"endless greeting", &server{greeting: strings.Repeat("220-hello\n", 1000) + "220 hello"}, ErrRefused},
		{"a long line", &server{greeting: "220 " + strings.Repeat("x", 10_000)}, ErrRefused},
		{"ourselves", &server{greeting: "220 MX.provider.example ESMTP"}, ErrSelf},
		{"gone", &server{before: func(n int, _ string) bool { return true }}, ErrLost},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, err := Open(t.Context(), test.s.dial(t), nil, Options{Hostname: "mx.provider.example"})
			if !errors.Is(err, test.want) {
				t.Errorf("%v, want %v", err, test.want)
			}
		})
	}
	ours, theirs := net.Pipe()
	defer theirs.Close()
	_, err := Open(t.Context(), ours, nil, Options{Limits: Limits{Greeting: 20 * time.Millisecond}})
	if !errors.Is(err, ErrStalled) {
		t.Errorf("a server that never greets: %v", err)
	}
	ours, theirs2 := net.Pipe()
	defer theirs2.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Open(ctx, ours, nil, Options{}); !errors.Is(err, ErrClosed) {
		t.Errorf("nobody wants it any more: %v, want ErrClosed", err)
	}
}

func TestOldServerIsGreetedWithHELO(t *testing.T) {
	t.Parallel()
	s := &server{before: func(int, string) bool { return false }}
	s.extensions = nil
	conn := s.dial(t)
	// A server without EHLO: this one is made to look so by spoiling the verb on its way.
	c, err := Open(t.Context(), &spoiling{Conn: conn}, nil, Options{Hostname: "mx.provider.example"})
	if err != nil {
		t.Fatal(err)
	}
	if got := deliver(c, "<a@x>", letter, "<b@x>"); got[0].Code != 250 {
		t.Errorf("reported %v", got)
	}
	c.Quit()
	if s.said("HELO") != 1 || len(s.taken()) != 1 {
		t.Errorf("%v", s.commands)
	}
}

// spoiling makes the first command another.
type spoiling struct {
	net.Conn
	once sync.Once
}

func (s *spoiling) Write(p []byte) (int, error) {
	s.once.Do(func() { p[0] = 'X' })
	return s.Conn.Write(p)
}

func TestLinesTravelAloneWhereFetchmailReadsThem(t *testing.T) {
	t.Parallel()
	var writes []string
	w := &lineWriter{to: writerFunc(func(p []byte) (int, error) {
		writes = append(writes, string(p))
		return len(p), nil
	})}
	long := strings.Repeat("y", 20_000)
	for _, part := range []string{"MAIL\r\nRCPT", "\r\nBDAT 3\r\n\r\nx", long[:5000], long[5000:], "\r\nRSET\r\n"} {
		if n, err := io.WriteString(w, part); n != len(part) || err != nil {
			t.Fatal(n, err)
		}
	}
	whole := "x" + long + "\r\n"
	want := []string{"MAIL\r\n", "RCPT", "\r\n", "BDAT 3\r\n", "\r\n", "x", whole[1:5001], whole[5001:8191], whole[8191:16382], whole[16382 : len(whole)-2], "\r\n", "RSET\r\n"}
	if !slices.Equal(writes, want) {
		for i, s := range writes {
			t.Logf("write %d has %d octets: %.20q", i, len(s), s)
		}
		t.Error("lines do not travel as they should")
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestSTARTTLSIsUsedWhereItIsOffered(t *testing.T) {
	t.Parallel()
	pair := certificate.New(t, "customer.example")
	offers := append([]string{"STARTTLS"}, allExtensions...)
	options := Options{Hostname: "mx.provider.example", StartTLS: &tls.Config{InsecureSkipVerify: true}}

	s := &server{extensions: offers, starttls: &tls.Config{Certificates: []tls.Certificate{pair.Pair}}}
	c, err := Open(t.Context(), s.dial(t), nil, options)
	if err != nil {
		t.Fatal(err)
	}
	if got := deliver(c, "<a@x>", letter, "<b@x>"); got[0].Code != 250 || c.TLS() != "TLS 1.3" {
		t.Errorf("over %q: %v", c.TLS(), got)
	}
	c.Quit()
	if s.said("EHLO") != 2 {
		t.Errorf("EHLO was said %d times; what was offered before TLS may be forged", s.said("EHLO"))
	}

	plain := &server{extensions: allExtensions}
	c, err = Open(t.Context(), plain.dial(t), nil, options)
	if err != nil || c.TLS() != "" {
		t.Fatalf("a server without STARTTLS: %v", err)
	}
	c.Close()

	broken := &server{extensions: offers}
	if _, err := Open(t.Context(), broken.dial(t), nil, options); !errors.Is(err, ErrTLS) {
		t.Errorf("a server that fails at it: %v, want ErrTLS", err)
	}
}
