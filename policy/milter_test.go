package policy

import (
	"context"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"mailbag/meter"

	"github.com/d--j/go-milter"
)

// An mta is a milter client as Postfix is one.
type mta struct {
	*milter.ClientSession
	t      testing.TB
	macros *milter.MacroBag
}

func dialMilter(t testing.TB, path string, options ...milter.Option) *mta {
	t.Helper()
	macros := milter.NewMacroBag()
	options = append([]milter.Option{milter.WithAction(milter.AllClientSupportedActionMasks), milter.WithReadTimeout(time.Minute), milter.WithWriteTimeout(time.Minute)}, options...)
	session, err := milter.NewClient("unix", path, options...).Session(macros)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { session.Close() })
	m := &mta{session, t, macros}
	m.goOn(session.Conn("client.example", milter.FamilyInet, 2525, "203.0.113.9"))
	m.goOn(session.Helo("client.example"))
	return m
}

func (m *mta) goOn(a *milter.Action, err error) {
	m.t.Helper()
	if err != nil || a.Type != milter.ActionContinue {
		m.t.Fatalf("the milter does not go on: %v, %v", a, err)
	}
}

// envelope says MAIL and RCPT with what Postfix resolves the addresses to.
func (m *mta) envelope(recipients ...string) {
	m.t.Helper()
	m.goOn(m.Mail("sender@client.example", ""))
	for _, r := range recipients {
		m.macros.Set(milter.MacroRcptAddr, r)
		m.goOn(m.Rcpt(r, ""))
	}
	m.goOn(m.DataStart())
}

// content sends a message of 54 octets and returns what the milter says to it.
func (m *mta) content(queueID string) *milter.Action {
	m.t.Helper()
	m.goOn(m.HeaderField("Subject", " two\n\tlines", nil)) // 8 + 11 + 1 + 2
	m.goOn(m.HeaderField("X", "", nil))                    // 2 + 2
	m.goOn(m.HeaderEnd())                                  // 2
	m.goOn(m.BodyChunk([]byte("first line\r\n")))          // 12
	m.goOn(m.BodyChunk([]byte("second line\r\n")))         // 13
	m.macros.Set(milter.MacroQueueId, queueID)
	_, action, err := m.End()
	if err != nil {
		m.t.Fatal(err)
	}
	return action
}

const contentSize = 22 + 4 + 2 + 12 + 13

func TestMilterRecordsWhatWasAccepted(t *testing.T) {
	t.Parallel()
	d := openDesk(t, customers(), nil)
	m := dialMilter(t, d.listen(t, "milter", d.ServeMilter))

	m.envelope("a@acme.example", "b@ACME.example", `"c d"@box.example`, "x@other.example")
	if got := m.content("QUEUE1"); got.Type != milter.ActionContinue {
		t.Errorf("answered %v", got)
	}
	want := meter.Usage{Messages: 1, Bytes: contentSize}
	for _, name := range []string{"acme", "box"} {
		if got := d.used(t, name); got != want {
			t.Errorf("%s used %+v, want %+v", name, got, want)
		}
	}
	d.wantDomains(t, "acme", meter.DomainUsage{Domain: "acme.example", Usage: want})
	d.wantDomains(t, "box", meter.DomainUsage{Domain: "box.example", Usage: want})
	waiting, err := d.ledger.Waiting(t.Context(), d.follower.Directory().Account("acme").ID)
	if err != nil || waiting.Messages != 1 {
		t.Errorf("waiting: %+v, %v", waiting, err)
	}

	m.envelope("a@acme.example")
	if err := m.Abort(nil); err != nil {
		t.Fatal(err)
	}
	m.envelope("a@box.example")
	if got := m.content("QUEUE1"); got.Type != milter.ActionContinue { // the queue ID comes again
		t.Errorf("answered %v", got)
	}
	m.envelope("x@other.example")
	if got := m.content("QUEUE2"); got.Type != milter.ActionContinue {
		t.Errorf("answered %v", got)
	}
	if got := d.used(t, "acme"); got != want {
		t.Errorf("acme used %+v, want %+v", got, want)
	}
	if got := d.used(t, "box"); got != (meter.Usage{Messages: 2, Bytes: 2 * contentSize}) {
		t.Errorf("box used %+v", got)
	}
	if got := metric(t, d, "mailbag_policy_milter_messages_total"); got != 3 {
		t.Errorf("%v messages counted", got)
	}
}

