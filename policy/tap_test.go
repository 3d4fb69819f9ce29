package policy

import (
	"net"
	"strings"
	"testing"
	"time"

	"mailbag/meter"

	"github.com/d--j/go-milter"
)

func TestMessageCountsForWhomItWasAcceptedWhateverAnOperatorChangesSince(t *testing.T) {
	t.Parallel()
	d := openDesk(t, customers(), nil)
	box := d.follower.Directory().Account("box").ID
	m := dialMilter(t, d.listen(t, "milter", d.ServeMilter))
	m.envelope("a@box.example", "a@acme.example")
	if err := d.ledger.DeleteAccount(t.Context(), "box"); err != nil {
		t.Fatal(err)
	}
	if err := d.ledger.RemoveDomain(t.Context(), "acme", "acme.example"); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "both are gone", func() bool {
		return d.follower.Directory().Account("box") == nil && d.follower.Directory().Domain("acme.example") == nil
	})
	if got := m.content("Q1"); got.Type != milter.ActionContinue {
		t.Errorf("answered %v", got)
	}
	for account, id := range map[string]int64{"box": box, "acme": d.follower.Directory().Account("acme").ID} {
		used, err := d.ledger.Usage(t.Context(), id, meter.MonthOf(started, time.UTC))
		if err != nil || used.Messages != 1 {
			t.Errorf("%s used %+v, %v", account, used, err)
		}
	}
}

// A content filter gives mail back to Postfix, which gives it another queue ID.
func TestMessageThatAFilterGivesBackIsNotCountedAgain(t *testing.T) {
	t.Parallel()
	const (
		ours  = "from client.example (client.example [203.0.113.9])\n\tby mx.example (Postfix) with ESMTPS id 4bXyZ0zz\n\tfor <a@acme.example>; Mon, 2 Mar 2026 10:00:00 +0100 (CET)"
		other = "from localhost by filter (amavis) with LMTP id 12345-01; Mon, 2 Mar 2026 10:00:01 +0100 (CET)"
	)
	for _, test := range []struct {
		name       string
		client     string
		recipients []string
		received   []string
		acme, box  int64
	}{
		{"by SMTP", "127.0.0.1", []string{"a@acme.example"}, []string{other, ours}, 1, 0},
		{"by IPv6", "::1", []string{"a@acme.example"}, []string{ours}, 1, 0},
		{"for another account too, as a list that is read here gives it to its members", "127.0.0.1", []string{"a@acme.example", "b@box.example"}, []string{ours}, 1, 1},
		{"whose client said that its name is id", "127.0.0.1", []string{"a@acme.example"}, []string{strings.Replace(ours, "from client.example", "from id", 1)}, 1, 0},
		{"whose client's certificate says id", "127.0.0.1", []string{"a@acme.example"},
			[]string{strings.Replace(ours, "\n", "\n\t(Client CN \"client id 1\", Issuer \"some id CA\" (not verified))\n", 1)}, 1, 0},
		{"for the other account alone", "127.0.0.1", []string{"b@box.example"}, []string{ours}, 1, 1},
		{"no trace of it", "127.0.0.1", []string{"a@acme.example"}, []string{other}, 2, 0},
		{"from elsewhere, where anybody can write such a field", "203.0.113.9", []string{"a@acme.example"}, []string{other, ours}, 2, 0},
		{"another queue ID that begins alike", "127.0.0.1", []string{"a@acme.example"}, []string{strings.Replace(ours, "4bXyZ0zz", "4bXyZ0z", 1)}, 2, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := openDesk(t, customers(), nil)
			pass := func(queueID, client string, recipients, received []string) string {
				tap := newTap(d.Policy)
				tap.connect(client)
				tap.mail("<s@client.example>")
				for _, r := range recipients {
					tap.rcpt("<"+r+">", r)
				}
				for _, r := range received {
					tap.header([]byte("Received"), []byte(" "+r), false)
				}
				answered := ""
				if _, refused, err := d.record(tap.arrived(queueID), func() error { answered = "c"; return nil }); err != nil || refused != dunno {
					t.Errorf("refused %v, %v", refused, err)
				}
				return answered
			}
			first := pass("4bXyZ0zz", "203.0.113.9", []string{"a@acme.example"}, nil)
			second := pass("4bXyZ1zz", test.client, test.recipients, test.received)
			if first+second != "cc" {
				t.Errorf("answered %q and %q", first, second)
			}
			if acme, box := d.used(t, "acme").Messages, d.used(t, "box").Messages; acme != test.acme || box != test.box {
				t.Errorf("acme has %d messages and box %d, want %d and %d", acme, box, test.acme, test.box)
			}
		})
	}
}

