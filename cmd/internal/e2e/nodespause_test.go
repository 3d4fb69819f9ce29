package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	mtatest "mailbag/testdata/mta"
)

// TestWhileANodeIsPausedCustomersFetch stops a node that keeps its connections, and answers nobody: the own one, and those that
// lead and follow. Mail is taken and counted, and customers fetch it.
func TestWhileANodeIsPausedCustomersFetch(t *testing.T) {
	t.Parallel()
	s := onNodes(t, startNodes(t, t.TempDir()), 0, mtatest.Config{Restless: true, Exim: roomy.Exim})
	s.startTurns()
	s.must(s.Popd.Start())
	customer := sink(t)
	s.atrn("acme", "acme.example")
	password := s.pop3("globex", "globex.example")
	const messages = 5 // at a time
	fetched := 0
	for _, c := range []struct {
		name string
		node func(leader int) int
	}{
		{"own node", func(int) int { return 0 }},
		{"leader", func(leader int) int { return leader }},
		{"another node that follows", func(leader int) int { return []int{1, 2, 1}[leader] }},
	} {
		leader := s.leader()
		paused := s.nodes.All[c.node(leader)]
		paused.Pause()
		begun := time.Now()
		s.hold(messages, 500, "acme.example")
		fetched += messages
		taken := time.Since(begun)
		if reply := s.call("acme", customer.Addr()); !strings.HasPrefix(reply, "250 ") {
			t.Errorf("%s: ATRN: %s", c.name, reply)
		}
		s.waitFor("the turn's mail", func() bool { return len(customer.Messages()) == fetched })
		turned := time.Since(begun) - taken

		data, _ := letter(c.name, 3)
		s.accept(data, "info@globex.example")
		stored := s.stored(s.maildir("globex", ""), 1)
		got, err := fetchAll(s.POP3, "globex", password, true)
		s.must(err)
		if diff := cmp.Diff(stored, got); diff != "" {
			t.Errorf("%s: POP3 (-stored +fetched):\n%s", c.name, diff)
		}
		t.Logf("%s: mail was taken within %v, fetched by a turn within %v, by POP3 within %v", c.name, taken, turned, time.Since(begun)-taken-turned)
		paused.Resume()
		s.must(s.nodes.Wait(t.Context()))
	}
	s.waitFor("the index to know that all was delivered", func() bool {
		return strings.Contains(s.mailbag("account", "show", "acme", "--json"), `"messages": 0`)
	})
	if got := s.usage("acme").Messages; got != int64(fetched) {
		t.Errorf("%d messages are counted, want %d", got, fetched)
	}
}