func TestMilterWorksWithAnOlderProtocol(t *testing.T) {
	t.Parallel()
	d := openDesk(t, customers(), nil)
	path := d.listen(t, "milter", d.ServeMilter)
	m := dialMilter(t, path, milter.WithMaximumVersion(2), milter.WithActions(0), milter.WithProtocols(0))
	m.goOn(m.Mail("", ""))
	m.goOn(m.Rcpt(`"a b"@acme.example`, "NOTIFY=NEVER")) // no macro
	m.goOn(m.Rcpt("@relay.example:b@box.example", ""))
	m.goOn(m.DataStart())
	if got := m.content("Q"); got.Type != milter.ActionContinue {
		t.Errorf("answered %v", got)
	}
	for _, name := range []string{"acme", "box"} {
		if got := d.used(t, name); got.Messages != 1 {
			t.Errorf("%s used %+v", name, got)
		}
	}
}

func TestMilterDefersWhileTheLedgerIsUnavailable(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name      string
		fault     func(*faults)
		recipient string
		deferred  bool
	}{
		{"unavailable", func(f *faults) { f.unavailable.Store(true) }, "a@acme.example", true},
		{"unavailable, not ours", func(f *faults) { f.unavailable.Store(true) }, "x@other.example", false},
		{"never read", func(f *faults) { f.unread.Store(true) }, "x@other.example", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := openDesk(t, customers(), nil)
			test.fault(d.faults)
			m := dialMilter(t, d.listen(t, "milter", d.ServeMilter))
			m.envelope(test.recipient)
			got := m.content("Q")
			if test.deferred && !strings.HasPrefix(got.SMTPReply, "451 4.3.0 ") || !test.deferred && got.Type != milter.ActionContinue {
				t.Errorf("answered %v", got)
			}
		})
	}
}

func TestMilterShutdownFinishesAMessage(t *testing.T) {
	t.Parallel()
	d := openDesk(t, customers(), nil)
	path := d.listen(t, "milter", d.ServeMilter)
	m, idle := dialMilter(t, path), dialMilter(t, path)
	m.envelope("a@acme.example")
	m.goOn(m.HeaderField("A", "b", nil))
	waitFor(t, "the message's begin", func() bool { return d.milters.busy() == 1 })
	ended := make(chan error, 1)
	go func() { ended <- d.Shutdown(context.Background()) }()
	waitFor(t, "the idle session's end", func() bool { return metric(t, d, "mailbag_policy_connections") == 1 })
	if _, err := idle.Mail("", ""); err == nil {
		if _, err = idle.Rcpt("a@acme.example", ""); err == nil {
			_, _, err = idle.End()
		}
		if err == nil {
			t.Error("an idle session goes on after shutdown")
		}
	}
	if got := m.content("Q"); got.Type != milter.ActionContinue {
		t.Errorf("answered %v", got)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if got := d.used(t, "acme"); got.Messages != 1 {
		t.Errorf("used %+v", got)
	}
}

// busy is how many connections are in something that shutdown lets finish.
func (s *server) busy() (n int) {
	for _, g := range s.Guests() {
		if g.(*conn).busy.Load() {
			n++
		}
	}
	return n
}

// text is a packet as a string.
func text(s string) string { return string(packet(s)) }

// negotiation is how a milter client begins, version 6 with everything offered.
var negotiation = text("O\x00\x00\x00\x06\x00\x00\x01\xff\x00\x1f\xff\xff")

var badPackets = []struct{ name, text, reason string }{
	{"empty", text(""), "empty"},
	{"half a gigabyte", "\x20\x00\x00\x00O", "longer than 1 MiB"},
	{"garbage", "GET / HTTP/1.0\r\n\r\n", "longer than 1 MiB"},
	{"connect without a name", negotiation + text("Cmail.example"), "cut off"},
	{"connect without a family", negotiation + text("Cmail.example\x00"), "cut off"},
	{"mail without an end", negotiation + text("M<a@b>"), "cut off"},
	{"rcpt without an end", negotiation + text("R<a@b>"), "cut off"},
	{"empty later", negotiation + text("Hhelo\x00") + text(""), "empty"},
}

func TestBadPacketClosesItsMilterSession(t *testing.T) {
	t.Parallel()
	for _, test := range badPackets {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := openDesk(t, customers(), nil)
			path := d.listen(t, "milter", d.ServeMilter)
			other := dialMilter(t, path)
			c, err := net.Dial("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.Write([]byte(test.text))
			waitFor(t, "the log line", func() bool { return strings.Contains(d.log.String(), test.reason) })
			waitFor(t, "its end", func() bool { return metric(t, d, "mailbag_policy_connections") == 1 })
			other.envelope("a@acme.example")
			if got := other.content("Q"); got.Type != milter.ActionContinue {
				t.Errorf("another session is answered %v", got)
			}
		})
	}
}

