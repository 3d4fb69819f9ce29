package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/d--j/go-milter"

	postfixtest "mailbag/testdata/postfix"
)

// headerChecks do to a message what its field X-Do says.
const headerChecks = `regexp:{
	{/^X-Do: reject/ REJECT no}
	{/^X-Do: discard/ DISCARD}
	{/^X-Do: hold/ HOLD}
	{/^X-Do: redirect/ REDIRECT nobody@elsewhere.example}
	{/^X-Do: bcc/ BCC c@globex.example}
	{/^X-Do: filter/ FILTER smtp:[127.0.0.1]:PORT} }`

// TestWhatIsCountedIsWhatTheSenderWasTold sends messages that Postfix's cleanup refuses, sends elsewhere, adds to, or
// makes pass twice.
func TestWhatIsCountedIsWhatTheSenderWasTold(t *testing.T) {
	s := beginPostfix(t, "header and body checks, aliases and copies are Postfix's", postfixtest.Config{}, func(in *postfixtest.Instance) {
		again, err := in.AddSMTPD("receive_override_options=no_header_body_checks", "mynetworks=127.0.0.0/8")
		if err != nil {
			t.Fatal(err)
		}
		checks := strings.NewReplacer("PORT", port(startFilter(t, again)), "\n\t", " ").Replace(headerChecks)
		for name, value := range map[string]string{
			"header_checks":               checks,
			"message_reject_characters":   `\0`,
			"strict_7bit_headers":         "yes",
			"strict_8bitmime_body":        "yes",
			"strict_mime_encoding_domain": "yes",
			"always_bcc":                  "archive@globex.example",
			"recipient_bcc_maps":          "inline:{ { bcc@acme.example = copy@globex.example } }",
			"virtual_alias_domains":       "alias.example",
			"virtual_alias_maps":          "inline:{ { a@alias.example = b@globex.example }, { away@acme.example = nobody@elsewhere.example } }",
		} {
			if err := in.Set(name, value); err != nil {
				t.Fatal(err)
			}
		}
	})
	s.etrn("acme", "acme.example")
	s.etrn("globex", "globex.example")
	for _, m := range []struct {
		name    string
		to      string
		head    string
		body    string
		reply   string
		counted int64 // for acme
	}{
		{"plain", "a@acme.example", "", "", "250", 1},
		{"rejected by a header check", "a@acme.example", "X-Do: reject\r\n", "", "550 5.7.1", 0},
		{"discarded by a header check: told 250, and nobody gets it", "a@acme.example", "X-Do: discard\r\n", "", "250", 0},
		{"put on hold by a header check", "a@acme.example", "X-Do: hold\r\n", "", "250", 1},
		{"sent elsewhere by a header check: whom it names gets nothing", "a@acme.example", "X-Do: redirect\r\n", "", "250", 0},
		{"copied to another account by a header check", "a@acme.example", "X-Do: bcc\r\n", "", "250", 1},
		{"passing a filter that a header check names", "a@acme.example", "X-Do: filter\r\n", "", "250", 1},
		{"a mail loop", "a@acme.example", strings.Repeat("Received: from a by b; Mon, 2 Mar 2026 10:00:00 +0100\r\n", 60), "", "554 5.4.0", 0},
		{"8-bit header", "a@acme.example", "X-Name: \xe4\r\n", "", "550 5.6.0", 0},
		{"8-bit body", "a@acme.example", "", "\xe4\r\n", "550 5.6.0", 0},
		{"NUL", "a@acme.example", "", "a\x00b\r\n", "550 5.7.1", 0},
		{"encoding of a domain", "a@acme.example", "MIME-Version: 1.0\r\nContent-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n", "eA==\r\n", "550 5.6.0", 0},
		{"blind copy by recipient_bcc_maps", "bcc@acme.example", "", "", "250", 1},
		{"an alias of ours leads to the account", "a@alias.example", "", "", "250", 0},
		{"an alias leads away from the account", "away@acme.example", "", "", "250", 1},
	} {
		before := s.usage("acme").Messages
		outcome := s.send("x@elsewhere.example", m.head+"Subject: "+m.name+"\r\n\r\n"+m.body, m.to)
		if !strings.HasPrefix(outcome.Data, m.reply) {
			t.Errorf("%s: answered %+v, want %s", m.name, outcome, m.reply)
		}
		if strings.Contains(m.head, "filter") {
			s.must(s.mta.WaitLog("relay=127.0.0.1[127.0.0.1]"))
			s.waitFor("the filter has given it back", func() bool { return strings.Contains(s.mta.Log(), "status=sent (250") })
		}
		if got := s.usage("acme").Messages - before; got != m.counted {
			t.Errorf("%s: %d messages were counted, want %d", m.name, got, m.counted)
		}
	}
	// The filter named all to whom Postfix had handed it.
	if got := s.usage("globex").Messages; got != 1 {
		t.Errorf("globex used %d messages, want the one in which the filter named it", got)
	}
	if out := s.mailbag("database", "check"); strings.Contains(out, "less than") {
		t.Error(out)
	}
}

