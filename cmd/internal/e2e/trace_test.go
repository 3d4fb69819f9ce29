package e2e

import (
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	mtatest "mailbag/testdata/mta"
	postfixtest "mailbag/testdata/postfix"
)

// traced is a message as mailbag trace --json tells of it.
type traced struct {
	QueueID    string `json:"queue_id"`
	Sender     string `json:"sender"`
	Client     string `json:"client"`
	Counted    []used `json:"counted"`
	Recipients []struct {
		Address string `json:"address"`
		Account string `json:"account"`
		Fate    string `json:"fate"`
		Indexed bool   `json:"indexed"`
		Events  []struct {
			Kind    string          `json:"kind"`
			Text    string          `json:"text"`
			Turn    json.RawMessage `json:"turn"`
			Session json.RawMessage `json:"session"`
		} `json:"events"`
	} `json:"recipients"`
}

// trace runs mailbag trace on the logs of the MTA and of mailbag-popd.
func (s *story) trace(args ...string) []traced {
	s.t.Helper()
	for name, text := range map[string]string{"mta.log": s.mta.Log(), "popd.log": s.Popd.Log()} {
		s.must(os.WriteFile(s.mta.Path(name), []byte(text), 0o644))
		args = append(args, "--log", s.mta.Path(name))
	}
	var list []traced
	s.must(json.Unmarshal([]byte(s.mailbag(append([]string{"trace", "--json"}, args...)...)), &list))
	return list
}

// fates are what became of each recipient, in words: the fate, "in turn", "indexed", and the last text.
func fates(list []traced) map[string]string {
	all := map[string]string{}
	for _, m := range list {
		for _, r := range m.Recipients {
			words := []string{r.Account, r.Fate}
			if r.Indexed {
				words = append(words, "indexed")
			}
			for _, e := range r.Events {
				if e.Turn != nil {
					words = append(words, "in a turn")
				}
				if e.Session != nil {
					words = append(words, "in a session")
				}
				if r.Fate == "refused" || r.Account == "acme" {
					words = append(words, e.Text)
				}
			}
			all[r.Address] = strings.Join(words, " ")
		}
	}
	return all
}

func (s *story) wantFates(want map[string]string, args ...string) {
	s.t.Helper()
	var got map[string]string
	err := postfixtest.Wait("the log has it all", func() bool { // which is written behind
		got = fates(s.trace(args...))
		return len(got) == len(want) && !slices.ContainsFunc(slices.Collect(maps.Keys(want)), func(to string) bool {
			return !strings.HasPrefix(got[to], want[to])
		})
	})
	if err != nil {
		s.t.Errorf("mailbag trace %s tells\n%v\nwant\n%v", strings.Join(args, " "), got, want)
	}
}

// TestTraceTellsWhatBecameOfEachRecipient sends a message to five recipients of three accounts, and others that
// end in every other way.
func TestTraceTellsWhatBecameOfEachRecipient(t *testing.T) {
	s := begin(t, mtatest.Config{Restless: true, Exim: roomy.Exim + "\nMAIN_LOG_SELECTOR = +received_recipients"})
	s.startTurns(`idle_wait = "100ms"`)
	s.startPOP()
	server, customer := sink(t), sink(t)
	s.account("acme", "backup", "acme.example", "--host", server.Addr())
	s.dialled("bolt", "bolt.example", customer.Addr())
	s.etrn("brief", "brief.example", "--hold", "2s")
	s.etrn("corp", "corp.example")
	s.etrn("idle", "idle.example", "--recipients", "list")
	password := s.pop3("ford", "ford.example")

	five := "From: <x@elsewhere.example>\r\nMessage-ID: <five@elsewhere.example>\r\n\r\nHello\r\n"
	to := []string{"a@acme.example", "b@acme.example", "c@bolt.example", "d@ford.example", "e@ford.example"}
	for i, reply := range s.send("x@elsewhere.example", five, to...).Recipients {
		if reply[0] != '2' { // Exim has held mail in a message of its own, as the sender is told
			s.send("x@elsewhere.example", five, to[i])
		}
	}
	s.stored(s.maildir("ford", ""), 2)
	if _, err := server.WaitMessages(1); err != nil {
		t.Fatal(err)
	}
	s.waitFor("one message to wait for a turn", func() bool { return s.deferred() == 1 })
	s.wantFates(map[string]string{
		"a@acme.example": "acme delivered 250 2.0.0 Ok", "b@acme.example": "acme delivered 250 2.0.0 Ok",
		"c@bolt.example": "bolt waits indexed", "d@ford.example": "ford stored", "e@ford.example": "ford stored",
	}, "--from", "X@elsewhere.example", "--id", "<five@elsewhere.example>")
	if list := s.trace("--account", "bolt", "--to", "c@bolt.example"); fates(list)["c@bolt.example"] != "bolt waits indexed" {
		t.Errorf("what waits for bolt is %+v", list)
	}

	s.etrnAt(s.ODMR, "bolt.example")
	if _, err := customer.WaitMessages(1); err != nil {
		t.Fatal(err)
	}
	_, err := fetchAll(s.POP3, "ford", password, true)
	s.must(err)
	s.waitFor("the end of all", func() bool {
		return s.deferred() == 0 && len(s.turnsOf("bolt")) == 1 && !s.turnsOf("bolt")[0].Running && strings.Contains(s.Popd.Log(), "session ended")
	})
	s.wantFates(map[string]string{
		"a@acme.example": "acme delivered", "b@acme.example": "acme delivered", "c@bolt.example": "bolt delivered in a turn",
		"d@ford.example": "ford fetched in a session", "e@ford.example": "ford fetched in a session",
	}, "--from", "x@elsewhere.example", "--id", "five@elsewhere.example")
	for _, m := range s.trace("--id", "five@elsewhere.example") {
		if len(m.Counted) == 0 || m.QueueID == "" || !strings.Contains(m.Client, "127.0.0.1") {
			t.Errorf("it came as %+v", m)
		}
	}

	// Refused before there is a queue ID, put off, held up by the operator, returned.
	if reply := s.send("x@elsewhere.example", five, "nobody@idle.example").Recipients[0]; reply[0] != '5' {
		t.Errorf("an unknown recipient: %s", reply)
	}
	s.wantFates(map[string]string{"nobody@idle.example": "idle refused 550 5.1.1"}, "--to", "idle.example")
	server.Stop()
	s.accept(five, "away@acme.example")
	s.accept(five, "stays@corp.example")
	s.accept(five, "due@brief.example")
	s.waitFor("all three to wait", func() bool { return s.deferred() == 3 })
	s.wantFates(map[string]string{"away@acme.example": "acme waits"}, "--to", "away@acme.example")
	s.must(s.mta.HoldAll(true))
	s.wantFates(map[string]string{"stays@corp.example": "corp on hold"}, "--to", "corp.example")
	s.must(s.mta.HoldAll(false))
	s.waitFor("the message for brief to go back", func() bool { return strings.Contains(s.mailbag("expire"), "1 message ") })
	s.wantFates(map[string]string{"due@brief.example": "brief returned"}, "--to", "brief.example")
}
