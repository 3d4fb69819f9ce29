package e2e

import (
	"slices"
	"strings"
	"testing"

	"mailbag/policy/routes"
	mtatest "mailbag/testdata/mta"
	postfixtest "mailbag/testdata/postfix"
)

// waits holds n messages for the account in the queue.
func (s *story) waits(n int, to ...string) {
	s.t.Helper()
	data, _ := letter("waiting", 2)
	s.idle()
	before := s.queued()
	for range n {
		s.accept(data, to...)
	}
	s.must(s.mta.WaitQueue("the mail waits", func(q []postfixtest.Entry) bool {
		deferred := 0
		for _, e := range q {
			if e.Waits() {
				deferred++
			}
		}
		return deferred == before+n
	}))
}

func TestWhatWaitsKeepsAnAccountFromBeingDeleted(t *testing.T) {
	s := begin(t, mtatest.Config{})
	s.etrn("acme", "acme.example", "--domain", "acme.test")
	s.etrn("globex", "globex.example")
	s.waits(2, "a@acme.example")
	s.waits(1, "b@acme.test", "c@acme.example")
	s.waits(1, "d@globex.example")
	for _, c := range []struct {
		args  []string
		count string
	}{
		{[]string{"account", "delete", "acme"}, "3 messages"},
		{[]string{"domain", "remove", "acme", "acme.test"}, "1 message"},
	} {
		_, errs, err := s.Mailbag(c.args...)
		if err == nil || !strings.Contains(errs, c.count) || !strings.Contains(errs, "--return") {
			t.Errorf("mailbag %s: %v, want a refusal that says %s and --return\n%s", strings.Join(c.args, " "), err, c.count, errs)
		}
	}
	got := s.lookup(routes.Routes, "acme.test")
	if account, held := s.mta.Held(got); !held || account != "acme" {
		t.Errorf("a refused command changed the domain's way: %q", got)
	}
}

func TestReturnSendsWhatWaitsBackToItsSender(t *testing.T) {
	sender := postfixtest.RunSink(t)
	s := begin(t, mtatest.Config{Relays: map[string]string{"elsewhere.example": sender.Addr()}})
	s.etrn("acme", "acme.example")
	s.etrn("globex", "globex.example")
	s.etrn("hooli", "hooli.example")
	s.waits(2, "a@acme.example")
	s.waits(1, "both@hooli.example", "both@globex.example")
	// A message is returned for all of its recipients or for none.
	_, errs, err := s.Mailbag("account", "delete", "hooli", "--return")
	if err == nil || !strings.Contains(errs, "elsewhere") {
		t.Errorf("account delete while a message waits for another account too: %v\n%s", err, errs)
	}
	s.mailbag("account", "delete", "acme", "--return")
	bounces, err := sender.WaitMessages(2)
	s.must(err)
	for _, bounce := range bounces {
		if bounce.From != "" || !strings.Contains(string(bounce.Data), "a@acme.example") {
			t.Errorf("what came back is from %q:\n%s", bounce.From, bounce.Data)
		}
	}
	s.waitFor("the message for both alone is left", func() bool { return s.queued() == 1 })
}

// TestBounceThatTheCustomerRefusesIsDropped has nobody to whom it could go: it does not stay in the queue for that, where it would keep the
// account from being deleted.
func TestBounceThatTheCustomerRefusesIsDropped(t *testing.T) {
	s := turning(t, mtatest.Config{})
	sink, err := postfixtest.NewSink()
	s.must(err)
	sink.OnRecipient = func(address string) string {
		if strings.HasPrefix(address, "nobody@") {
			return "550 5.1.1 no such user"
		}
		return ""
	}
	s.must(sink.Start())
	t.Cleanup(sink.Stop)
	s.atrn("acme", "acme.example")
	for _, to := range [][]string{{"nobody@acme.example"}, {"nobody@acme.example", "anna@acme.example"}} {
		if outcome := s.send("", "Subject: a bounce\r\n\r\n", to...); !outcome.Accepted() {
			t.Fatalf("not accepted: %+v", outcome)
		}
	}
	s.waitFor("both wait", func() bool { return s.deferred() == 2 })
	if reply := s.call("acme", sink.Addr()); !strings.HasPrefix(reply, "250 ") {
		t.Errorf("ATRN is answered %q", reply)
	}
	s.waitFor("an empty queue", func() bool { return s.queued() == 0 })
	if got := sink.Messages(); len(got) != 1 || !slices.Equal(got[0].Recipients, []string{"anna@acme.example"}) {
		t.Errorf("%+v came", got)
	}
}

func TestChangeOfModeMovesWhatWaits(t *testing.T) {
	s := begin(t, mtatest.Config{})
	server := postfixtest.RunSink(t)
	s.account("acme", "atrn", "acme.example", "--generate-password")
	s.account("globex", "atrn", "globex.example", "--generate-password")
	s.waits(3, "a@acme.example")
	s.waits(1, "b@globex.example")
	s.mailbag("account", "set", "acme", "--mode", "backup", "--host", server.Addr())
	_, err := server.WaitMessages(3)
	s.must(err)
	s.waitFor("globex's mail alone is left", func() bool { return s.queued() == 1 })
	server.Stop()
	s.waits(1, "c@acme.example") // the server is down
	s.mailbag("account", "set", "acme", "--mode", "atrn")
	if show := s.mailbag("account", "show", "acme", "--json"); !strings.Contains(show, `"messages": 1`) {
		t.Errorf("what waited for the server does not wait for a turn now:\n%s", show)
	}
	// With Exim it is in the queue that is not run by then.
	all, err := s.mta.Queue()
	s.must(err)
	if besides() == "exim" && slices.ContainsFunc(all, func(e postfixtest.Entry) bool { return e.Queue != "held" }) {
		t.Errorf("not all is held: %+v", all)
	}
}

func TestIndexFollowsTheQueue(t *testing.T) {
	s := beginPostfix(t, "the alias is Postfix's", postfixtest.Config{Main: map[string]string{
		"virtual_alias_domains": "alias.example", "virtual_alias_maps": "inline:{ { b@alias.example = b@acme.example } }",
	}}, nil)
	s.account("acme", "atrn", "acme.example", "--generate-password")
	s.waits(1, "a@acme.example")
	// Another way in: an alias, of which mailbag does not know where it leads.
	data, _ := letter("by an alias", 1)
	s.accept(data, "b@alias.example")
	s.waitFor("both wait in the queue", func() bool { return s.deferred() == 2 })
	s.must(s.Stop())
	s.must(s.Start()) // a pass is made at every start
	s.waitFor("the index has both", func() bool {
		return strings.Contains(s.mailbag("account", "show", "acme", "--json"), `"messages": 2`)
	})
	if got := s.usage("acme").Messages; got != 1 {
		t.Errorf("%d messages were counted, want the one whose sender named acme", got)
	}
}
