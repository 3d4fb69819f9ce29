package exim

import (
	"strings"
	"testing"

	eximtest "mailbag/testdata/exim"
)

// The host's refusals hold, its own ACLs of other kinds are asked first, and what it accepts is counted all the same.
func TestTheHostsACLsStay(t *testing.T) {
	t.Parallel()
	x, p := wired(t, nil, func(x *eximtest.Instance) {
		edit(t, x, "conf.d/main/00_host", func(string) string {
			return `MAIN_ACL_CHECK_RCPT = host_rcpt
MAIN_ACL_CHECK_DATA = host_data
MAILBAG_HOST_PRDR = host_prdr
MAILBAG_HOST_ETRN = host_etrn
MAILBAG_HOST_NOT_SMTP = host_not_smtp
MAILBAG_HOST_START = host_start
MAILBAG_HOST_NOTQUIT = host_notquit
`
		})
		edit(t, x, "conf.d/acl/60_host", func(string) string {
			return `host_rcpt:
  deny
    local_parts = refused
    message = 550 5.7.1 the host says no
  discard
    local_parts = nowhere
  drop
    local_parts = dropped
    message = 550 5.7.1 the host hangs up
  defer
    local_parts = later
    message = 451 4.7.1 the host says later
  accept
host_data:
  deny
    condition = ${if match{$h_subject:}{spam}}
    message = 554 5.6.0 the host knows spam
  accept
host_prdr:
  deny
    local_parts = b
    message = 550 5.7.1 the host dislikes b
  accept
host_etrn:
  deny
    condition = ${if match{$smtp_command_argument}{evil}}
    message = 459 4.7.0 the host says no
  accept
host_not_smtp:
  deny
    condition = ${if match{$h_subject:}{spam}}
    message = the host knows spam
  accept
host_start:
  accept
host_notquit:
  accept
    logwrite = the host saw it
`
		})
	})
	s := dial(t, x, "")
	s.say("ETRN evil.example", "459 4.7.0 the host says no")
	s.say("ETRN turn.example", "458")
	p.answers(dunno)
	s = dial(t, x, "")
	s.mail("a@turn.example")
	s.say("RCPT TO:<refused@turn.example>", "550 5.7.1 the host says no")
	s.say("RCPT TO:<later@turn.example>", "451 4.7.1 the host says later")
	s.say("RCPT TO:<nowhere@turn.example>", "250")
	s.say("RSET", "250")
	s.mail("a@turn.example")
	s.say("DATA", "354")
	s.say("Subject: spam\r\n\r\n.", "554 5.6.0 the host knows spam")
	if q := p.questions("END-OF-MESSAGE"); len(q) > 0 {
		t.Errorf("what the host refuses is counted: %v", q)
	}
	s.say("MAIL FROM:<s@elsewhere.example> PRDR", "250")
	s.say("RCPT TO:<a@turn.example>", "250")
	s.say("RCPT TO:<b@second.example>", "250")
	s.data("353")
	for _, want := range []string{"250", "550 5.7.1 the host dislikes b", "250"} {
		if reply, err := s.Reply(); err != nil || !strings.HasPrefix(reply, want) {
			t.Errorf("%q, %v, want %s", reply, err, want)
		}
	}
	if q := p.questions("END-OF-MESSAGE"); len(q) != 1 || q[0]["recipient_domains"] != "turn.example" {
		t.Errorf("asked %v", q)
	}
	s.say("MAIL FROM:<s@elsewhere.example>", "250")
	s.say("RCPT TO:<dropped@turn.example>", "550 5.7.1 the host hangs up")
	if reply, err := s.Say("NOOP"); err == nil {
		t.Errorf("the connection is still there: %s", reply)
	}
	s = dial(t, x, "")
	s.mail("nowhere@turn.example")
	s.data("250")
	if q := p.questions("END-OF-MESSAGE"); len(q) != 1 {
		t.Errorf("what the host discards is counted: %v", q)
	}
	s.Close()
	if err := x.WaitLog("the host saw it"); err != nil {
		t.Error(err)
	}
}

// One that hangs is not waited for again in the connection.
