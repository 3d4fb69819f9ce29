package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	mtatest "mailbag/testdata/mta"
	"mailbag/testdata/peer"
	postfixtest "mailbag/testdata/postfix"
)

// roomy is an MTA that takes large messages and long lines.
var roomy = mtatest.Config{
	Postfix: map[string]string{"message_size_limit": "50000000", "mailbox_size_limit": "0"},
	Exim:    "IGNORE_SMTP_LINE_LENGTH_LIMIT = 1",
}

// contents are what must arrive as it is, by its Subject. All lines end in CRLF, as they came.
func contents() map[string]string {
	head := func(subject string) string { return "Subject: " + subject + "\r\n" }
	big := make([]byte, 25<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(big)
	for i, b := range big { // all octets, but NUL, CR and LF mean something to Postfix
		switch {
		case b == 0, b == '\r', b == '\n' && (i == 0 || big[i-1] == '\n'):
			big[i] = 'x'
		case b == '\n':
			big[i-1] = '\r'
		}
	}
	all := map[string]string{
		"dots":     head("dots") + "\r\n.\r\n..\r\n...\r\n.leading\r\n.\r\n\r\n.\r\n",
		"998":      head("998") + "\r\n" + strings.Repeat("x", 998) + "\r\n",
		"8000":     head("8000") + "\r\n" + strings.Repeat("0123456789abcdef", 500) + "\r\n." + strings.Repeat(".", 7999) + "\r\n",
		"8-bit":    head("8-bit") + "\r\n\xc3\xa4\xf6\xfc\xff\x80\x01\r\n\ttab \r\n\r\n\r\nFrom here\r\n",
		"no body":  head("no body") + "\r\n",
		"headers":  head("headers") + "X-Empty:\r\nX-Folded: a\r\n\tb\r\n  c\r\n",
		"commands": head("commands") + "\r\nQUIT\r\n.\rMAIL FROM:<evil@x.example>\r\nRSET\r\nBDAT 5 LAST\r\n",
		"big":      head("big") + "\r\n" + string(big) + "\r\n",
	}
	if besides() == "exim" {
		delete(all, "headers") // it adds the empty line that they lack
	}
	return all
}

// sendContents sends all of them to the recipient, and returns what the MTA has made of them, by Subject: a bare CR
// becomes a space in Postfix and the end of a line in Exim, and a long line stays long.
func (s *story) sendContents(all map[string]string, to string) map[string]string {
	s.t.Helper()
	want := map[string]string{}
	s.idle()
	before := s.deferred()
	for subject, text := range all {
		s.accept(text, to)
		want[subject] = strings.ReplaceAll(text, ".\rMAIL", by(". MAIL", ".\r\nMAIL"))
	}
	s.waitFor("all of it is held", func() bool { return s.deferred() == before+len(all) })
	return want
}

// wantContents compares what arrived. The MTA adds a Received: line above, and nothing else.
func wantContents(t *testing.T, want map[string]string, got [][]byte) {
	t.Helper()
	seen := map[string]bool{}
	for _, m := range got {
		received, rest, _ := bytes.Cut(m, []byte("Subject: "))
		subject, _, _ := strings.Cut(string(rest[:min(100, len(rest))]), "\n")
		subject = strings.TrimSuffix(subject, "\r")
		text := "Subject: " + string(rest)
		seen[subject] = true
		if !bytes.HasPrefix(received, []byte("Received: ")) || text != want[subject] {
			at := 0
			for at < len(text) && at < len(want[subject]) && text[at] == want[subject][at] {
				at++
			}
			t.Errorf("%q arrived with %d octets and not %d, and differs from octet %d on: %.60q, want %.60q", subject, len(text), len(want[subject]), at, text[at:], want[subject][at:])
		}
	}
	for subject := range want {
		if !seen[subject] {
			t.Errorf("%q did not arrive", subject)
		}
	}
}

func TestMailArrivesOctetForOctet(t *testing.T) {
	s := turning(t, roomy)
	all := contents()
	for name, extensions := range map[string][]string{
		"chunking":   postfixtest.Chunking,
		"pipelining": {"PIPELINING", "8BITMIME", "SIZE"},
		"lock-step":  {"8BITMIME"},
	} {
		customer, err := postfixtest.NewSink()
		s.must(err)
		customer.Extensions = extensions
		s.must(customer.Start())
		t.Cleanup(customer.Stop)
		s.atrn(name, name+".example")
		want := s.sendContents(all, "a@"+name+".example")
		reply, err := peer.Caller{Server: s.ODMR, User: name, Password: password, SMTP: customer.Addr(), TLS: peer.StartTLS}.Run(s.soon())
		if err != nil || !strings.HasPrefix(reply, "250") {
			t.Errorf("%s: %s, %v", name, reply, err)
		}
		var got [][]byte
		for _, m := range customer.Messages() {
			got = append(got, m.Data)
		}
		if len(got) != len(all) {
			t.Errorf("%s: %d messages arrived, want %d", name, len(got), len(all))
		}
		wantContents(t, want, got)
	}
}

func TestEximGetsMailOctetForOctet(t *testing.T) {
	s := turning(t, roomy)
	exim := peer.RunExim(t)
	s.dialled("acme", "acme.example", exim.Addr())
	all := contents()
	delete(all, "headers") // Exim adds the empty line that it lacks
	want := s.sendContents(all, "a@acme.example")
	if reply := s.etrnAt(s.ODMR, "acme.example"); !strings.HasPrefix(reply, fmt.Sprintf("253 2.0.0 OK, %d ", len(want))) {
		t.Errorf("ETRN: %s", reply)
	}
	var got [][]byte
	s.must(postfixtest.Wait("Exim has it all", func() bool {
		var err error
		got, err = exim.Messages()
		return err == nil && len(got) == len(want)
	}))
	for subject, text := range want {
		want[subject] = strings.ReplaceAll(text, "\r\n", "\n")
	}
	wantContents(t, want, got)
}

// Envelopes that need more than ASCII and atoms.
func TestEnvelopesArriveAsTheyWere(t *testing.T) {
	s := turning(t, mtatest.Config{Exim: "MAIN_SMTPUTF8_ADVERTISE_HOSTS = *\ndsn_advertise_hosts = *"})
	acme := sink(t)
	s.atrn("acme", "acme.example")
	c, err := postfixtest.Dial(s.mta.Addr(), "")
	s.must(err)
	defer c.Close()
	to := []string{`"a b"@acme.example`, `"a\"b c"@acme.example`, "plus+tag@acme.example", "o'brien@acme.example", "grüße@acme.example", "=?x?=@acme.example"}
	if besides() == "exim" {
		to = to[:len(to)-1] // Debian's Exim takes no question mark
	}
	for _, d := range []string{"EHLO client.example", "MAIL FROM:<> SMTPUTF8 BODY=8BITMIME RET=HDRS ENVID=ab+2Bc"} {
		if reply, err := c.Say(d); err != nil || reply[0] != '2' {
			t.Fatalf("%s: %q, %v", d, reply, err)
		}
	}
	for _, address := range to {
		if reply, err := c.Say("RCPT TO:<" + address + "> NOTIFY=FAILURE"); err != nil || reply[0] != '2' {
			t.Fatalf("%s: %q, %v", address, reply, err)
		}
	}
	if reply, err := c.Say("DATA"); err != nil || reply[0] != '3' {
		t.Fatalf("%q, %v", reply, err)
	}
	if reply, err := c.Say("Subject: Grüße\r\n\r\nx\r\n."); err != nil || reply[0] != '2' {
		t.Fatalf("%q, %v", reply, err)
	}
	s.waitFor("it is held", func() bool { return s.deferred() == 1 })
	s.call("acme", acme.Addr())
	got := acme.Messages()
	if len(got) != 1 {
		t.Fatalf("%d messages arrived", len(got))
	}
	for _, address := range to {
		if arrived(got)[address] != 1 {
			t.Errorf("%s is not among %q", address, got[0].Recipients)
		}
	}
	if besides() == "exim" {
		return // its LMTP says the addresses and nothing else
	}
	for _, parameter := range []string{"SMTPUTF8", "BODY=8BITMIME", "RET=HDRS", "ENVID=ab+2Bc", "SIZE="} {
		if !strings.Contains(got[0].FromParams, parameter) {
			t.Errorf("%s is not among %q", parameter, got[0].FromParams)
		}
	}
}
