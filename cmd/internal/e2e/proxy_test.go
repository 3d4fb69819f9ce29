package e2e

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"mailbag/testdata/certificate"
	"mailbag/testdata/peer"
	postfixtest "mailbag/testdata/postfix"
)

// visit connects from an address of this machine, says each command after the answer to the one before, and returns all
// answers.
func (s *story) visit(from, to string, config *tls.Config, commands ...string) string {
	s.t.Helper()
	conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).Dial("tcp", to)
	s.must(err)
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(postfixtest.Patience))
	if config != nil {
		conn = tls.Client(conn, config)
	}
	r := bufio.NewReader(conn)
	var answers strings.Builder
	for i := 0; ; i++ {
		line := "   -"
		for len(line) > 3 && line[3] == '-' { // of a reply with several lines; POP3 has none here
			line, err = r.ReadString('\n')
			s.must(err)
			answers.WriteString(line)
		}
		if i == len(commands) {
			return answers.String()
		}
		fmt.Fprint(conn, commands[i], "\r\n")
	}
}

// Behind HAProxy customers are who they are, and nobody is this machine, though all of them are here.
func TestCustomersBehindHAProxy(t *testing.T) {
	s := begin(t, restless)
	certificate.New(t, "mx.example").Write(t, s.Certificate(), s.Key())
	settings, err := os.ReadFile(s.Config)
	s.must(err)
	s.must(os.WriteFile(s.Config, append([]byte("proxies = [\"127.0.0.1\"]\n"), settings...), 0o644))
	s.must(s.Turnd.Start())
	s.must(s.Popd.Start())
	password := s.pop3("dent", "dent.example")
	s.etrn("bolt", "bolt.example", "--network", "127.0.0.7/32")
	s.waitFor("mailbag-turnd to know bolt", func() bool {
		known, err := s.Turnd.Metric("mailbag_accounts")
		return err == nil && known == 2
	})
	for _, version := range []int{1, 2} {
		proxy := peer.RunHAProxy(t, peer.Behind{Server: s.ODMR, Version: version}, peer.Behind{Server: s.ODMRTLS, Version: version},
			peer.Behind{Server: s.POP3, Version: version}, peer.Behind{Server: s.POP3S, Version: version})
		odmr, odmrs, pop3, pop3s := proxy.At[0], proxy.At[1], proxy.At[2], proxy.At[3]
		insecure := &tls.Config{InsecureSkipVerify: true}
		for _, c := range []struct {
			from, to string
			config   *tls.Config
			commands []string
			want     string
		}{
			{"127.0.0.7", odmr, nil, []string{"EHLO a", "ETRN bolt.example"}, "\r\n251 "},
			{"127.0.0.7", odmrs, insecure, []string{"EHLO a", "ETRN bolt.example"}, "\r\n251 "},
			{"127.0.0.1", odmr, nil, []string{"EHLO a", "ETRN bolt.example"}, "\r\n459 "},
			{"127.0.0.1", odmr, nil, []string{"EHLO a", "AUTH PLAIN AAAA"}, "\r\n538 "},
			{"127.0.0.1", pop3, nil, []string{"USER dent"}, "\r\n-ERR A password is not taken in the clear"},
			{"127.0.0.9", pop3s, insecure, []string{"USER dent", "PASS " + password, "QUIT"}, "\r\n+OK 0 messages"},
			{"127.0.0.8", pop3s, insecure, []string{"USER dent", "PASS a guess"}, "\r\n-ERR [AUTH]"},
		} {
			if got := s.visit(c.from, c.to, c.config, c.commands...); !strings.Contains(got, c.want) {
				t.Errorf("version %d, %s, %q: the answers are\n%swant %q", version, c.from, c.commands, got, c.want)
			}
		}
	}
	s.waitFor("the failed log-ins of 127.0.0.8", func() bool {
		return strings.Count(s.Popd.Log(), `msg="log-in failed" service=popd client=127.0.0.8 user=dent`) == 2
	})
	s.waitFor("the sessions of 127.0.0.9", func() bool { return strings.Count(s.mailbag("sessions", "dent"), "127.0.0.9") == 2 })
	// HAProxy's looking after them, and the doctor's, is nothing to write about.
	out, _, _ := s.Mailbag("doctor", "--within", "1m") // not all is well: there is no PTR record, for one
	for _, program := range []string{"mailbag-turnd", "mailbag-popd"} {
		if !strings.Contains(out, program+" answers as it should") {
			t.Errorf("the doctor says\n%s", out)
		}
	}
	for _, d := range []string{s.Turnd.Log(), s.Popd.Log()} {
		if strings.Contains(d, "PROXY header") {
			t.Errorf("a daemon complains of its proxy:\n%s", d)
		}
	}
	// Who comes past it has no header.
	if _, err := bufio.NewReader(s.dial(s.POP3)).ReadByte(); err == nil {
		t.Error("a connection from a proxy's address is served without a header")
	}
	s.waitFor("mailbag-popd to complain", func() bool {
		return strings.Contains(s.Popd.Log(), "a proxy's connection was closed")
	})
}

func (s *story) dial(address string) net.Conn {
	s.t.Helper()
	conn, err := net.Dial("tcp", address)
	s.must(err)
	s.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(postfixtest.Patience))
	fmt.Fprint(conn, "QUIT\r\n")
	return conn
}
