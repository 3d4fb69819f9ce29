package relay

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"
)

// warm has the server accept as many messages as it takes for the channel to expect no refusals.
func warm(t *testing.T, c *Channel) {
	t.Helper()
	for range mostWary {
		if got := codes(deliver(c, "<a@x>", letter, "<first@x>")); got != "250" {
			t.Fatalf("reported %s", got)
		}
	}
}

// many hands n messages over at the same time and returns what is reported of each.
func many(c *Channel, n int, letter func(i int) (from, to string)) (replies [][]Reply, fates []Fate) {
	replies, fates = make([][]Reply, n), make([]Fate, n)
	var senders sync.WaitGroup
	for i := range n {
		senders.Go(func() {
			from, to := letter(i)
			d := c.Begin(from, []string{to})
			fmt.Fprintf(d, "Received: by mx.provider.example\r\n\r\n%d\r\n", i)
			replies[i], fates[i] = d.Commit()
		})
	}
	senders.Wait()
	return replies, fates
}

// until waits for a condition.
func until(t *testing.T, holds func() bool) {
	t.Helper()
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for end := time.Now().Add(time.Minute); !holds(); <-look.C {
		if time.Now().After(end) {
			t.Fatal("what was waited for did not come about")
		}
	}
}

func stranger(i int) (from, to string) { return fmt.Sprintf("<%d@x>", i), fmt.Sprintf("<to%d@x>", i) }

func TestStrangersAreNotWaitedForWhereTheServerReadsRefusedChunks(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	s := &server{extensions: allExtensions}
	c := openMany(t, s)
	warm(t, c)
	s.data = func([]byte) string { <-release; return "" }
	const n = 10
	done := make(chan [][]Reply)
	go func() {
		replies, _ := many(c, n, stranger)
		done <- replies
	}()
	// The server answers nothing, and all are on their way.
	until(t, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		ends := 0
		for _, d := range c.due {
			if d.to == toLastChunk {
				ends++
			}
		}
		return ends == n
	})
	close(release)
	for i, replies := range <-done {
		if codes(replies) != "250" {
			t.Errorf("message %d: %v", i, replies)
		}
	}
}

func TestProbe(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		server *server
		want   chunkUse
	}{
		"reads the chunk":        {&server{}, atOnce},
		"takes it for a command": {&server{unread: true}, afterRecipients},
		"takes it for a command, and answers RSET in lines": {&server{unread: true, pause: func(string) {}, // each reply leaves by itself
			reset: func() string { return "250-2.0.0 forgotten\n250 2.0.0 all of it" }}, afterRecipients},
		"knows no BDAT":        {&server{unread: true, chunk: func(int, bool) string { return "502 5.5.1 what?" }}, byData},
		"takes the empty path": {&server{anyRcpt: true}, guarded},
		"knows no null sender": {&server{mail: func(string) string { return "550 5.1.8 no" }}, atOnce},
		"offers no CHUNKING":   {&server{extensions: ways["lines pipelined"]}, byData},
		"offers no PIPELINING": {&server{extensions: ways["chunks in lockstep"]}, byData},
		"puts the chunk off":   {&server{chunk: func(size int, _ bool) string { return map[int]string{6: "451 4.3.0 later"}[size] }}, byData},
		"refuses in several lines": {&server{chunk: func(size int, _ bool) string {
			return map[int]string{6: "503-5.5.1 no\n503 5.5.1 recipients"}[size]
		}}, atOnce},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := test.server
			if s.extensions == nil {
				s.extensions = allExtensions
			}
			c := openMany(t, s)
			if s.mail != nil {
				s.mail = nil
			} else if got := codes(deliver(c, "<a@x>", letter, "<b@x>")); got != "250" || len(s.taken()) != 1 {
				t.Errorf("a message is reported %s, and %d were taken", got, len(s.taken()))
			}
			c.mu.Lock()
			got := c.chunks
			c.mu.Unlock()
			if name == "knows no null sender" {
				deliver(c, "<a@x>", letter, "<b@x>")
				got = c.chunks
			}
			if got != test.want {
				t.Errorf("chunks are used as %d, want %d", got, test.want)
			}
		})
	}
}

