package e2e

import (
	"strings"
	"testing"
	"time"

	mtatest "mailbag/testdata/mta"
)

// TestWhileTheHelperIsAwayMailIsTakenAndWaits takes away what has the MTA's privileges for the daemons.
func TestWhileTheHelperIsAwayMailIsTakenAndWaits(t *testing.T) {
	s := turning(t, mtatest.Config{})
	if s.Helper == nil {
		t.Skipf("not beside %s: it needs no helper", besides())
	}
	customer := sink(t)
	s.dialled("acme", "acme.example", customer.Addr())
	s.Helper.Kill()
	s.hold(5, 500, "acme.example")
	if got := s.usage("acme").Messages; got != 5 {
		t.Errorf("%d messages are counted, want 5", got)
	}
	s.etrnAt(s.mta.Addr(), "acme.example")
	s.waitFor("mailbag-turnd to say why nothing is released", func() bool { return strings.Contains(s.Turnd.Log(), s.Helper.Program+" does not answer") })
	if n := len(customer.Messages()); n != 0 || s.deferred() != 5 {
		t.Errorf("%d messages went out without it, %d wait", n, s.deferred())
	}
	s.must(s.Helper.Start())
	s.waitFor("a turn to be granted", func() bool {
		s.etrnAt(s.mta.Addr(), "acme.example")
		_, err := customer.MessagesWithin(2*time.Second, 5)
		return err == nil
	})
	s.wantEach(5, "acme.example", arrived(customer.Messages()), false)
	s.waitFor("nothing to wait", func() bool { return s.deferred() == 0 })
}
