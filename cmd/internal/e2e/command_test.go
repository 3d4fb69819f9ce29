package e2e

import (
	"fmt"
	"testing"

	postfixtest "mailbag/testdata/postfix"
)

// A command in place of Postfix's own way of release serves a turn just as strictly.
func TestTurnReleasesByACommand(t *testing.T) {
	s := beginPostfix(t, "the command is Postfix's", postfixtest.Config{}, nil)
	s.startTurns(fmt.Sprintf("release = \"postqueue -c %s -i {id}\"", s.postfix.ConfigDir()), "window = 20")
	acme := sink(t)
	s.atrn("acme", "acme.example")
	s.atrn("globex", "globex.example")
	s.hold(100, 500, "acme.example")
	s.hold(3, 500, "globex.example")
	s.call("acme", acme.Addr())
	s.settled("acme")
	s.wantEach(100, "acme.example", arrived(acme.Messages()), false)
	if n := s.queued(); n != 3 {
		t.Errorf("%d messages are left, want the other account's 3", n)
	}
}
