package release

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	postfixtest "mailbag/testdata/postfix"
)

const within = 2 * time.Minute

// A holder is a Postfix that holds mail for two domains as mailbag has it hold mail: the transport is
// deferred, and each domain's socket is there only while a test serves it.
type holder struct {
	Postfix
	t  *testing.T
	in *postfixtest.Instance
}

func hold(t *testing.T) *holder {
	t.Helper()
	t.Parallel()
	in := postfixtest.Prepare(t, postfixtest.Config{Master: []string{"mailbag-turn unix - - n - 0 lmtp"}})
	h := &holder{Postfix{Socket: filepath.Join(in.QueueDir(), "public", "flush")}, t, in}
	for name, value := range map[string]string{
		"relay_domains":    "acme.example, globex.example",
		"transport_maps":   fmt.Sprintf("inline:{ acme.example=mailbag-turn:unix:%s, globex.example=mailbag-turn:unix:%s }", h.socket("acme"), h.socket("globex")),
		"defer_transports": "mailbag-turn",
	} {
		if err := in.Set(name, value); err != nil {
			t.Fatal(err)
		}
	}
	if err := in.Start(); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *holder) socket(account string) string { return h.in.Path(account + ".sock") }

// accept puts n messages into the queue and waits until they are held. It returns their IDs.
func (h *holder) accept(n int, to ...string) []string {
	h.t.Helper()
	before := h.ids("")
	for range n {
		m := postfixtest.Mail{From: "x@elsewhere.example", To: to, Data: []byte("Subject: held\r\n\r\ntext\r\n")}
		if o, err := postfixtest.Send(h.in.Addr(), "", m); err != nil || !o.Accepted() {
			h.t.Fatalf("%+v, %v", o, err)
		}
	}
	h.wait("the mail is held", func() bool { return len(h.ids("deferred")) == len(before)+n })
	var ids []string
	for id := range h.ids("") {
		if !before[id] {
			ids = append(ids, id)
		}
	}
	return ids
}

// ids are the messages in one of the queues, or in all for "".
func (h *holder) ids(queue string) map[string]bool {
	h.t.Helper()
	list, err := h.in.Queue()
	if err != nil {
		h.t.Fatal(err)
	}
	ids := map[string]bool{}
	for _, e := range list {
		if queue == "" || e.Queue == queue {
			ids[e.ID] = true
		}
	}
	return ids
}

func (h *holder) wait(what string, holds func() bool) {
	h.t.Helper()
	if err := postfixtest.Wait(what, holds); err != nil {
		h.t.Fatal(err)
	}
}

func (h *holder) release(ids ...string) {
	h.t.Helper()
	if err := h.Release(h.t.Context(), ids...); err != nil {
		h.t.Fatal(err)
	}
}

// An lmtpServer takes every message that comes to a socket; hang, where it is not nil, is waited for before it greets.
type lmtpServer struct {
	mu       sync.Mutex
	taken    int
	listener net.Listener
	serving  sync.WaitGroup
	hang     chan struct{}
	hanging  chan struct{} // one for each connection that is waited with
}

func (h *holder) serve(account string, hang chan struct{}) *lmtpServer {
	h.t.Helper()
	l, err := net.Listen("unix", h.socket(account))
	if err != nil {
		h.t.Fatal(err)
	}
	if err := os.Chmod(h.socket(account), 0o666); err != nil {
		h.t.Fatal(err)
	}
	s := &lmtpServer{listener: l, hang: hang, hanging: make(chan struct{}, 100)}
	s.serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.serving.Go(func() { s.session(conn) })
		}
	})
	h.t.Cleanup(s.close)
	return s
}

// close takes the socket away and waits for the connections.
func (s *lmtpServer) close() {
	_ = s.listener.Close()
	s.serving.Wait()
}

func (s *lmtpServer) messages() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.taken
}

func (s *lmtpServer) session(conn net.Conn) {
	defer conn.Close()
	if s.hang != nil {
		s.hanging <- struct{}{}
		<-s.hang
		return
	}
	_ = conn.SetDeadline(time.Now().Add(within))
	r := bufio.NewScanner(conn)
	reply := "220 ready"
	recipients := 0
	for {
		if _, err := fmt.Fprintf(conn, "%s\r\n", reply); err != nil || !r.Scan() {
			return
		}
		switch verb, _, _ := strings.Cut(r.Text(), " "); verb {
		case "RCPT":
			recipients++
			reply = "250 ok"
		case "DATA":
			fmt.Fprint(conn, "354 go\r\n")
			for r.Scan() && r.Text() != "." {
			}
			s.mu.Lock()
			s.taken++
			s.mu.Unlock()
			reply = strings.Repeat("250 ok\r\n", recipients-1) + "250 ok"
			recipients = 0
		case "QUIT":
			return
		default:
			reply = "250 ok"
		}
	}
}