func TestNoProbeForOneMessageOrWithoutCHUNKING(t *testing.T) {
	t.Parallel()
	s := &server{extensions: allExtensions}
	c := open(t, s)
	deliver(c, "<a@x>", letter, "<b@x>")
	c.Quit()
	if s.said("MAIL") != 1 || s.said("EHLO") != 1 || s.said("BDAT") != 0 {
		t.Errorf("for one message: %q", s.commands)
	}
	s = &server{extensions: ways["lines pipelined"]}
	c = openMany(t, s)
	many(c, 5, stranger)
	c.Quit()
	if s.said("MAIL") != 5 || s.said("EHLO") != 1 {
		t.Errorf("without CHUNKING: %q", s.commands)
	}
}

// A Postfix counts each of RCPT and BDAT as an error, and closes after 20.
func TestRefusalsMakeItAskFirst(t *testing.T) {
	t.Parallel()
	s := &server{extensions: allExtensions, rcpt: func(path string) string {
		if strings.HasPrefix(path, "<unknown") {
			return "550 5.1.1 no"
		}
		return ""
	}}
	c := openMany(t, s)
	if got := codes(deliver(c, "<a@x>", letter, "<unknown@x>")); got != "550" || s.said("BDAT") != 2 { // the probe's
		t.Errorf("the first one is reported %s, %d chunks were sent", got, s.said("BDAT"))
	}
	warm(t, c)
	before := s.said("BDAT")
	chunks := func() int { return s.said("BDAT") - before }
	for i := range 12 {
		if got := codes(deliver(c, "<a@x>", letter, fmt.Sprintf("<unknown%d@x>", i))); got != "550" {
			t.Fatalf("reported %s", got)
		}
	}
	if chunks() != 2 {
		t.Errorf("behind 12 refused recipients came %d chunks, want 2", chunks())
	}
	for i := range 20 {
		if got := codes(deliver(c, "<a@x>", letter, fmt.Sprintf("<known%d@x>", i))); got != "250" {
			t.Fatalf("reported %s", got)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.wary >= waryFrom {
		t.Error("20 accepted messages later it still asks first")
	}
}

func TestServerThatKnowsNoBDATGetsDATA(t *testing.T) {
	t.Parallel()
	// It knows the probe's, which is an empty transaction, and no other.
	for reply, broken := range map[string]bool{"502 5.5.1 what?": true, "554 5.5.1 what?": true, "451 4.3.0 later": false} {
		s := &server{extensions: allExtensions, chunk: func(size int, _ bool) string {
			if size > 6 {
				return reply
			}
			return ""
		}}
		c := openMany(t, s)
		replies, fates := many(c, 5, stranger)
		for i := range replies {
			if replies[i][0].Code != 451 || fates[i] != Unsent {
				if broken || replies[i][0].Code != 250 {
					t.Errorf("%s: message %d is reported %v, fate %d", reply, i, replies[i], fates[i])
				}
			}
		}
		if !c.Lessons().Chunking {
			t.Errorf("%s: nothing was learnt", reply)
		}
		again := openWith(t, s, Options{Many: true, Without: c.Lessons()})
		if got := codes(deliver(again, "<a@x>", letter, "<b@x>")); got != "250" {
			t.Errorf("%s: by DATA it is reported %s", reply, got)
		}
	}
}

func TestRefusedParameterIsFoundOut(t *testing.T) {
	t.Parallel()
	refused := func(word, reply string) func(string) string {
		return func(path string) string {
			if strings.Contains(path, word) {
				return reply
			}
			return ""
		}
	}
	const from, to = "<a@x> SIZE=100 BODY=8BITMIME RET=HDRS ENVID=1", "<b@x> NOTIFY=SUCCESS ORCPT=rfc822;b@x"
	for name, test := range map[string]struct {
		s    *server
		want Lessons
	}{
		"RET and ENVID": {&server{mail: refused("ENVID", "555 5.5.4 unsupported")}, Lessons{DSN: true}},
		"SIZE":          {&server{mail: refused("SIZE", "501 5.5.4 syntax")}, Lessons{Size: true}},
		"BODY":          {&server{mail: refused("BODY", "504 5.5.4 no such body")}, Lessons{EightBit: true}},
		"NOTIFY":        {&server{rcpt: refused("NOTIFY", "501 5.5.4 syntax")}, Lessons{DSN: true}},
		"the sender":    {&server{mail: refused("<a@x>", "501 5.1.7 bad address")}, Lessons{}},
		"the recipient": {&server{rcpt: refused("<b@x>", "501 5.1.3 bad address")}, Lessons{}},
	} {
		for _, way := range []string{"chunks pipelined", "lines pipelined", "lines in lockstep"} {
			t.Run(name+"/"+way, func(t *testing.T) {
				t.Parallel()
				s := &server{extensions: ways[way], mail: test.s.mail, rcpt: test.s.rcpt}
				if way == "lines in lockstep" {
					s.extensions = []string{"SIZE", "8BITMIME", "DSN"}
				}
				c := openMany(t, s)
				d := c.Begin(from, []string{to})
				io.WriteString(d, letter)
				replies, fate := d.Commit()
				if got := c.Lessons(); got != test.want {
					t.Errorf("learnt %+v, want %+v", got, test.want)
				}
				if test.want == (Lessons{}) {
					if replies[0].Code != 501 || fate != Answered {
						t.Errorf("reported %v, fate %d", replies, fate)
					}
				} else if replies[0].Code != 451 || fate != Unsent {
					t.Errorf("reported %v, fate %d", replies, fate)
				}
				if e := c.Extensions(); e.DSN == test.want.DSN || e.Size == test.want.Size {
					t.Errorf("it offers %+v", e)
				}
				// One that was taken in before, with the same parameters, costs no further question.
				asked := s.said("MAIL")
				if test.want != (Lessons{}) {
					if got := codes(deliver(c, from, letter, to)); got != "451" || s.said("MAIL") != asked {
						t.Errorf("reported %s, with %d questions more", got, s.said("MAIL")-asked)
					}
				}
				if got := codes(deliver(c, "<c@x>", letter, "<d@x>")); got != "250" {
					t.Errorf("a message without parameters is reported %s", got)
				}
			})
		}
	}
}

// Where the server takes another recipient as it is, or puts the bare address off, nobody says no to the message.
func TestRefusedParameterReturnsNoMail(t *testing.T) {
	t.Parallel()
	notify := func(otherwise string) func(string) string {
		return func(path string) string {
			if strings.Contains(path, "NOTIFY") {
				return "501 5.5.4 syntax"
			}
			return otherwise
		}
	}
	for name, test := range map[string]struct{ mail, rcpt func(path string) string }{
		"of one recipient of two":        {nil, notify("")},
		"of a recipient that is put off": {nil, notify("450 4.2.0 greylisted")},
		"of a sender that is put off": {func(path string) string {
			if strings.Contains(path, "ENVID") {
				return "555 5.5.4 unsupported"
			}
			return map[string]string{"<a@x>": "452 4.3.1 no space"}[path]
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachWay(t, func(t *testing.T, extensions []string) {
				c := openMany(t, &server{extensions: append([]string{"DSN"}, extensions...), mail: test.mail, rcpt: test.rcpt})
				if got := deliver(c, "<a@x> ENVID=1", letter, "<b@x> NOTIFY=SUCCESS", "<c@x>"); !got[0].Transient() {
					t.Errorf("reported %v, learnt %+v", got, c.Lessons())
				}
			})
		})
	}
}

// RFC 5321, section 4.5.3.1.10: some say 552 where they mean 452.
func TestRecipientsThatAreTooManyArePutOff(t *testing.T) {
	t.Parallel()
	for _, reply := range []string{"452 4.5.3 too many recipients", "552 5.5.3 too many recipients"} {
		eachWay(t, func(t *testing.T, extensions []string) {
			n := 0
			s := &server{extensions: extensions, rcpt: func(string) string {
				if n++; n > 2 {
					return reply
				}
				return ""
			}}
			c := openMany(t, s)
			if got := codes(deliver(c, "<a@x>", letter, "<b@x>", "<c@x>", "<d@x>", "<e@x>")); got != "250 250 452 452" {
				t.Errorf("%s is reported as %s", reply, got)
			}
		})
	}
}

func TestRefusalThatIsNotAboutTheMessageReturnsNone(t *testing.T) {
	t.Parallel()
	for _, code := range []string{"500", "502", "503", "504", "530"} {
		eachWay(t, func(t *testing.T, extensions []string) {
			for _, s := range []*server{
				{extensions: extensions, mail: func(string) string { return code + " no" }},
				{extensions: extensions, rcpt: func(string) string { return code + " no" }},
			} {
				c := openMany(t, s)
				d := c.Begin("<a@x>", []string{"<b@x>"})
				io.WriteString(d, letter)
				if replies, fate := d.Commit(); replies[0].Code != 451 || fate != Deferred {
					t.Errorf("%s is reported as %v, fate %d", code, replies, fate)
				}
			}
		})
	}
}

// What a connection's end says of each message.
func TestFates(t *testing.T) {
	t.Parallel()
	poison := func(content []byte) bool { return strings.HasSuffix(string(content), "\r\n3\r\n") }
	count := func(fates []Fate) (n [6]int) {
		for _, f := range fates {
			n[f]++
		}
		return n
	}
	t.Run("hangs up on a message", func(t *testing.T) {
		t.Parallel()
		eachWay(t, func(t *testing.T, extensions []string) {
			s := &server{extensions: extensions}
			s.data = func(content []byte) string {
				if poison(content) {
					s.hangUp = true
				}
				return ""
			}
			c := openMany(t, s)
			_, fates := many(c, 8, stranger)
			if fates[3] != Broken && fates[3] != Choked {
				t.Errorf("the message has the fate %d", fates[3])
			}
			again := openMany(t, &server{extensions: extensions, data: s.data, hangUp: true})
			d := again.Begin("<a@x>", []string{"<b@x>"})
			io.WriteString(d, letter)
			if _, fate := d.Commit(); fate != Choked {
				t.Errorf("alone it has the fate %d", fate)
			}
		})
	})
	t.Run("says that it closes", func(t *testing.T) {
		t.Parallel()
		n := 0
		s := &server{extensions: allExtensions, mail: func(string) string {
			if n++; n == 5 { // the probe's among them
				return "421 4.7.0 too many errors"
			}
			return ""
		}}
		c := openMany(t, s)
		_, fates := many(c, 8, stranger)
		if got := count(fates); got[Answered] != 3 || got[Unsent] != 4 || got[Surplus] != 1 {
			t.Errorf("%v", got)
		}
		if c.Served() == 0 {
			t.Error("it is not seen that the server ends connections by itself")
		}
	})
	t.Run("says so in answer to a content", func(t *testing.T) {
		t.Parallel()
		s := &server{extensions: allExtensions, data: func(content []byte) string {
			if poison(content) {
				return "421 4.3.0 scanner died"
			}
			return ""
		}}
		c := openMany(t, s)
		_, fates := many(c, 8, stranger)
		if got := count(fates); fates[3] != Broken && fates[3] != Choked || got[Broken]+got[Choked] != 1 {
			t.Errorf("%v", fates)
		}
	})
	t.Run("closes behind a message that it refused", func(t *testing.T) {
		t.Parallel()
		s := &server{extensions: allExtensions, rcpt: func(string) string { return "550 5.1.1 no" }}
		s.chunk = func(size int, _ bool) string {
			if size > 6 { // the probe's are no longer
				return "421 4.7.0 too many errors"
			}
			return ""
		}
		c := openMany(t, s)
		replies, fates := many(c, 1, stranger)
		if codes(replies[0]) != "550" || fates[0] != Answered {
			t.Errorf("reported %v, fate %d", replies[0], fates[0])
		}
	})
	t.Run("takes no more messages", func(t *testing.T) {
		t.Parallel()
		n := 0
		s := &server{extensions: allExtensions, mail: func(string) string {
			if n++; n > 5 {
				return "452 4.5.3 Too many messages sent"
			}
			return ""
		}}
		c := openMany(t, s)
		_, fates := many(c, 12, stranger)
		if got := count(fates); got[Answered] != 4 || got[Deferred] < 2 || got[Deferred]+got[Unsent] != 8 {
			t.Errorf("%v", got)
		}
		<-c.Ended()
		if c.Err() != nil || c.Served() == 0 || c.Brought() != 4 {
			t.Errorf("%v, served %d, brought %d", c.Err(), c.Served(), c.Brought())
		}
	})
	t.Run("RSET is not answered with 250", func(t *testing.T) {
		t.Parallel()
		s := &server{extensions: allExtensions}
		n := 0
		s.reset = func() string {
			if n++; n == 4 {
				return "554 Too many nonmail commands"
			}
			return ""
		}
		c := openMany(t, s)
		replies, fates := many(c, 8, stranger)
		if got := count(fates); got[Answered]+got[Unsent] != 8 || got[Answered] < 3 {
			t.Errorf("%v", got)
		}
		for i, f := range fates {
			if f == Unsent && replies[i][0].Code != 451 {
				t.Errorf("reported %v", replies[i])
			}
		}
		if !errors.Is(c.Err(), ErrSequence) {
			t.Errorf("the channel ended with %v", c.Err())
		}
	})
}

func TestLimitsOfTheServerAreKept(t *testing.T) {
	t.Parallel()
	s := &server{extensions: append([]string{"LIMITS MAILMAX=3 RCPTMAX=7 OTHER=x"}, allExtensions...)}
	c := open(t, s)
	_, fates := many(c, 8, stranger)
	<-c.Ended()
	taken := 0
	for _, f := range fates {
		if f == Answered {
			taken++
		} else if f != Unsent {
			t.Errorf("fate %d", f)
		}
	}
	if taken != 3 || c.Err() != nil || c.Extensions().MaxRecipients != 7 || c.Takes() {
		t.Errorf("%d were sent, %v, %+v", taken, c.Err(), c.Extensions())
	}
	c = openWith(t, s, Options{MaxMessages: 2})
	if _, fates = many(c, 4, stranger); len(s.taken()) != 5 {
		t.Errorf("%v", fates)
	}
}

func TestServerThatSwallowsPipelinedCommandsIsFoundOut(t *testing.T) {
	t.Parallel()
	for _, extensions := range [][]string{allExtensions, ways["lines pipelined"]} {
		s := &server{extensions: extensions, swallows: true}
		c := openWith(t, s, Options{Many: true, Limits: Limits{Stall: time.Second}})
		if got := codes(deliver(c, "<a@x>", letter, "<b@x>")); got != "451" {
			t.Fatalf("reported %s", got)
		}
		if l := c.Lessons(); !l.Pipelining {
			t.Errorf("learnt %+v", l)
		}
		c = openWith(t, s, Options{Many: true, Without: c.Lessons()})
		for range 3 {
			if got := codes(deliver(c, "<a@x>", letter, "<b@x>")); got != "250" {
				t.Errorf("in lock step it is reported %s", got)
			}
		}
	}
}

func TestLinesOfAReplyMayHaveDifferentCodes(t *testing.T) {
	t.Parallel()
	s := &server{extensions: allExtensions, data: func([]byte) string { return "250-2.0.0 taken\n550-no\n250 2.0.0 yes" }}
	c := open(t, s)
	if got := deliver(c, "<a@x>", letter, "<b@x>"); got[0].Code != 250 {
		t.Errorf("reported %v; the last line's code counts", got)
	}
}

// A server that demands a client's certificate says so behind the handshake, in TLS 1.3.
func TestTLSThatFailsBehindTheHandshakeIsAFailureOfTLS(t *testing.T) {
	t.Parallel()
	for name, s := range tlsFailures(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Open(t.Context(), s.dial(t), nil, Options{Hostname: "mx.provider.example", StartTLS: opportunistic})
			if !errors.Is(err, ErrTLS) {
				t.Errorf("%v, want ErrTLS", err)
			}
		})
	}
	plain := &server{extensions: allExtensions}
	_, err := Open(t.Context(), plain.dial(t), nil, Options{Hostname: "mx.provider.example", StartTLS: opportunistic, RequireTLS: true})
	if !errors.Is(err, ErrNoTLS) {
		t.Errorf("without STARTTLS: %v, want ErrNoTLS", err)
	}
}

