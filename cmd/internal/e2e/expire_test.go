package e2e

import (
	"slices"
	"strings"
	"testing"

	mtatest "mailbag/testdata/mta"
	postfixtest "mailbag/testdata/postfix"
)

// TestMailGoesBackWhenItsHoldTimeIsOver waits for hold times of seconds, and looks at the bounces that the
// senders get, and at what stays.
func TestMailGoesBackWhenItsHoldTimeIsOver(t *testing.T) {
	sender := postfixtest.RunSink(t)
	s := begin(t, mtatest.Config{Relays: map[string]string{
		"elsewhere.example": sender.Addr(),
		"others.example":    "127.0.0.5:1", // nobody listens there: mail that is not ours waits as well
	}})
	s.etrn("brief", "brief.example", "--hold", "2s")
	s.etrn("longer", "longer.example", "--hold", "2s")
	s.etrn("long", "long.example")
	s.waits(1, "due@brief.example")
	s.waits(1, "both@brief.example", "both@longer.example")
	s.waits(1, "with@brief.example", "with@long.example")
	inAll := 5
	if besides() == "postfix" { // Exim takes held and other mail in messages of their own
		s.waits(1, "with@brief.example", "x@others.example")
		inAll = 6
	}
	s.waits(1, "stays@long.example")
	s.waits(1, "x@others.example")
	s.mailbag("account", "set", "longer", "--hold", "30d")

	var listed string
	s.waitFor("the message for brief alone is due", func() bool {
		listed = s.mailbag("expire", "--dry-run")
		return strings.Contains(listed, "1 message ")
	})
	if !strings.Contains(listed, "  brief\n") || s.queued() != inAll {
		t.Errorf("due is\n%s\nand the queue has %d messages", listed, s.queued())
	}
	s.mailbag("expire")
	bounces, err := sender.WaitMessages(1)
	s.must(err)
	if b := bounces[0]; b.From != "" || !slices.Equal(b.Recipients, []string{"x@elsewhere.example"}) || !strings.Contains(string(b.Data), "due@brief.example") {
		t.Errorf("what came back is %+v\n%s", b, b.Data)
	}
	s.waitFor("all else is left", func() bool { return s.queued() == inAll-1 })

	s.mailbag("account", "set", "longer", "--hold", "2s")
	s.waitFor("the message for both is past both hold times", func() bool {
		return strings.Contains(s.mailbag("expire"), "1 message ")
	})
	bounces, err = sender.WaitMessages(2)
	s.must(err)
	if text := string(bounces[1].Data); !strings.Contains(text, "both@brief.example") || !strings.Contains(text, "both@longer.example") {
		t.Errorf("what came back is\n%s", text)
	}
	s.waitFor("all else is left", func() bool { return s.queued() == inAll-2 })
	if out := s.mailbag("expire", "--json"); out != "[]\n" {
		t.Errorf("something else is returned: %s", out)
	}
}
