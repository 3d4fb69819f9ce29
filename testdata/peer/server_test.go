package peer

import (
	"bytes"
	"strings"
	"testing"

	postfixtest "mailbag/testdata/postfix"
)

// A server keeps what it takes.
type server interface {
	Addr() string
	Messages() ([][]byte, error)
}

func TestServersKeepMailForWhomTheyKnow(t *testing.T) {
	users := []string{"a@acme.example", "b@acme.example"}
	for name, run := range map[string]func(*testing.T) server{
		"Exim":      func(t *testing.T) server { return RunLimitedExim(t, EximLimits{Users: users}) },
		"OpenSMTPD": func(t *testing.T) server { return RunOpenSMTPD(t, users) },
		"Postfix":   func(t *testing.T) server { return RunPostfix(t, users) },
		"aiosmtpd":  func(t *testing.T) server { return RunAiosmtpd(t, users) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := run(t)
			const text = "Subject: x\r\n\r\n.\r\n..dots\r\n"
			for _, to := range users {
				m := postfixtest.Mail{From: "s@x.example", To: []string{to, "gone@acme.example"}, Data: []byte(text)}
				o, err := postfixtest.Send(s.Addr(), "", m)
				if err != nil || !o.Accepted() || !strings.HasPrefix(o.Recipients[1], "550") {
					t.Fatalf("%+v, %v", o, err)
				}
			}
			var got [][]byte
			if err := postfixtest.Wait("the messages", func() bool {
				var err error
				got, err = s.Messages()
				return err == nil && len(got) == len(users)
			}); err != nil {
				t.Fatal(err)
			}
			for _, m := range got {
				if !bytes.Contains(bytes.ReplaceAll(m, []byte("\r\n"), []byte("\n")), []byte("\n.\n..dots\n")) {
					t.Errorf("it kept %q", m)
				}
			}
		})
	}
}

func TestOpenSMTPDStartsAgain(t *testing.T) {
	t.Parallel()
	s := RunOpenSMTPD(t, []string{"a@acme.example"})
	s.Stop()
	if err := s.Start(); err != nil {
		t.Error(err)
	}
}

// How a server ends a connection that is too long for it, with messages of which none is refused.
func TestServersLimitAConnection(t *testing.T) {
	users := []string{"a@acme.example"}
	for name, c := range map[string]struct {
		run   func(*testing.T) server
		taken int
		reply string
	}{
		"Exim": {func(t *testing.T) server { return RunLimitedExim(t, EximLimits{PerConnection: 10}) }, 10,
			"421 too many messages in this connection"},
		"OpenSMTPD": {func(t *testing.T) server { return RunOpenSMTPD(t, users) }, 100,
			"452 4.5.3 Too many recipients: Too many messages sent"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c2, err := postfixtest.Dial(c.run(t).Addr(), "")
			if err != nil {
				t.Fatal(err)
			}
			defer c2.Close()
			if _, err := c2.Say("EHLO client.example"); err != nil {
				t.Fatal(err)
			}
			for i := range c.taken + 1 {
				o, err := c2.Send(postfixtest.Mail{From: "s@x.example", To: users, Data: []byte("Subject: x\r\n\r\nx\r\n")})
				if err != nil || i < c.taken != o.Accepted() {
					t.Fatalf("message %d: %+v, %v", i+1, o, err)
				}
				if i == c.taken && o.Data != c.reply {
					t.Errorf("its end is %q", o.Data)
				}
			}
		})
	}
}