func TestMuchMailOverTLSArrivesLineByLine(t *testing.T) {
	t.Parallel()
	s := &server{extensions: allExtensions}
	ours, records := reversedTLS(t, s)
	c, err := Open(t.Context(), ours, nil, Options{Hostname: "mx.provider.example", Reversed: true, Many: true})
	if err != nil {
		t.Fatal(err)
	}
	replies, _ := many(c, 100, stranger)
	for i := range replies {
		if codes(replies[i]) != "250" {
			t.Fatalf("message %d: %v", i, replies[i])
		}
	}
	if err := c.Quit(); err != nil {
		t.Error(err)
	}
	for _, r := range records() {
		if n := strings.Count(r, "\n"); n > 1 || n == 1 && !strings.HasSuffix(r, "\n") {
			t.Fatalf("a record holds more than a line, which fetchmail would not see: %q", r)
		}
	}
}

// Until the reply to RSET has shown what became of a chunk behind a refused recipient, nothing more is sent: neither another
// message nor another chunk of the same.
func TestNothingIsSentBehindAChunkInDoubt(t *testing.T) {
	t.Parallel()
	c, _, s := refusing(t, true, Options{})
	read := make(chan struct{})
	s.pause = func(command string) {
		if strings.HasPrefix(command, "Received:") { // the chunk is taken for commands
			<-read
		}
	}
	mails := s.said("MAIL FROM:<a@x>")
	if got := codes(deliver(c, "<a@x>", letter, "<known@x>")); got != "452" {
		t.Fatalf("reported %s", got)
	}
	behind := c.Begin("<a@x>", []string{"<other@x>"})
	io.WriteString(behind, letter)
	behind.Complete()
	for range 100 { // gives a writer that does not wait its time
		until(t, func() bool { return true })
	}
	close(read)
	if replies, _ := behind.Commit(); codes(replies) != "451" {
		t.Errorf("the message behind is reported %v", replies)
	}
	if n := s.said("MAIL FROM:<a@x>") - mails; n != 1 {
		t.Errorf("%d transactions were begun before it was known what became of the first one's chunk", n)
	}
}

