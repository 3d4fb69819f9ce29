package e2e

import (
	"fmt"
	"strings"
	"testing"

	"mailbag/policy/routes"
	mtatest "mailbag/testdata/mta"
	postfixtest "mailbag/testdata/postfix"
)

// TestNoSpellingOfAnAddressIsDeliveredUncounted sends to every way of writing a customer's address,
// and to every trick to have a relay take it for another's.
func TestNoSpellingOfAnAddressIsDeliveredUncounted(t *testing.T) {
	s := begin(t, mtatest.Config{Postfix: map[string]string{"smtputf8_enable": "yes"}, Exim: "MAIN_SMTPUTF8_ADVERTISE_HOSTS = *"})
	sink := postfixtest.RunSink(t)
	s.account("acme", "backup", "acme.example", "--host", sink.Addr(), "--recipients", "any")
	s.account("umlaut", "backup", "münchen.example", "--host", sink.Addr(), "--recipients", "any")
	if got := s.lookup(routes.Routes, "münchen.example"); !strings.HasPrefix(got, by("relay:", "transport=relay ")) {
		t.Fatalf("the domain's way is %q", got)
	}
	host := strings.TrimSuffix(s.mta.Addr()[:strings.LastIndexByte(s.mta.Addr(), ':')], ":")
	const myhostname = "mx.provider.example"

	// Exim lowers ASCII alone, and keeps a dot at the end: those are other domains to it.
	lowers := besides() == "postfix"
	for _, c := range []struct {
		to      string // between the angle brackets
		account string // who must be counted when it is accepted
		accept  bool   // whether it must be
	}{
		{"a@acme.example", "acme", true},
		{"a@ACME.Example", "acme", true},
		{`"a"@acme.example`, "acme", true},
		{`"a b"@acme.example`, "acme", true},
		{"a+tag@acme.example", "acme", true},
		{"a@acme.example.", "acme", lowers},
		{"a@xn--mnchen-3ya.example", "umlaut", true},
		{"a@münchen.example", "umlaut", true},
		{"a@MÜNCHEN.example", "umlaut", lowers},
		{"a@XN--MNCHEN-3YA.example", "umlaut", true},
		{"a@acme.example@", "acme", false},
		{"a@acme.example..", "acme", false},
		{"a%acme.example@[" + host + "]", "acme", false},
		{"a%acme.example@" + myhostname, "acme", false},
		{"a%acme.example", "acme", false},
		{"acme.example!a", "acme", false},
		{"acme.example!a@[" + host + "]", "acme", false},
		{"acme.example!a@" + myhostname, "acme", false},
		{"@acme.example:a@" + myhostname, "acme", false},
		{"@" + myhostname + ":a@acme.example", "acme", false},
		{`"a@acme.example"@` + myhostname, "acme", false},
		{`"a%acme.example"@` + myhostname, "acme", false},
		{`"a@acme.example"`, "acme", false},
		{"a@acme.example@" + myhostname, "acme", false},
		{"a%acme.example%" + myhostname + "@" + myhostname, "acme", false},
		{"a@(comment)acme.example", "acme", false},
		{"a@acme.(comment)example", "acme", false},
		{"a @ acme.example", "acme", false},
		{`a@"acme.example"`, "acme", false},
		{"a%umlaut@acme.example", "acme", false},
	} {
		for _, source := range []string{"", "127.0.0.2"} { // from outside, and from mynetworks
			before, delivered := s.usage(c.account), len(sink.Messages())
			subject := fmt.Sprintf("%s from %q", c.to, source)
			data, size := letter(subject, 1)
			accepted, err := s.sendTo(source, c.to, data)
			s.must(err)
			if c.accept && !accepted {
				t.Errorf("%s is refused", subject)
			}
			want := before
			if accepted {
				// Whether it was one of ours shows at the customer's server.
				s.waitFor("the queue is empty", func() bool { return s.queued() == 0 })
				if arrived := int64(len(sink.Messages()) - delivered); arrived > 0 {
					want = used{before.Messages + 1, before.Bytes + size}
				} else if c.accept {
					t.Errorf("%s was accepted and went elsewhere", subject)
				}
			}
			if got := s.usage(c.account); got != want {
				t.Errorf("%s (accepted: %v): used %+v, want %+v", subject, accepted, got, want)
			}
		}
	}
}

// sendTo sends a message to what stands between the angle brackets, and reports whether it was
// accepted.
func (s *story) sendTo(source, to, data string) (bool, error) {
	c, err := postfixtest.Dial(s.mta.Addr(), source)
	if err != nil {
		return false, err
	}
	defer c.Close()
	if err := say(c, "EHLO client.example", "250"); err != nil {
		return false, err
	}
	if err := say(c, "MAIL FROM:<x@elsewhere.example> SMTPUTF8", "250"); err != nil {
		return false, err
	}
	reply, err := c.Say("RCPT TO:<" + to + ">")
	if err != nil || !strings.HasPrefix(reply, "2") {
		return false, err
	}
	if err := say(c, "DATA", "354"); err != nil {
		return false, err
	}
	reply, err = c.Say(data + ".")
	return strings.HasPrefix(reply, "2"), err
}
