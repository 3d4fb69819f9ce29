package policy

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mailbag/meter"
	"mailbag/policy/routes"
	postfixtest "mailbag/testdata/postfix"
)

// besidePostfix starts a Policy with its sockets in a Postfix that asks it, and holds what is ours.
func besidePostfix(t *testing.T, configure ...func(*Config)) (*desk, *postfixtest.Instance) {
	t.Helper()
	tables := t.TempDir()
	ours := "pipemap:{regexp:" + tables + "/domain.regexp, cdb:" + tables + "/routes}"
	held := "pipemap:{regexp:" + tables + "/domain.regexp, cdb:" + tables + "/routes, regexp:" + tables + "/held.regexp}"
	in := postfixtest.Prepare(t, postfixtest.Config{Main: map[string]string{
		"relay_domains":                ours,
		"transport_maps":               "cdb:" + tables + "/routes",
		"smtpd_relay_restrictions":     "permit_mynetworks, reject_unauth_destination",
		"smtpd_restriction_classes":    "ours",
		"ours":                         "check_policy_service unix:private/mailbag-policy",
		"smtpd_recipient_restrictions": "check_recipient_access pipemap:{regexp:" + tables + "/domain.regexp, cdb:" + tables + "/routes, static:ours}",
		"smtpd_milters":                "unix:private/mailbag-milter",
		"smtpd_etrn_restrictions":      "check_policy_service unix:private/mailbag-policy, reject",
		"fast_flush_domains":           "${{$process_name} == {qmgr} ? {} : {${{$process_name} == {error} ? {!" + held + ", }}$relay_domains}}",
		"defer_transports":             "mailbag-turn, mailbag-pop, relay",
		"smtputf8_enable":              "yes",
	}})
	down := account("down", meter.Backup, "down.example")
	down.Host = "127.0.0.1:1" // nobody listens there
	d := openDesk(t, append(customers(), down), func(c *Config) {
		c.Now = time.Now
		for _, f := range configure {
			f(c)
		}
	})
	for _, table := range (routes.Sockets{Turns: "/run/mailbag/turn", Deliver: "/run/mailbag/deliver.sock"}).Tables(d.follower.Directory()) {
		content, err := table.Content()
		if err == nil {
			err = os.WriteFile(filepath.Join(tables, table.Name), content, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, serve := range map[string]func(net.Listener) error{
		"mailbag-policy": d.ServeRequests, "mailbag-milter": d.ServeMilter,
	} {
		path := in.Private(name)
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o666); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- serve(l) }()
		t.Cleanup(func() {
			d.Shutdown(t.Context())
			if err := <-ended; err != nil {
				t.Errorf("serving %s: %v", name, err)
			}
		})
	}
	if err := in.Start(); err != nil {
		t.Fatal(err)
	}
	return d, in
}

// ways are spellings of addresses at our domains, and tricks to get there.
var ways = []string{
	"a@acme.example", "a@ACME.Example", "a@acme.example.", "a@acme.example..", "a@acme.example@", "a@acme.example.@",
	"a%acme.example@[127.0.0.1]", "a%acme.example", "a%acme.example@", "acme.example!a", "acme.example!a@[127.0.0.1]",
	"@mx.example:a@acme.example", "@acme.example:a@other.example", "@acme.example,@x.example:a@[127.0.0.1]",
	`"a"@acme.example`, `"a b"@acme.example`, `"a@acme.example"`, `"a@acme.example"@[127.0.0.1]`, `"a%acme.example"@[127.0.0.1]`,
	`"acme.example!a"`, `a@"acme.example"`, `a@"acme .example"`, `a@"acme\\.example"`, `a@"acme.ex\"ample"`, `a@"acme.exam\\ple"`,
	`a@acme\.example`, `a@acme . example`, `a@acme.example(x)`, `a@(x)acme.example`, `a@"(x)acme.example"`, `"a\\@acme.example"`,
	`"acme.example\\!a"`, `"a\"@acme.example"@[127.0.0.1]`, "a@[acme.example]", "a@acme.example@other.example", "a@other.example@acme.example",
	"a@other.example", "a%other.example@acme.example", "a@sub.acme.example", "a@bücher.example", "a@BÜCHER.example.", "a@xn--bcher-kva.example",
	"a%bücher.example@[127.0.0.1]", "a@acme.example@[127.0.0.1]@[127.0.0.1]", "@acme.example", `""@acme.example`, "a@b@acme.example", "a@box.example",
	"a+x@spare.example", "known@listed.example", "x@listed.example", "a@gone.example", "a@%acme.example", "a@!acme.example", "a%@acme.example@",
}

func TestNoSpellingPassesPostfixUnmetered(t *testing.T) {
	t.Parallel()
	d, in := besidePostfix(t)
	accepted := 0
	for _, source := range []string{"127.0.0.1", "127.0.0.2"} { // a stranger, and one of mynetworks
		c, err := postfixtest.Dial(in.Addr(), source)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for i, way := range ways {
			if i%15 == 0 { // Postfix hangs up after too many errors
				c.Close()
				if c, err = postfixtest.Dial(in.Addr(), source); err != nil {
					t.Fatal(err)
				}
				if _, err := c.Say("EHLO client.example"); err != nil {
					t.Fatal(err)
				}
			}
			mail := "MAIL FROM:<sender@client.example>"
			if strings.ContainsFunc(way, func(r rune) bool { return r > '~' }) {
				mail += " SMTPUTF8"
			}
			for _, command := range []string{mail, "RCPT TO:<" + way + ">", "DATA"} {
				reply, err := c.Say(command)
				if err != nil {
					t.Fatal(err)
				}
				if strings.HasPrefix(command, "RCPT") {
					t.Logf("%-9s %-45s %s", source, way, reply)
				}
				if reply[0] > '3' {
					break
				}
				if command == "DATA" {
					c.Write([]byte("Subject: x\r\n\r\nx\r\n.\r\n"))
					if reply, err := c.Reply(); err != nil || !strings.HasPrefix(reply, "250") {
						t.Errorf("%s from %s: %q, %v", way, source, reply, err)
					}
					accepted++
				}
			}
			if _, err := c.Say("RSET"); err != nil {
				t.Fatal(err)
			}
		}
	}
	if accepted < 20 {
		t.Errorf("only %d messages were accepted", accepted)
	}
	counted := map[string]int64{}
	for a := range d.follower.Directory().Accounts() {
		counted[a.Name] = d.used(t, a.Name).Messages
	}
	var queued map[string]int64
	defer func() { t.Logf("counted %v, in the queue %v", counted, queued) }()
	waitFor(t, "the queue as counted", func() bool {
		queued = map[string]int64{}
		entries, err := in.Queue()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			for _, r := range e.Recipients {
				at := strings.LastIndexByte(r.Address, '@')
				if a, _ := domainOf(d.follower.Directory(), r.Address[at+1:]); a != nil {
					queued[a.Name]++
				}
			}
		}
		for name, n := range counted {
			if n != queued[name] {
				return false
			}
		}
		return true
	})
}

