package postfixtest

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// relaying is the configuration of an instance that relays acme.example to a sink.
func relaying(s *Sink) Config {
	host, port, _ := net.SplitHostPort(s.Addr())
	return Config{Main: map[string]string{
		"relay_domains":   "acme.example",
		"relay_transport": fmt.Sprintf("relay:[%s]:%s", host, port),
	}}
}

func TestAnInstanceRelaysToTheSinkByteForByte(t *testing.T) {
	t.Parallel()
	RequirePostfix(t)
	sink := RunSink(t)
	in := Run(t, relaying(sink))
	body := ".first\r\n..second\r\n" + strings.Repeat("x", 900) + "\r\n.\r\n\xff8-bit\r\n"
	o, err := Send(in.Addr(), "", Mail{From: "a@outside.example", To: []string{"b@acme.example", "c@elsewhere.example"},
		Data: []byte("Subject: test\r\n\r\n" + body)})
	if err != nil {
		t.Fatal(err)
	}
	if !o.Accepted() || !strings.HasPrefix(o.Recipients[0], "250") || !strings.HasPrefix(o.Recipients[1], "454") {
		t.Fatalf("127.0.0.1 is not an outside client that may reach acme.example only: %+v", o)
	}
	got, err := sink.WaitMessages(1)
	if err != nil {
		t.Fatal(err)
	}
	if got[0].From != "a@outside.example" || fmt.Sprint(got[0].Recipients) != "[b@acme.example]" {
		t.Errorf("envelope at the sink: %+v", got[0])
	}
	if _, b, _ := bytes.Cut(got[0].Data, []byte("\r\n\r\n")); string(b) != body {
		t.Errorf("body at the sink: %q\nsent: %q", b, body)
	}
	if err := in.WaitQueue("an empty queue", func(q []Entry) bool { return len(q) == 0 }); err != nil {
		t.Error(err)
	}
}