// What is sent before a command is kept until that comes, which may be never.
func TestMacrosThatNobodyWantsTakeNoMemory(t *testing.T) {
	s := &milterSession{}
	names := 0
	define := func() {
		macros := []byte("M")
		for range 1000 {
			names++
			macros = fmt.Appendf(macros, "{name%d}\x00value\x00", names)
		}
		if err := s.define(append(macros, "i\x00Q1\x00"...)); err != nil {
			t.Fatal(err)
		}
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range 100 {
		define()
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 1<<20 {
		t.Errorf("%d macros take %d octets", names, grown)
	}
	if s.queueID != "Q1" {
		t.Errorf("the queue ID is %q", s.queueID)
	}
}

// FuzzMilter looks for packets that bring the session, and with it the daemon, down.
func FuzzMilter(f *testing.F) {
	for _, test := range badPackets {
		f.Add([]byte(test.text))
	}
	f.Add([]byte(negotiation + text("Cmail.example\x004\x00\x19192.0.2.1\x00") + text("M<>\x00") + text("DR{rcpt_addr}\x00a@b\x00") +
		text("R<a@b>\x00") + text("LSubject\x00x\x00") + text("Bbody\r\n") + text("DEi\x00Q\x00") + text("E") + text("Q")))
	d := openDesk(f, customers(), nil)
	f.Fuzz(func(t *testing.T, b []byte) {
		ours, theirs := net.Pipe()
		s := d.milters
		c := &conn{Conn: theirs, server: s, limit: s.limit, idle: time.Minute}
		var wg sync.WaitGroup
		wg.Go(func() {
			ours.Write(b)
			ours.Close()
		})
		wg.Go(func() { io.Copy(io.Discard, ours) })
		_ = d.serveMilter(context.Background(), c)
		theirs.Close()
		wg.Wait()
	})
}

func TestMilterLetsNoMessagesPassALimitTogether(t *testing.T) {
	t.Parallel()
	a := account("acme", meter.ATRN, "acme.example")
	a.OnLimit, a.Messages = meter.Defer, 2
	d := openDesk(t, []meter.Account{a}, nil)
	path := d.listen(t, "milter", d.ServeMilter)
	const senders = 8
	var all []*mta
	for range senders { // all of them past RCPT, below the limit
		m := dialMilter(t, path)
		m.envelope("a@acme.example")
		all = append(all, m)
	}
	var group sync.WaitGroup
	answers := make([]*milter.Action, senders)
	for i, m := range all {
		group.Go(func() { answers[i] = m.content(string(rune('A' + i))) })
	}
	group.Wait()
	accepted := int64(0)
	for _, answer := range answers {
		switch {
		case answer.Type == milter.ActionContinue:
			accepted++
		case answer.Type != milter.ActionRejectWithCode || !strings.HasPrefix(answer.SMTPReply, "452 4.2.2 "):
			t.Errorf("a message is answered %v", answer)
		}
	}
	if used := d.used(t, "acme"); accepted != 2 || used.Messages != 2 {
		t.Errorf("%d messages were accepted and %d counted, want 2", accepted, used.Messages)
	}
}
