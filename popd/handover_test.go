package popd

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
)

// TestMessageIsFoundByTheNameThatItsDeliveryWasAnsweredWith is what a trace of a message rests on.
func TestMessageIsFoundByTheNameThatItsDeliveryWasAnsweredWith(t *testing.T) {
	t.Parallel()
	var log notes
	d := openDesk(t, func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	names := func(to ...string) (names []string) {
		for i, reply := range d.deliver("x@elsewhere.example", body, to...) {
			name, ok := strings.CutPrefix(reply, "250 2.1.5 <"+to[i]+"> "+StoredAs)
			if !ok {
				t.Fatalf("the delivery was answered %q", reply)
			}
			names = append(names, name)
		}
		return names
	}
	of := names("a@once.example", "b@once.example", "ford@dent.example")
	if of[0] != of[1] || of[0] == of[2] {
		t.Errorf("one copy and another one are called %q", of)
	}
	of = append(of[2:], names("a@dent.example", "b@dent.example", "c@dent.example")...)

	c := d.enter("dent")
	c.fetch(1)
	c.fetch(2)
	c.fetch(2)
	c.say("DELE 2", "+OK")
	c.say("DELE 3", "+OK")
	c.say("QUIT", "+OK")
	c.closed()
	c = d.enter("dent")
	c.say("DELE 1", "+OK")
	c.Close() // which takes the mark back
	eventually(t, "the sessions' end", func() bool { return strings.Count(log.text(), "session ended") == 2 })
	const line = `msg="` + MessageLine + `" account=dent mailbox="" client=127.0.0.1 message=`
	for i, want := range []string{" fetched=true deleted=false\n", " fetched=true deleted=true\n", " fetched=false deleted=true\n", ""} {
		if got := strings.Count(log.text(), line+of[i]+want); want != "" && got != 1 || want == "" && got != 0 {
			t.Errorf("of message %d the log has %d lines:\n%s", i+1, got, log.text())
		}
	}
	if n := strings.Count(log.text(), MessageLine); n != 3 {
		t.Errorf("the log tells of %d messages, want 3:\n%s", n, log.text())
	}
}

// notes are a log that is read while it is written.
type notes struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (n *notes) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.all.Write(p)
}

func (n *notes) text() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.all.String()
}