func TestMailWaitsWhileTheSinkIsDown(t *testing.T) {
	t.Parallel()
	RequirePostfix(t)
	sink := RunSink(t)
	sink.Stop()
	in := Run(t, relaying(sink))
	err := Dialogue(in.Addr(), "127.0.0.9", "testdata/refused-then-accepted.dialogue", map[string]string{"DOMAIN": "acme.example"})
	if err != nil {
		t.Fatal(err)
	}
	err = in.WaitQueue("one deferred message", func(q []Entry) bool {
		return len(q) == 1 && q[0].Queue == "deferred" && q[0].Recipients[0].Address == "user@acme.example" &&
			strings.Contains(q[0].Recipients[0].DelayReason, "refused")
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := in.WaitLog("client=unknown[127.0.0.9]"); err != nil {
		t.Error(err)
	}
	if err := sink.Start(); err != nil {
		t.Fatal(err)
	}
	if err := in.FlushQueue(); err != nil {
		t.Fatal(err)
	}
	got, err := sink.WaitMessages(1)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(got[0].Data, []byte("\r\n\r\n.one\r\n")) {
		t.Errorf("the dot is not as it was sent: %q", got[0].Data)
	}
}

func TestSinkRefusesWhatItIsToldTo(t *testing.T) {
	t.Parallel()
	sink, err := NewSink()
	if err != nil {
		t.Fatal(err)
	}
	sink.OnRecipient = func(a string) string {
		if a == "unknown@acme.example" {
			return "550 5.1.1 unknown"
		}
		return ""
	}
	sink.OnMessage = func(m Message) string {
		if bytes.Contains(m.Data, []byte("spam")) {
			return "554 5.7.1 spam"
		}
		return ""
	}
	if err := sink.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sink.Stop)
	c, err := Dial(sink.Addr(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Say("EHLO x.example"); err != nil {
		t.Fatal(err)
	}
	for _, m := range []struct {
		data, rcpt string
		accepted   bool
	}{
		{"ham\r\n", `"a>b"@acme.example`, true},
		{"spam\r\n", "user@acme.example", false},
		{"ham\r\n", "unknown@acme.example", false},
		{"", "user@acme.example", true},
	} {
		o, err := c.Send(Mail{From: "a@b.example", To: []string{m.rcpt}, Data: []byte(m.data)})
		if err != nil || o.Accepted() != m.accepted {
			t.Errorf("%+v: %+v, %v", m, o, err)
		}
	}
	got := sink.Messages()
	if len(got) != 2 || got[0].Recipients[0] != `"a>b"@acme.example` || len(got[1].Data) != 0 {
		t.Errorf("recorded: %q", got)
	}
}

func TestAnInstanceIsCleanForPostfixCheckAndLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	RequirePostfix(t)
	in := Run(t, Config{})
	second, err := in.AddSMTPD("syslog_name=postfix/second", "smtpd_client_restrictions=reject")
	if err != nil {
		t.Fatal(err)
	}
	if err := in.Set("smtpd_banner", "second.example"); err != nil {
		t.Fatal(err)
	}
	if err := in.Reload(); err != nil {
		t.Fatal(err)
	}
	err = Wait("the banner after the reload", func() bool {
		c, err := Dial(second, "")
		if err != nil {
			return false
		}
		reply, err := c.Say("QUIT")
		return err == nil && c.Close() == nil && reply != ""
	})
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(in.Log(), "warning") || strings.Contains(in.Log(), "fatal") {
		t.Errorf("the log has complaints:\n%s", in.Log())
	}
	if err := in.Stop(); err != nil {
		t.Fatal(err)
	}
	if in.Running() {
		t.Error("the instance says that it runs after Stop")
	}
	if left := processesOf(t, in.QueueDir()); len(left) > 0 {
		t.Errorf("processes left behind: %v", left)
	}
	if err := in.Start(); err != nil {
		t.Errorf("an instance cannot be started again: %v", err)
	}
}

// processesOf lists processes whose working directory is below dir, as that of every Postfix daemon is.
func processesOf(t *testing.T, dir string) []string {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, l := range links {
		if cwd, err := os.Readlink(l); err == nil && strings.HasPrefix(cwd, dir) {
			found = append(found, l)
		}
	}
	return found
}

func TestHostNamesOfTheConfigurationResolve(t *testing.T) {
	t.Parallel()
	RequirePostfix(t)
	sink := RunSink(t)
	_, port, _ := net.SplitHostPort(sink.Addr())
	in := Run(t, Config{
		Main:  map[string]string{"relay_domains": "acme.example", "relay_transport": "relay:[mail.acme.example]:" + port},
		Hosts: map[string]string{"mail.acme.example": "127.0.0.1"},
	})
	if _, err := Send(in.Addr(), "", Mail{From: "", To: []string{"b@acme.example"}, Data: []byte("Subject: x\r\n\r\n")}); err != nil {
		t.Fatal(err)
	}
	if _, err := sink.WaitMessages(1); err != nil {
		t.Error(err)
	}
}

func TestAConfigurationThatPostfixRefusesIsAnError(t *testing.T) {
	t.Parallel()
	in := Prepare(t, Config{Master: []string{"nonsense"}})
	if err := in.Start(); err == nil || in.Running() {
		t.Errorf("started with a broken master.cf: %v", err)
	}
}

func TestSinkTakesChunks(t *testing.T) {
	t.Parallel()
	sink, err := NewSink()
	if err != nil {
		t.Fatal(err)
	}
	sink.Extensions = Chunking
	if err := sink.Start(); err != nil {
		t.Fatal(err)
	}
	defer sink.Stop()
	c, err := Dial(sink.Addr(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, d := range []struct{ say, want string }{
		{"EHLO client.example", "250-"},
		{"BDAT 6\r\nQUIT", "503"}, // no recipients: the chunk is not taken for a command
		{"MAIL FROM:<a@x.example>", "250"},
		{"RCPT TO:<b@y.example>", "250"},
		{"BDAT 5\r\n.\r\n\x00\rBDAT 0\r\nBDAT 2 LAST\r\n..NOOP", "250"},
	} {
		if reply, err := c.Say(d.say); err != nil || !strings.HasPrefix(reply, d.want) {
			t.Fatalf("%q: %q, %v", d.say, reply, err)
		}
	}
	if got, err := sink.WaitMessages(1); err != nil || string(got[0].Data) != ".\r\n\x00\r.." {
		t.Errorf("it has %+q, %v", got, err)
	}
}

func TestSinkThatIsStoppedAnswersWhatItTook(t *testing.T) {
	t.Parallel()
	sink, err := NewSink()
	if err != nil {
		t.Fatal(err)
	}
	stopped := make(chan struct{})
	sink.OnMessage = func(Message) string {
		go func() {
			sink.Stop()
			close(stopped)
		}()
		for { // until it takes no more connections
			c, err := net.Dial("tcp", sink.Addr())
			if err != nil {
				return ""
			}
			c.Close()
		}
	}
	if err := sink.Start(); err != nil {
		t.Fatal(err)
	}
	outcome, err := Send(sink.Addr(), "", Mail{From: "x@elsewhere.example", To: []string{"a@acme.example"}, Data: []byte("Subject: x\r\n\r\n")})
	if !outcome.Accepted() {
		t.Errorf("the outcome is %+v, %v", outcome, err)
	}
	<-stopped
}