// noting keeps the fingerprint of the message that was recorded last.
type noting struct {
	Recorder
	last meter.Fingerprint
}

func (n *noting) Record(m meter.Message, answer func() error) error {
	n.last = m.Fingerprint
	return n.Recorder.Record(m, answer)
}

func TestRepetitionHasTheFingerprintOfItsMessage(t *testing.T) {
	t.Parallel()
	n := &noting{}
	d := openDesk(t, customers(), func(c *Config) {
		n.Recorder = c.Recorder
		c.Recorder = n
	})
	fingerprint := func(sender, recipient string, headers ...string) meter.Fingerprint {
		tap := newTap(d.Policy)
		tap.connect("203.0.113.9")
		tap.mail("<" + sender + ">")
		tap.rcpt("<"+recipient+">", recipient)
		for _, h := range headers {
			name, value, _ := strings.Cut(h, ":")
			tap.header([]byte(name), []byte(value), false)
		}
		if _, refused, err := d.record(tap.arrived("Q"), func() error { return nil }); err != nil || refused != dunno {
			t.Fatalf("refused %v, %v", refused, err)
		}
		return n.last
	}
	const sender, recipient, id = "s@client.example", "a@acme.example", "Message-ID: <1@client.example>"
	named := fingerprint(sender, recipient, id, "X-Spam-Status: No, score=0.1")
	for _, test := range []struct {
		name string
		got  meter.Fingerprint
		of   meter.Fingerprint
		same bool
	}{
		{"the same", fingerprint(sender, recipient, id, "X-Spam-Status: No, score=0.1"), named, true},
		{"of which a filter says something else", fingerprint(sender, recipient, id, "X-Spam-Status: No, score=-10.25"), named, true},
		{"with another Message-ID", fingerprint(sender, recipient, "Message-ID: <2@client.example>", "X-Spam-Status: No, score=0.1"), named, false},
		{"from another sender", fingerprint("t@client.example", recipient, id, "X-Spam-Status: No, score=0.1"), named, false},
		{"to another recipient", fingerprint(sender, "b@acme.example", id, "X-Spam-Status: No, score=0.1"), named, false},
		{"without a Message-ID, which nobody recognises", fingerprint(sender, recipient, "X: 1"), meter.Fingerprint{}, true},
	} {
		if (test.got == test.of) != test.same {
			t.Errorf("a message %s: the same fingerprint: %v", test.name, !test.same)
		}
	}
}

// Postfix that gives a message up closes its socket; what is in it unread shows that it never saw the answer.
func TestAnswerThatNobodyReadIsTakenBack(t *testing.T) {
	t.Parallel()
	d := openDesk(t, customers(), nil)
	path := d.listen(t, "milter", d.ServeMilter)
	events := negotiation + text("Cmail.example\x004\x00\x19192.0.2.1\x00") + text("M<s@client.example>\x00") + text("R<a@acme.example>\x00") +
		text("Bbody\r\n") + text("DEi\x00Q1\x00") + text("E")
	deaf, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	if _, err := deaf.Write([]byte(events)); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the message is counted", func() bool { return d.used(t, "acme").Messages == 1 })
	waitFor(t, "its answer is given", func() bool { return metric(t, d, "mailbag_policy_milter_messages_total") == 1 })
	deaf.Close()
	waitFor(t, "it is taken back", func() bool { return d.used(t, "acme").Messages == 0 })

	// And it stays where the answer was read.
	m := dialMilter(t, path)
	m.envelope("a@acme.example")
	m.content("Q2")
	m.Close()
	waitFor(t, "the session's end", func() bool { return metric(t, d, "mailbag_policy_connections") == 0 })
	if got := d.used(t, "acme"); got.Messages != 1 {
		t.Errorf("used %+v", got)
	}
}