func TestOnlyWhatIsReleasedIsDelivered(t *testing.T) {
	h := hold(t)
	first := h.accept(3, "a@acme.example")
	h.accept(2, "b@acme.example")
	h.accept(2, "c@globex.example")
	acme, globex := h.serve("acme", nil), h.serve("globex", nil)
	h.release(first...)
	h.wait("what was released is delivered", func() bool { return acme.messages() >= 3 && len(h.ids("")) == 4 })
	if acme.messages() != 3 || globex.messages() != 0 {
		t.Errorf("%d and %d messages were delivered, want 3 and 0", acme.messages(), globex.messages())
	}
	h.release(first[0], "4gone00000000", "ABCDEF0123") // gone, and never there
}

// An attempt that finds no socket throttles the destination, so that Postfix would not try it for
// minimal_backoff_time. The operator's postqueue -f makes such attempts.
func TestReleasePassesAThrottledDestination(t *testing.T) {
	h := hold(t)
	ids := h.accept(30, "a@acme.example")
	if err := h.in.FlushQueue(); err != nil {
		t.Fatal(err)
	}
	h.wait("Postfix has found no socket and given the destination up", func() bool {
		return strings.Contains(h.in.Log(), "delivery temporarily suspended: connect to") && len(h.ids("deferred")) == len(ids)
	})
	acme := h.serve("acme", nil)
	h.release(ids...)
	h.wait("all is delivered", func() bool { return acme.messages() == len(ids) && len(h.ids("")) == 0 })
}

func TestReleaseOfAMessageInTheActiveQueueIsForgotten(t *testing.T) {
	h := hold(t)
	id := h.accept(1, "a@acme.example", "c@globex.example")[0]
	hang := make(chan struct{})
	globex := h.serve("globex", hang)
	h.release(id)
	<-globex.hanging // acme had no socket, globex keeps the message in the active queue
	h.wait("acme's recipient was tried", func() bool { return strings.Contains(h.in.Log(), "to=<a@acme.example>, relay=none") })
	acme := h.serve("acme", nil)
	h.release(id)
	if !h.ids("active")[id] {
		t.Fatal("the message is not in the active queue; the test shows nothing")
	}
	close(hang)
	h.wait("the message is back in the deferred queue", func() bool { return h.ids("deferred")[id] })
	if n := acme.messages(); n != 0 {
		t.Fatalf("%d messages were delivered by a release in the active queue: then the turn need not ask again", n)
	}
	globex.close()
	h.release(id)
	h.wait("it is delivered once it is released again", func() bool { return acme.messages() == 1 })
}

func TestReleaseOfAMessageInTheIncomingQueueIsKept(t *testing.T) {
	h := hold(t)
	// A message is in the incoming queue for as long as the active queue is full.
	if err := h.in.Set("qmgr_message_active_limit", "1"); err != nil {
		t.Fatal(err)
	}
	if err := h.in.Reload(); err != nil {
		t.Fatal(err)
	}
	hang := make(chan struct{})
	globex := h.serve("globex", hang)
	full := h.accept(1, "c@globex.example")[0]
	h.release(full)
	<-globex.hanging
	m := postfixtest.Mail{From: "x@elsewhere.example", To: []string{"a@acme.example"}, Data: []byte("Subject: held\r\n\r\ntext\r\n")}
	if o, err := postfixtest.Send(h.in.Addr(), "", m); err != nil || !o.Accepted() {
		t.Fatalf("%+v, %v", o, err)
	}
	h.wait("a message is in the incoming queue", func() bool { return len(h.ids("incoming")) == 1 })
	acme := h.serve("acme", nil)
	for id := range h.ids("incoming") {
		h.release(id)
	}
	close(hang)
	h.wait("it is delivered", func() bool { return acme.messages() == 1 })
}

func TestFlushTriesADomainsMail(t *testing.T) {
	h := hold(t)
	h.accept(2, "a@acme.example")
	h.accept(2, "c@globex.example")
	acme, globex := h.serve("acme", nil), h.serve("globex", nil)
	// The log of a site is for transports that are not deferred: mail of a backup domain.
	if err := h.in.Set("defer_transports", ""); err != nil {
		t.Fatal(err)
	}
	if err := h.in.Reload(); err != nil {
		t.Fatal(err)
	}
	if err := h.Flush(t.Context(), "acme.example"); err != nil {
		t.Fatal(err)
	}
	h.wait("the mail is delivered", func() bool { return acme.messages() == 2 })
	if n := globex.messages(); n != 0 {
		t.Errorf("%d messages of another domain were tried", n)
	}
	if err := h.Flush(t.Context(), "elsewhere.example"); err == nil || !strings.Contains(err.Error(), "fast_flush_domains") {
		t.Errorf("a domain of which Postfix keeps no log: %v", err)
	}
}

