package e2e

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mailbag/testdata/certificate"
	mtatest "mailbag/testdata/mta"
	"mailbag/testdata/service"
)

// reloading returns what puts settings into force at a daemon, besides those of now, and returns what it says of that.
// Each is a key with its section and a value.
func (s *story) reloading(d *service.Daemon) func(settings ...string) string {
	s.t.Helper()
	base, err := os.ReadFile(s.Config)
	s.must(err)
	return func(settings ...string) string {
		s.t.Helper()
		text := string(base)
		for _, line := range settings {
			section, key, _ := strings.Cut(line, ".")
			if head := "[" + section + "]\n"; strings.Contains(text, head) {
				text = strings.Replace(text, head, head+key+"\n", 1)
			} else {
				text = line + "\n" + text
			}
		}
		s.must(os.WriteFile(s.Config, []byte(text), 0o644))
		said, err := d.Reload()
		s.must(err)
		return said
	}
}

func TestLimitsChangeWhileMailComesIn(t *testing.T) {
	s := begin(t, mtatest.Config{})
	s.etrn("bolt", "bolt.example")
	reload := s.reloading(s.Daemon)
	const messages = 500
	sent := make(chan struct{})
	s.background(func() {
		defer close(sent)
		s.inject(messages, 500, "user@bolt.example") // it fails at the first refusal
	})
	for i, sending := 0, true; i < 50 || sending; i++ {
		if said := reload(fmt.Sprintf("limits.messages = %d", 10_000+i)); !strings.Contains(said, fmt.Sprintf(" -> %d", 10_000+i)) {
			t.Fatalf("mailbag-policyd says %s", said)
		}
		select {
		case <-sent:
			sending = false
		default:
		}
	}
	<-sent
	if got := s.usage("bolt").Messages; got != messages {
		t.Errorf("%d messages are counted, want %d", got, messages)
	}

	letter := "Subject: a limit\r\n\r\n"
	wants := func(code string) {
		t.Helper()
		if got := s.send("x@elsewhere.example", letter, "joe@bolt.example"); !strings.HasPrefix(got.Recipients[0], code) {
			t.Errorf("at RCPT the answer is %q, want %s", got.Recipients[0], code)
		}
	}
	reload("limits.messages = 500", "limits.on_limit = 'reject'")
	wants("552")
	reload("limits.messages = 500", "limits.on_limit = 'defer'")
	wants("452")
	if said := reload("limits.messages = 501", "limits.on_limit = 'sometimes'"); !strings.Contains(said, `line 1: limits.on_limit: \"sometimes\" is none of`) {
		t.Errorf("of a mistake mailbag-policyd says %s", said)
	}
	wants("452")
	reload("limits.messages = 501", "limits.on_limit = 'defer'")
	wants("250")
	wants("452")
}

func TestTurnThatIsOpenGoesOnByOtherBounds(t *testing.T) {
	s := turning(t, mtatest.Config{}, `idle_wait = "1h"`)
	base, err := os.ReadFile(s.Config)
	s.must(err)
	s.must(os.WriteFile(s.Config, []byte(strings.Replace(string(base), "idle_wait = \"1h\"\n", "", 1)), 0o644))
	reload := s.reloading(s.Turnd)
	bolt, dent := sink(t), sink(t)
	s.dialled("bolt", "bolt.example", bolt.Addr())
	s.dialled("dent", "dent.example", dent.Addr())
	s.hold(3, 500, "bolt.example")
	s.hold(2, 500, "dent.example")
	s.etrnAt(s.ODMR, "bolt.example")
	_, err = bolt.WaitMessages(3)
	s.must(err)

	reload("turn.max_turns = 1", "turn.idle_wait = '1h'")
	if answer := s.etrnAt(s.ODMR, "dent.example"); !strings.HasPrefix(answer, "4") {
		t.Errorf("with the one turn open ETRN is answered %q", answer)
	}
	if !s.open("bolt") {
		t.Error("the turn was ended")
	}
	s.inject(2, 500, "user@bolt.example")
	_, err = bolt.WaitMessages(5)
	s.must(err)
	if said := reload("turn.max_turns = 1", "turn.idle_wait = '1s'", "turn.release = 'false {id}'"); !strings.Contains(said, "turn.idle_wait '1h' -> '1s'") {
		t.Errorf("mailbag-turnd says %s", said)
	}
	s.waitFor("the turn to end, and dent's to begin", func() bool { return strings.HasPrefix(s.etrnAt(s.ODMR, "dent.example"), "2") })
	_, err = dent.WaitMessages(2) // by the former way of release
	s.must(err)
	if doctor, _, _ := s.Mailbag("doctor", "--within", "1m"); !strings.Contains(doctor, "run: systemctl restart mailbag-turnd") {
		t.Errorf("the doctor does not see that mailbag-turnd needs a restart:\n%s", doctor)
	}
}

func TestSessionGoesOnWhileItsDaemonTakesOtherSettings(t *testing.T) {
	s := beginPOP(t)
	password := s.pop3("dent", "dent.example")
	reload := s.reloading(s.Popd)
	session, err := popLogin(s.POP3, "dent", password)
	s.must(err)
	defer session.Close()

	// Who comes through a proxy is not on this machine.
	proxied := "PROXY TCP4 192.0.2.7 127.0.0.1 4000 110\r\n"
	tries := func(header string) string {
		t.Helper()
		conn, err := net.Dial("tcp", s.POP3)
		s.must(err)
		client := &popClient{textproto.NewConn(conn), conn}
		defer client.Close()
		fmt.Fprint(conn, header)
		if line, err := client.answer(); err != nil {
			return line
		}
		line, _ := client.say("USER dent")
		return line
	}
	reload("proxies = ['127.0.0.1']")
	if got := tries(proxied); !strings.HasPrefix(got, "-ERR A password is not taken in the clear") {
		t.Errorf("through a proxy the answer is %q", got)
	}
	reload("proxies = ['127.0.0.1']", "pop.plain_login = true")
	if got := tries(proxied); !strings.HasPrefix(got, "+OK") {
		t.Errorf("where passwords may go in the clear the answer is %q", got)
	}
	reload()
	if got := tries(""); !strings.HasPrefix(got, "+OK") {
		t.Errorf("without a proxy the answer is %q", got)
	}

	chain, key := filepath.Join(filepath.Dir(s.Certificate()), "other.pem"), filepath.Join(filepath.Dir(s.Key()), "otherkey.pem")
	certificate.New(t, "other.example").Write(t, chain, key)
	base, err := os.ReadFile(s.Config)
	s.must(err)
	s.must(os.WriteFile(s.Config, []byte(strings.NewReplacer(s.Certificate(), chain, s.Key(), key).Replace(string(base))), 0o644))
	if doctor, _, _ := s.Mailbag("doctor", "--within", "1m"); !strings.Contains(doctor, "run: systemctl reload mailbag-popd") {
		t.Errorf("the doctor does not see that mailbag-popd has former settings:\n%s", doctor)
	}
	_, err = s.Popd.Reload()
	s.must(err)
	s.waitFor("the other certificate", func() bool {
		conn, err := tls.Dial("tcp", s.POP3S, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			return false
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].Subject.CommonName == "other.example"
	})

	if _, err := session.say("STAT"); err != nil {
		t.Errorf("the session that was open: %v", err)
	}
	if _, err := session.say("QUIT"); err != nil {
		t.Errorf("the session that was open: %v", err)
	}
}
