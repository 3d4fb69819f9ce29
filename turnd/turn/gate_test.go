package turn

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"mailbag/turnd/relay"

	postfixtest "mailbag/testdata/postfix"
)

// gate opens a turn of globex, to a server, whose gate is reached by TCP. The MTA brings nothing by itself.
func gateAt(t *testing.T, server *postfixtest.Sink) (h *house, addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return gateOn(t, l, server), l.Addr().String()
}

// gateOn is gateAt with a listener.
func gateOn(t *testing.T, l net.Listener, server *postfixtest.Sink) *house {
	t.Helper()
	h := newHouse(t, func(c *plan) {
		c.Listen = func(context.Context, string) (net.Listener, error) { return l, nil }
		c.FirstWait, c.IdleWait = time.Minute, time.Minute
	})
	h.stuck[h.hold(true, hello, "a@globex.example")] = true
	ended := make(chan error, 1)
	go func() { ended <- h.reverse("globex", server) }()
	t.Cleanup(func() {
		h.turns.End("globex")
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return h
}

func TestGateSpeaksLMTP(t *testing.T) {
	t.Parallel()
	server := customer(t, nil)
	_, addr := gateAt(t, server)
	if err := postfixtest.Dialogue(addr, "", "testdata/gate.dialogue", nil); err != nil {
		t.Error(err)
	}
	messages := server.Messages()
	if len(messages) != 1 {
		t.Fatalf("%d messages arrived", len(messages))
	}
	want := postfixtest.Message{
		Helo: "mx.provider.example", From: `"quo > ted"@sender.example`, FromParams: "BODY=8BITMIME SIZE=100 RET=HDRS ENVID=a+2Bb",
		Recipients: []string{"a@globex.example", `"a b"@GLOBEX.test.`},
		Data:       []byte("Received: by mx.provider.example\r\n\r\n.dotted\r\n"),
	}
	if diff := cmp.Diff(want, messages[0]); diff != "" {
		t.Errorf("what arrived (-want +got):\n%s", diff)
	}
}

func TestGateOffersWhatTheServerOffers(t *testing.T) {
	t.Parallel()
	for _, extensions := range [][]string{{"SIZE 12345"}, {"PIPELINING", "8BITMIME"}, {"DSN", "SMTPUTF8", "8BITMIME", "SIZE"}, {}} {
		server := customer(t, func(s *postfixtest.Sink) { s.Extensions = extensions })
		_, addr := gateAt(t, server)
		c, err := postfixtest.Dial(addr, "")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		offer, err := c.Say("LHLO mx.provider.example")
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range []string{"SIZE 12345", "8BITMIME", "DSN", "SMTPUTF8"} {
			if offers := strings.Contains(offer, e); offers != strings.Contains(strings.Join(extensions, " "), e) {
				t.Errorf("a server with %q is offered to the MTA as %q", extensions, offer)
			}
		}
		if !strings.Contains(offer, "SMTPUTF8") {
			if reply, err := c.Say("MAIL FROM:<ä@sender.example> SMTPUTF8"); err != nil || reply[:3] != "555" {
				t.Errorf("a parameter that was not offered: %q, %v", reply, err)
			}
		}
	}
}

// No end of data but the true one, and no content that a less careful server could take for one.
func TestGateRefusesBareLineFeeds(t *testing.T) {
	t.Parallel()
	server := customer(t, nil)
	_, addr := gateAt(t, server)
	c, err := postfixtest.Dial(addr, "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, command := range []string{"LHLO x", "MAIL FROM:<a@sender.example>", "RCPT TO:<a@globex.example>", "DATA"} {
		if reply, err := c.Say(command); err != nil || reply[0] > '3' {
			t.Fatal(command, reply, err)
		}
	}
	c.Write([]byte("Subject: x\r\n\r\nx\n.\r\nMAIL FROM:<evil@sender.example>\r\n.\n\r.\r\n"))
	c.Write([]byte("\r\n.\r\n"))
	if reply, err := c.Reply(); err != nil || reply[:9] != "554 5.6.0" {
		t.Errorf("answered %q, %v", reply, err)
	}
	if reply, err := c.Say("NOOP"); err != nil || reply[:3] != "250" {
		t.Errorf("out of step: %q, %v", reply, err)
	}
	if n := len(server.Messages()); n != 0 {
		t.Errorf("%d messages arrived", n)
	}
}

func TestGateBoundsLines(t *testing.T) {
	t.Parallel()
	_, addr := gateAt(t, customer(t, nil))
	c, err := postfixtest.Dial(addr, "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, n := range []int{5000, 100_000} {
		if reply, err := c.Say("LHLO " + strings.Repeat("x", n)); err != nil || reply[:3] != "500" {
			t.Errorf("a line of %d octets: %q, %v", n, reply, err)
		}
	}
	if reply, err := c.Say("NOOP"); err != nil || reply[:3] != "250" {
		t.Errorf("the line behind it: %q, %v", reply, err)
	}
}

// However long the customer's server took to answer: the MTA has its time for the replies from then on, also where they
// are more than one write.
func TestMTAHasItsTimeForRepliesThatCameLate(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := clocked{Listener: l}
	server := customer(t, func(s *postfixtest.Sink) {
		s.OnMessage = func(postfixtest.Message) string {
			c.stale.Store(true)
			return "250 2.0.0 " + strings.Repeat("queued ", 20)
		}
	})
	gateOn(t, &c, server)
	mta, err := postfixtest.Dial(l.Addr().String(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer mta.Close()
	const recipients = 50
	commands := []string{"LHLO x", "MAIL FROM:<a@sender.example>"}
	for i := range recipients {
		commands = append(commands, fmt.Sprintf("RCPT TO:<%d@globex.example>", i))
	}
	for _, command := range append(commands, "DATA") {
		if reply, err := mta.Say(command); err != nil || reply[0] > '3' {
			t.Fatal(command, reply, err)
		}
	}
	mta.Write([]byte(hello + ".\r\n"))
	for range recipients {
		if reply, err := mta.Reply(); err != nil || reply[0] != '2' {
			t.Fatal(reply, err)
		}
	}
	if c.late.Load() {
		t.Error("replies were written by a deadline from before the customer's server answered")
	}
}

// A clocked listener notes whether anything is written by a deadline that became stale before.
type clocked struct {
	net.Listener
	stale, late atomic.Bool
}

type clockedConn struct {
	net.Conn
	*clocked
}

func (c *clocked) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	return clockedConn{conn, c}, err
}

func (c clockedConn) SetWriteDeadline(t time.Time) error {
	c.stale.Store(false)
	return c.Conn.SetWriteDeadline(t)
}

func (c clockedConn) Write(b []byte) (int, error) {
	if c.stale.Load() {
		c.late.Store(true)
	}
	return c.Conn.Write(b)
}

// short is a listener that lacks file descriptors at first.
type short struct {
	net.Listener
	once sync.Once
}

func (s *short) Accept() (conn net.Conn, err error) {
	s.once.Do(func() { err = &net.OpError{Op: "accept", Err: syscall.EMFILE} })
	if err != nil {
		return nil, err
	}
	return s.Listener.Accept()
}

func TestGateOutlastsAShortageOfDescriptors(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := customer(t, nil)
	gateOn(t, &short{Listener: l}, server)
	mta := begin(t, l.Addr().String(), "SOME", "a@globex.example")
	mta.Write([]byte(hello + ".\r\n"))
	replies(t, mta, "250")
	if n := len(server.Messages()); n != 1 {
		t.Errorf("%d messages arrived", n)
	}
}

// begin sends a message of globex up to its content, as the MTA does.
func begin(t *testing.T, addr, id string, to ...string) *postfixtest.Client {
	t.Helper()
	c, err := postfixtest.Dial(addr, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	commands := []string{"LHLO x", "XFORWARD IDENT=" + id, "MAIL FROM:<a@sender.example>"}
	for _, address := range to {
		commands = append(commands, "RCPT TO:<"+address+">")
	}
	for _, command := range append(commands, "DATA") {
		if reply, err := c.Say(command); err != nil || reply[0] > '3' {
			t.Fatal(command, reply, err)
		}
	}
	return c
}

// replies fails the test unless these begin the replies to come.
func replies(t *testing.T, c *postfixtest.Client, want ...string) {
	t.Helper()
	for _, code := range want {
		if reply, err := c.Reply(); err != nil || !strings.HasPrefix(reply, code) {
			t.Fatalf("%q, %v; want %s", reply, err, code)
		}
	}
}

// sessions waits until the gate has so many.
func (h *house) sessions(n int) {
	h.t.Helper()
	h.turns.mu.Lock()
	gate := h.turns.open["globex"].gate
	h.turns.mu.Unlock()
	h.until(fmt.Sprintf("the MTA has %d sessions", n), func() bool {
		gate.mu.Lock()
		defer gate.mu.Unlock()
		return len(gate.conns) == n
	})
}

// The MTA is restarted, or loses patience, while a message waits behind another.
func TestMessageWhoseMTAHangsUpDoesNotArriveTwice(t *testing.T) {
	t.Parallel()
	busy, finished := make(chan struct{}), make(chan struct{})
	finish := sync.OnceFunc(func() { close(finished) })
	defer finish()
	server := customer(t, func(s *postfixtest.Sink) {
		s.Extensions = []string{"8BITMIME"} // so one message is begun at a time
		s.OnMessage = func(m postfixtest.Message) string {
			if bytes.Contains(m.Data, []byte("first")) {
				close(busy)
				<-finished
			}
			return ""
		}
	})
	h, addr := gateAt(t, server)
	first := begin(t, addr, "FIRST", "a@globex.example")
	first.Write([]byte(hello + "first\r\n.\r\n"))
	<-busy
	for _, behind := range []string{"", "QUIT\r\n"} {
		second := begin(t, addr, "SECOND", "a@globex.example")
		second.Write([]byte(hello + "second\r\n.\r\n" + behind))
		second.Close()
		h.sessions(1)
	}
	finish()
	replies(t, first, "250")
	second := begin(t, addr, "SECOND", "a@globex.example")
	second.Write([]byte(hello + "second\r\n.\r\nNOOP\r\nQUIT\r\n"))
	replies(t, second, "250", "250", "221")
	if n := contents(server)["second"]; n != 1 {
		t.Errorf("the message arrived %d times", n)
	}
}

// own is the MTA's Received field for a message.
func own(id, date string) string {
	return "Received: from c (c [192.0.2.1])\r\n\tby mx.provider.example (Postfix) with ESMTP id " + id + "; " + date + "\r\n\r\n"
}

// What travels by DATA cannot be taken back. It comes again while it is under way, and when it was taken.
func TestWhatWasTakenIsNotSentAgain(t *testing.T) {
	t.Parallel()
	busy, finished := make(chan struct{}), make(chan struct{})
	finish := sync.OnceFunc(func() { close(finished) })
	defer finish()
	once := sync.OnceFunc(func() {
		close(busy)
		<-finished
	})
	server := customer(t, func(s *postfixtest.Sink) {
		s.Extensions = []string{"PIPELINING"}
		s.OnRecipient = func(address string) string {
			if address == "full@globex.example" {
				return "452 4.2.2 full"
			}
			return ""
		}
		s.OnMessage = func(m postfixtest.Message) string { once(); return "" }
	})
	_, addr := gateAt(t, server)
	const id = "SOME"
	message := own(id, "Tue, 24 Nov 2026 12:00:00 +0000") + "hello\r\n.\r\n"

	first := begin(t, addr, id, "a@globex.example")
	first.Write([]byte(message))
	<-busy
	first.Close() // it does not hear the answer
	second := begin(t, addr, id, "a@globex.example")
	second.Write([]byte(message))
	finish()
	replies(t, second, "250")
	third := begin(t, addr, id, "full@globex.example", "a@globex.example", "b@globex.example")
	third.Write([]byte(message))
	replies(t, third, "452", "250", "250")
	fourth := begin(t, addr, id, "full@globex.example", "b@globex.example")
	fourth.Write([]byte(message))
	replies(t, fourth, "452", "250")

	var got [][]string
	for _, m := range server.Messages() {
		got = append(got, m.Recipients)
	}
	if diff := cmp.Diff([][]string{{"a@globex.example"}, {"b@globex.example"}}, got); diff != "" {
		t.Errorf("it was sent to (-want +got):\n%s", diff)
	}

	// Postfix gives an ID again when its message is gone (enable_long_queue_ids), and without a Received field of its own
	// nothing tells the two apart.
	for i, trace := range []string{own(id, "Tue, 24 Nov 2026 12:00:01 +0000"), "Subject: x\r\n\r\n", "Subject: x\r\n\r\n"} {
		another := begin(t, addr, id, "a@globex.example")
		another.Write([]byte(trace + "another\r\n.\r\n"))
		replies(t, another, "250")
		if n := contents(server)["another"]; n != i+1 {
			t.Errorf("of %d other messages %d arrived", i+1, n)
		}
	}
}

func TestConfirmedIsBounded(t *testing.T) {
	t.Parallel()
	c := newConfirmed()
	key := func(i int) []letterKey {
		return letterKeys(1, "SOME", own("SOME", "now"), "<>", []string{fmt.Sprintf("<%d@globex.example>", i)})
	}
	took := []relay.Reply{{Code: 250}}
	const n = maxConfirmed + 10
	for i := range n {
		c.begin(key(i), 1)
		c.end(key(i), took)
	}
	if len(c.taken) != maxConfirmed || len(c.order) != maxConfirmed || len(c.underWay) != 0 {
		t.Errorf("%d are remembered, %d in order, %d are under way", len(c.taken), len(c.order), len(c.underWay))
	}
	for i, want := range map[int]relay.Reply{0: {}, 9: {}, 10: takenBefore, n - 1: takenBefore} {
		if got := c.begin(key(i), 1); got[0] != want {
			t.Errorf("recipient %d is answered %v, want %v", i, got[0], want)
		}
		c.end(key(i), []relay.Reply{{Code: 450}})
	}
}

func FuzzCommand(f *testing.F) {
	for _, s := range []string{"MAIL FROM:<a@b> SIZE=1", `RCPT TO:<"a\"> b"@c> ORCPT=rfc822;x`, "XFORWARD IDENT=abc NAME=x", "MAIL FROM:<>", "RCPT TO:<@a:b@c>", "\x00\xff"} {
		f.Add(s)
	}
	s := session{}
	s.offered.Size, s.offered.DSN, s.offered.EightBit = true, true, true
	f.Fuzz(func(t *testing.T, line string) {
		_, rest := splitVerb(line)
		for _, p := range []struct {
			keyword string
			known   []parameter
		}{{"FROM:", mailParameters}, {"TO:", rcptParameters}} {
			path, err := parsePath(p.keyword, rest, s.offered, p.known)
			if err != nil {
				continue
			}
			// It goes to another server as it is.
			if strings.ContainsAny(path.text, "\r\n\x00") || path.text[0] != '<' || strings.ContainsAny(path.domain, "<> ") && !strings.Contains(path.text, `"`) {
				t.Errorf("%q is read as %+v", line, path)
			}
			again, err := parsePath(p.keyword, p.keyword+path.text, s.offered, p.known)
			if err != nil || again != path {
				t.Errorf("%q is read as %+v, and that as %+v, %v", line, path, again, err)
			}
		}
		if id := xforwardID(rest, ""); id != "" && !plainID(id) {
			t.Errorf("the queue ID %q", id)
		}
	})
}

// Whatever comes, the content ends where CRLF, a dot and CRLF stand first, and its dots are undone.
func FuzzContent(f *testing.F) {
	for _, s := range []string{"", "a", ".", "\n.\r\n", "Received: x\r\n\tby y id Z\r\n.x: y", "received:\r\n", "a\r\n.b\r\n..\r\n", "\r", strings.Repeat("x", 40) + "\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		stream := append(bytes.Clone(b), "\r\n.\r\nQUIT\r\n"...)
		end := bytes.Index(append([]byte("\r\n"), stream...), []byte("\r\n.\r\n"))
		want := bytes.ReplaceAll(append([]byte("\r\n"), stream[:end]...), []byte("\r\n."), []byte("\r\n"))[2:]
		ours, theirs := net.Pipe()
		defer ours.Close()
		defer theirs.Close()
		in := bufio.NewReaderSize(bytes.NewReader(stream), 16)
		var got bytes.Buffer
		c := content{in: in, conn: ours}
		if trace, err := c.trace(); err != nil {
			t.Fatal(err)
		} else if !bytes.HasPrefix(want, []byte(trace)) || trace != "" && strings.Count(trace, "\r\n") != strings.Count(trace, "\r\n ")+strings.Count(trace, "\r\n\t")+1 {
			t.Errorf("the Received field of %q is %q", want, trace)
		}
		if err := c.copy(&got); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Bytes(), want) || c.size != int64(len(want)) {
			t.Errorf("%q was read as %q, want %q", stream, got.Bytes(), want)
		}
		if bare := bytes.Count(want, []byte("\n")) != bytes.Count(want, []byte("\r\n")); c.bareLF != bare {
			t.Errorf("%q has bare line feeds: %v", want, c.bareLF)
		}
	})
}
