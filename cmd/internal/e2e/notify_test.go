package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/mail"
	"strings"
	"testing"
	"time"

	mtatest "mailbag/testdata/mta"
	postfixtest "mailbag/testdata/postfix"
)

// TestNoticesArriveAsMailOnce lets an account come nearer to its limit and pass it, with runs of mailbag notify
// that are killed wherever they are.
func TestNoticesArriveAsMailOnce(t *testing.T) {
	contact := postfixtest.RunSink(t)
	s := begin(t, mtatest.Config{Relays: map[string]string{"elsewhere.example": contact.Addr()}})
	s.etrn("acme", "acme.example", "--messages", "5", "--contact", "boss@elsewhere.example")
	s.waits(4, "a@acme.example")
	s.mailbag("notify")
	s.mailbag("notify")
	arrived, err := contact.WaitMessages(1)
	s.must(err)
	first := arrived[0]
	m, err := mail.ReadMessage(strings.NewReader(string(first.Data)))
	s.must(err)
	if first.From != "" || m.Header.Get("Auto-Submitted") != "auto-generated" || m.Header.Get("To") != "boss@elsewhere.example" ||
		!strings.Contains(m.Header.Get("Subject"), "80% of the mail limit") {
		t.Errorf("the notice is from %q and reads\n%s", first.From, first.Data)
	}
	if got := s.usage("acme").Messages; got != 4 {
		t.Errorf("a notice was counted as usage: %d messages", got)
	}

	seen := 1 // messages of earlier rounds
	for tier := int64(2); tier <= 5; tier++ {
		s.mailbag("usage", "adjust", "acme", "--month", s.month(), "--messages", "+5", "--reason", "a test")
		run := s.Command("mailbag", "notify")
		s.must(run.Start())
		// The pause is the point: the blow must fall anywhere.
		<-time.After(time.Duration(rand.IntN(300)) * time.Millisecond)
		run.Process.Kill()
		run.Wait()
		s.mailbag("notify")
		s.mailbag("notify")
		_, err := contact.WaitMessages(seen + 1)
		s.must(err)
		s.waitFor("all mail is delivered", func() bool { return s.queued() == 4 }) // those that acme has waiting
		arrived := contact.Messages()
		ids := map[string]bool{}
		for _, m := range arrived[seen:] {
			if !strings.Contains(string(m.Data), fmt.Sprintf("costs %d0.00 USD so far", tier)) {
				t.Errorf("tier %d is told of as\n%s", tier, m.Data)
			}
			for line := range strings.Lines(string(m.Data)) {
				if strings.HasPrefix(line, "Message-ID:") {
					ids[line] = true
				}
			}
		}
		if n := len(arrived) - seen; n < 1 || n > 2 || len(ids) != 1 {
			t.Errorf("tier %d was told of %d times, with the Message-IDs %v", tier, n, ids)
		}
		seen = len(arrived)
	}
}