// allHeld reports whether every message waits for a turn, and none is on its way to a filter, or leaves the queue.
func allHeld(q []postfixtest.Entry) bool {
	return !slices.ContainsFunc(q, func(e postfixtest.Entry) bool {
		return len(e.Recipients) == 0 || !strings.Contains(e.Recipients[0].DelayReason, "deferred transport")
	})
}

// editor stands for a filter that changes the envelope at the end of a message.
type editor struct{ milter.NoOpMilter }

func (editor) EndOfMessage(m milter.Modifier) (*milter.Response, error) {
	if err := m.DeleteRecipient("<a@acme.example>"); err != nil {
		return nil, err
	}
	if err := m.AddRecipient("<b@globex.example>", ""); err != nil {
		return nil, err
	}
	return milter.RespAccept, nil
}

func TestWhomAFilterAddsOrDeletesIsNotWhoIsBilled(t *testing.T) {
	at := startMilter(t, func() milter.Milter { return &editor{} }, milter.WithActions(milter.OptAddRcpt|milter.OptRemoveRcpt))
	s := beginPostfix(t, "Exim has no milters", postfixtest.Config{Main: map[string]string{"smtpd_milters": at}}, nil)
	s.etrn("acme", "acme.example")
	s.etrn("globex", "globex.example")
	data, size := letter("edited", 2)
	s.accept(data, "a@acme.example")
	s.wantUsage("acme", used{1, size})
	s.wantUsage("globex", used{})
	s.must(s.mta.WaitQueue("it waits for whom the filter named", func(q []postfixtest.Entry) bool {
		return len(q) == 1 && len(q[0].Recipients) == 1 && q[0].Recipients[0].Address == "b@globex.example"
	}))
}

// TestWhatProgramsOfTheHostSendIsCounted has a message come by sendmail(1), and one come back so from a filter
// (FILTER_README's simple content filter).
func TestWhatProgramsOfTheHostSendIsCounted(t *testing.T) {
	var front string
	s := beginPostfix(t, "content_filter is Postfix's", postfixtest.Config{}, func(in *postfixtest.Instance) {
		filter, err := postfixtest.NewSink()
		if err != nil {
			t.Fatal(err)
		}
		filter.OnMessage = func(m postfixtest.Message) string {
			if err := in.Sendmail(string(m.Data), m.From, m.Recipients...); err != nil {
				t.Error(err)
			}
			return ""
		}
		if err := filter.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(filter.Stop)
		if front, err = in.AddSMTPD("content_filter=smtp:[127.0.0.1]:" + port(filter.Addr())); err != nil {
			t.Fatal(err)
		}
	})
	s.etrn("acme", "acme.example")
	data, size := letter("by sendmail", 3)
	waits := func(n int) {
		t.Helper()
		s.must(s.mta.WaitQueue(fmt.Sprint(n, " wait"), func(q []postfixtest.Entry) bool {
			return len(q) == n && allHeld(q)
		}))
	}
	s.must(s.mta.Sendmail(data, "root@mx.example", "a@acme.example"))
	waits(1)
	if got := s.usage("acme"); got.Messages != 1 {
		t.Errorf("acme used %+v", got)
	}
	outcome, err := postfixtest.Send(front, "", postfixtest.Mail{From: "x@elsewhere.example", To: []string{"a@acme.example"}, Data: []byte(data)})
	s.must(err)
	if !outcome.Accepted() {
		t.Fatalf("%+v", outcome)
	}
	waits(2)
	if got := s.usage("acme"); got.Messages != 2 || got.Bytes < 2*size {
		t.Errorf("acme used %+v, want 2 messages", got)
	}
}