// otherwise records what it is asked for.
type otherwise struct {
	ids   []string
	sites []string
}

func (o *otherwise) Release(_ context.Context, ids ...string) error {
	o.ids = append(o.ids, ids...)
	return nil
}

func (o *otherwise) Flush(_ context.Context, domain string) error {
	o.sites = append(o.sites, domain)
	return nil
}

func TestWithoutTheSocketPostqueueIsUsed(t *testing.T) {
	t.Parallel()
	o := &otherwise{}
	p := Postfix{Socket: filepath.Join(t.TempDir(), "flush"), Otherwise: o}
	if err := p.Release(t.Context(), "4ABC12345", "3aBcDeFgHiJkLm"); err != nil || strings.Join(o.ids, " ") != "4ABC12345 3aBcDeFgHiJkLm" {
		t.Errorf("%v, asked for %v", err, o.ids)
	}
	if err := p.Flush(t.Context(), "acme.example"); err != nil || len(o.sites) != 1 {
		t.Errorf("%v, asked for %v", err, o.sites)
	}
	p.Otherwise = nil
	if err := p.Release(t.Context(), "4ABC12345"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without both: %v", err)
	}
}

// flushServer answers every request with the same octets.
func flushServer(t *testing.T, answer string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "flush")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	t.Cleanup(func() { l.Close(); serving.Wait() })
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			request := make([]byte, 512)
			_, _ = conn.Read(request)
			_, _ = conn.Write([]byte(answer))
			_ = conn.Close()
		}
	})
	return path
}

func TestAnswersOfFlush(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, answer, want string // want is part of the error; "" is none
	}{
		{"since Postfix 3.6", "protocol\x00queue_flush_protocol\x00\x00status\x000\x00\x00", ""},
		{"before Postfix 3.6", "status\x000\x00\x00", ""},
		{"another service", "protocol\x00smtp_delivery\x00\x00status\x000\x00\x00", "speaks"},
		{"bad ID", "status\x003\x00\x00", "valid"},
		{"failure", "status\x00-1\x00\x00", "log"},
		{"no number", "status\x00yes\x00\x00", "number"},
		{"nothing", "", "no answer"},
		{"cut off", "protocol\x00queue_flush_protocol\x00\x00status\x000", "no answer"},
		{"without an end", strings.Repeat("name\x00value\x00", 1000), "no answer"},
	} {
		err := Postfix{Socket: flushServer(t, c.answer)}.Release(t.Context(), "4ABC12345")
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: the error is %v, want %q", c.name, err, c.want)
		}
	}
}

func TestReleaseEndsWithItsContext(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "flush")
	l, err := net.Listen("unix", path) // nobody accepts
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	o := &otherwise{}
	if err := (Postfix{Socket: path, Otherwise: o}).Release(ctx, "4ABC12345"); err == nil || len(o.ids) > 0 {
		t.Errorf("the error is %v, postqueue was asked for %v", err, o.ids)
	}
}

func TestWhatIsNoQueueIDIsNotSent(t *testing.T) {
	t.Parallel()
	o := &otherwise{}
	for _, id := range []string{"", "-f", "../../etc/passwd", "4ABC\x0012345", "ALL ", "4ABC12345\n", strings.Repeat("A", 33)} {
		if err := (Postfix{Socket: "/nonexistent", Otherwise: o}).Release(t.Context(), "4ABC12345", id); err == nil || len(o.ids) > 0 {
			t.Errorf("%q: %v, asked for %v", id, err, o.ids)
		}
	}
	for _, domain := range []string{"", "-f", strings.Repeat("a", 256)} {
		if err := (Postfix{Socket: "/nonexistent", Otherwise: o}).Flush(t.Context(), domain); err == nil || len(o.sites) > 0 {
			t.Errorf("%q: %v, asked for %v", domain, err, o.sites)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte("protocol\x00queue_flush_protocol\x00\x00status\x000\x00\x00"))
	f.Add([]byte("status\x00-1\x00\x00"))
	f.Add([]byte("\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		s, err := readStatus(strings.NewReader(string(answer)))
		if err == nil && !strings.Contains(string(answer), "status\x00") {
			t.Errorf("status %d of an answer without one", s)
		}
	})
}

// BenchmarkRelease is the round trip to flush(8) alone: the message is not there.
func BenchmarkRelease(b *testing.B) {
	in := postfixtest.Run(b, postfixtest.Config{})
	p := Postfix{Socket: filepath.Join(in.QueueDir(), "public", "flush")}
	for b.Loop() {
		if err := p.Release(b.Context(), "4ABC12345678"); err != nil {
			b.Fatal(err)
		}
	}
}