func TestOneChunkIsSentBeforeTheRecipientsAreMet(t *testing.T) {
	t.Parallel()
	const size = 1024
	c, refuse, s := refusing(t, false, Options{Limits: Limits{Content: size}})
	*refuse = false
	warm(t, c)
	full := make(chan struct{})
	s.rcpt = func(string) string { <-full; return "452 4.2.2 full" }
	chunks := s.said("BDAT")
	d := c.Begin("<a@x>", []string{"<known@x>"})
	written := make(chan struct{})
	go func() {
		defer close(written)
		io.WriteString(d, letter+strings.Repeat("0123456789abcd\r\n", 5*size/16))
	}()
	until(t, func() bool { // the first chunk has left, and the next one is there
		c.mu.Lock()
		defer c.mu.Unlock()
		return d.shown && d.held == size
	})
	close(full)
	<-written
	if got := codes(commit(d)); got != "452" {
		t.Errorf("reported %s", got)
	}
	if n := s.said("BDAT") - chunks; n != 1 {
		t.Errorf("%d chunks were sent", n)
	}
	if got := codes(deliver(c, "<a@x>", letter, "<other@x>")); got != "452" || c.Err() != nil {
		t.Errorf("the next message is reported %s, the channel ended with %v", got, c.Err())
	}
}

func TestServerThatKnowsNoDATAGetsBDAT(t *testing.T) {
	t.Parallel()
	s := &server{extensions: allExtensions, unread: true, noData: true}
	c := open(t, s)
	d := c.Begin("<a@x>", []string{"<b@x>"})
	io.WriteString(d, letter)
	if replies, fate := d.Commit(); codes(replies) != "451" || fate != Unsent {
		t.Errorf("by DATA it is reported %v, fate %d; want another try", replies, fate)
	}
	if got := codes(deliver(c, "<a@x>", letter, "<b@x>")); got != "250" || s.said("BDAT") != 1 {
		t.Errorf("by BDAT it is reported %s", got)
	}
}