// An ETRN makes Postfix flush a backup domain. Held mail it must leave where it is, for the turn to
// release it in windows; the customer hears 250 all the same.
func TestETRNAtPostfixLeavesHeldMailToTheTurn(t *testing.T) {
	t.Parallel()
	turns := &turns{}
	_, in := besidePostfix(t, func(c *Config) { c.Turns = turns })
	for _, to := range []string{"a@acme.example", "b@acme.example", "c@down.example"} {
		m := postfixtest.Mail{From: "s@client.example", To: []string{to}, Data: []byte("Subject: x\r\n\r\n")}
		if o, err := postfixtest.Send(in.Addr(), "", m); err != nil || !o.Accepted() {
			t.Fatalf("%+v, %v", o, err)
		}
	}
	tried := func(domain string) int { return strings.Count(in.Log(), "@"+domain+">, relay=none") }
	// And back in the deferred queue: what it does not find there, an ETRN forgets without having flushed it.
	waitFor(t, "all mail to be deferred", func() bool {
		entries, err := in.Queue()
		if err != nil {
			t.Fatal(err)
		}
		deferred := 0
		for _, e := range entries {
			if e.Queue == "deferred" {
				deferred++
			}
		}
		return deferred == 3 && tried("acme.example") == 2 && tried("down.example") == 1
	})

	c, err := postfixtest.Dial(in.Addr(), "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, dialogue := range []struct{ say, want string }{
		{"EHLO client.example", "250"},
		{"ETRN acme.example", "250 "},
		{"ETRN ACME.example", "250 "}, // a second one within the same moment
		{"ETRN nobody.example", "459 4.7.1 "},
		{"ETRN sub.acme.example", "459 4.7.1 "},
		{"ETRN [127.0.0.1]", "459 4.7.1 "},
		{"ETRN gone.example", "459 4.7.1 "},
		{"ETRN box.example", "459 4.7.1 "},
		{"ETRN", "500 "},
		{"ETRN acme..example", "501 "},
		{"ETRN down.example", "250 "},
	} {
		if reply, err := c.Say(dialogue.say); err != nil || !strings.HasPrefix(reply, dialogue.want) {
			t.Errorf("%s: %q, %v; want %s", dialogue.say, reply, err, dialogue.want)
		}
	}
	// Postfix takes requests in their order, so by then it would have tried the held mail too.
	waitFor(t, "the mail for the backup domain to be tried again", func() bool { return tried("down.example") == 2 })
	if n := tried("acme.example"); n != 2 {
		t.Errorf("held mail was tried %d times more", n-2)
	}
	if got := strings.Join(turns.asked(), " "); got != "acme acme" {
		t.Errorf("turns were opened for %q", got)
	}
}

func TestSizeIsThatOfTheContent(t *testing.T) {
	t.Parallel()
	d, in := besidePostfix(t)
	for _, test := range []struct {
		name    string
		content string
		more    int // octets that are counted and were not sent
	}{
		{"plain", "Subject: x\r\nTo: y\r\n\r\nfirst\r\n.second\r\n\r\n", 0},
		{"folded header", "Subject: x\r\n\ty\r\n  z\r\nX:no space\r\nY:  two\r\nZ:\r\n\r\nbody\r\n", 0},
		{"8-bit and big", "Subject: \xfc\r\n\r\n" + strings.Repeat("0123456789\xfc\r\n", 20_000), 0},
		{"no body", "Subject: x\r\n\r\n", 0},
		{"no empty line", "Subject: x\r\n", 2},
		{"no header", "\r\nbody\r\n", 0},
		{"long line", "Subject: x\r\n\r\n" + strings.Repeat("y", 5000) + "\r\n", 0},
	} {
		before := d.used(t, "acme").Bytes
		m := postfixtest.Mail{From: "s@client.example", To: []string{"a@acme.example"}, Data: []byte(test.content)}
		if o, err := postfixtest.Send(in.Addr(), "", m); err != nil || !o.Accepted() {
			t.Fatalf("%s: %+v, %v", test.name, o, err)
		}
		if counted := d.used(t, "acme").Bytes - before; counted != int64(len(test.content)+test.more) {
			t.Errorf("%s: %d octets are counted of %d sent", test.name, counted, len(test.content))
		}
	}
}
