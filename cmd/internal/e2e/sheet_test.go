package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	mtatest "mailbag/testdata/mta"
	postfixtest "mailbag/testdata/postfix"
)

// bySheet runs fetchmail with the settings that an account's sheet has for it, once, with these pieces replaced: a host that
// only the story knows, a password that no sheet shows.
func (s *story) bySheet(account string, replace ...string) (string, error) {
	s.t.Helper()
	home := s.t.TempDir()
	rc := home + "/fetchmailrc"
	s.must(os.WriteFile(rc, []byte(strings.NewReplacer(replace...).Replace(s.sheet(account, "Fetchmail"))), 0o600))
	cmd := exec.Command("fetchmail", "-v", "-d", "0", "-f", rc, "--pidfile", home+"/pid")
	cmd.Env = append(os.Environ(), "HOME="+home, "FETCHMAILHOME="+home, "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// sheet is what an account's sheet has for a program.
func (s *story) sheet(account, program string) string {
	s.t.Helper()
	var sheet struct {
		Settings []struct{ Title, Text string }
	}
	s.must(json.Unmarshal([]byte(s.mailbag("account", "sheet", account, "--json")), &sheet))
	for _, setting := range sheet.Settings {
		if setting.Title == program {
			return setting.Text
		}
	}
	s.t.Fatalf("the sheet of %s has nothing for %s", account, program)
	return ""
}

// TestFetchmailOfABackupCustomersSheetFlushes has the customer's server come back, and ask for what waits.
func TestFetchmailOfABackupCustomersSheetFlushes(t *testing.T) {
	s := begin(t, mtatest.Config{})
	server, err := postfixtest.NewSink()
	s.must(err)
	t.Cleanup(server.Stop)
	s.account("acme", "backup", "acme.example", "--host", server.Addr(), "--network", "127.0.0.1")
	s.waits(2, "a@acme.example")
	s.must(server.Start())
	out, err := s.bySheet("acme", "poll mx.provider.example", "poll "+host(s.mta.Addr()), "protocol etrn", "protocol etrn port "+port(s.mta.Addr()))
	if err != nil {
		t.Fatalf("fetchmail: %v\n%s", err, out)
	}
	_, err = server.WaitMessages(2)
	s.must(err)
}

// TestFetchmailOfCustomersSheetsFetchesHeldMail has customers fetch with what they were given: the printed settings
// and a password.
func TestFetchmailOfCustomersSheetsFetchesHeldMail(t *testing.T) {
	s := begin(t, mtatest.Config{})
	s.must(s.Turnd.Start())
	bolt, corp := postfixtest.RunSink(t), postfixtest.RunSink(t)
	s.account("bolt", "etrn", "bolt.example", "--host", bolt.Addr(), "--network", "127.0.0.1")
	s.withPassword("corp", "--mode", "atrn", "--domain", "corp.example", "--domain", "corp.test")
	s.waits(1, "a@bolt.example")
	s.waits(1, "b@corp.example")
	s.waits(1, "c@corp.test")

	out, err := s.bySheet("bolt", "poll mx.provider.example", "poll "+host(s.mta.Addr()), "protocol etrn", "protocol etrn port "+port(s.mta.Addr()))
	if err != nil {
		t.Fatalf("fetchmail: %v\n%s", err, out)
	}
	_, err = bolt.WaitMessages(1)
	s.must(err)

	out, err = s.bySheet("corp", "poll mx.provider.example", "poll "+host(s.ODMR), "PASSWORD", sheetPassword, "smtphost localhost", "smtphost "+host(corp.Addr())+"/"+port(corp.Addr()))
	if err != nil {
		t.Fatalf("fetchmail: %v\n%s", err, out)
	}
	_, err = corp.WaitMessages(2)
	s.must(err)
	s.waitFor("nothing is left", func() bool { return s.queued() == 0 })
}

const sheetPassword = "was on the slip of paper"

// withPassword adds an account with that password, and waits until it is in force.
func (s *story) withPassword(name string, flags ...string) {
	s.t.Helper()
	s.withSecret(append([]string{"account", "add", name, "--password-stdin"}, flags...)...)
	s.inForce(name+".example", name)
}

// withSecret runs a command that is told that password.
func (s *story) withSecret(args ...string) {
	s.t.Helper()
	cmd := s.Command("mailbag", args...)
	cmd.Stdin = strings.NewReader(sheetPassword + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("mailbag %v: %v\n%s", args, err, out)
	}
}

// TestFetchmailOfAPOP3CustomersSheetKeepsEnvelopeRecipients has customers fetch by POP3 what names them nowhere but in
// the envelope, one from a catch-all and one from a mailbox.
func TestFetchmailOfAPOP3CustomersSheetKeepsEnvelopeRecipients(t *testing.T) {
	s := begin(t, mtatest.Config{})
	s.must(s.Popd.Start())
	s.withPassword("dent", "--mode", "pop3", "--domain", "dent.example")
	const quoted = `"ford \"p\""@ford.example`
	s.withMailbox("ford", quoted)
	data := "From: x@elsewhere.example\r\nTo: undisclosed-recipients:;\r\nSubject: bcc\r\n\r\nhello\r\n"
	s.accept(data, "arthur@dent.example", "trillian@dent.example")
	s.accept(data, quoted)
	s.waitFor("all of it is in the Maildirs", func() bool { return s.queued() == 0 })
	for account, want := range map[string][]string{"dent": {"arthur@dent.example", "trillian@dent.example"}, "ford": {quoted}} {
		server := postfixtest.RunSink(t)
		fetch := func() (string, error) {
			return s.bySheet(account, "poll mx.provider.example", "poll "+host(s.POP3), "PASSWORD", sheetPassword,
				"smtphost localhost", "smtphost "+host(server.Addr())+"/"+port(server.Addr()))
		}
		out, err := fetch()
		if err != nil {
			t.Fatalf("fetchmail of %s: %v\n%s", account, err, out)
		}
		var got []string
		for _, m := range server.Messages() {
			got = append(got, m.Recipients...)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s: mail arrived for %v, want %v", account, got, want)
		}
		s.mailbag("account", "suspend", account)
		s.waitFor(account+" is told that it is suspended", func() bool {
			out, err = fetch()
			return err != nil && strings.Contains(strings.ToLower(out), "suspended")
		})
	}
}

// TestFetchmailFetchesACatchAllAndMailboxesBesideIt has one run of it get both.
func TestFetchmailFetchesACatchAllAndMailboxesBesideIt(t *testing.T) {
	s := begin(t, mtatest.Config{})
	s.must(s.Popd.Start())
	s.withMailbox("dent", "ford@dent.example")
	s.mailbag("account", "set", "dent", "--catch-all", "yes")
	s.withSecret("passwd", "dent", "--password-stdin")
	s.knows("arthur@dent.example")
	data := "From: x@elsewhere.example\r\nTo: undisclosed-recipients:;\r\nSubject: bcc\r\n\r\nhello\r\n"
	s.accept(data, "arthur@dent.example", "ford@dent.example")
	s.waitFor("all of it is in the Maildirs", func() bool { return s.queued() == 0 })
	server := postfixtest.RunSink(t)
	out, err := s.bySheet("dent", "poll mx.provider.example", "poll "+host(s.POP3), "PASSWORD", sheetPassword,
		"smtphost localhost", "smtphost "+host(server.Addr())+"/"+port(server.Addr()))
	if err != nil {
		t.Fatalf("fetchmail: %v\n%s", err, out)
	}
	var got []string
	for _, m := range server.Messages() {
		got = append(got, m.Recipients...)
	}
	slices.Sort(got)
	if !slices.Equal(got, []string{"arthur@dent.example", "ford@dent.example"}) || !strings.Contains(out, "1 message for ford@dent.example at") {
		t.Errorf("mail arrived for %v:\n%s", got, out)
	}
}

// TestCustomersPostfixTakesOurMailByTheSheet has a customer's Postfix, which refuses all mail, take from us what is for its
// domains, and nothing else.
func TestCustomersPostfixTakesOurMailByTheSheet(t *testing.T) {
	s := begin(t, mtatest.Config{})
	s.account("acme", "backup", "acme.example", "--domain", "acme.test")
	customer := postfixtest.Prepare(t, postfixtest.Config{Main: map[string]string{
		"mydestination": "own.example", "local_recipient_maps": "", "smtpd_recipient_restrictions": "reject", "smtpd_relay_restrictions": "",
	}})
	s.must(customer.Start())
	cmd := exec.Command("sh", "-e", "-c", strings.ReplaceAll(s.sheet("acme", "Postfix"), "mx.provider.example", "127.0.0.1"))
	cmd.Env = append(os.Environ(), "MAIL_CONFIG="+customer.ConfigDir())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("the sheet's commands: %v\n%s", err, out)
	}
	for address, want := range map[string]string{
		"a@acme.example": "250", "b@acme.test": "250", "c@own.example": "250", "d@elsewhere.example": "554",
	} {
		s.waitFor(address+" is answered "+want, func() bool {
			client, err := postfixtest.Dial(customer.Addr(), "")
			s.must(err)
			defer client.Close()
			var reply string
			for _, command := range []string{"EHLO client.example", "MAIL FROM:<>", "RCPT TO:<" + address + ">"} {
				reply, err = client.Say(command)
				s.must(err)
			}
			return strings.HasPrefix(reply, want)
		})
	}
}

// TestFetchedMailStaysWithTheCustomersPostfix has fetchmail hand mail to a Postfix that delivers to its own users, as the
// sheet tells to do it. That one must not take what popd wrote into the messages for a loop.
func TestFetchedMailStaysWithTheCustomersPostfix(t *testing.T) {
	s := begin(t, mtatest.Config{})
	s.must(s.Popd.Start())
	s.withPassword("dent", "--mode", "pop3", "--domain", "dent.test", "--domain", "dent.example")
	s.withMailbox("ford", "prefect@ford.example")
	s.accept("Subject: to all\r\n\r\nhello\r\n", "arthur@dent.example", "zaphod@dent.test", "prefect@ford.example")
	s.waitFor("all of it is in the Maildirs", func() bool { return s.queued() == 0 })
	customer := postfixtest.Prepare(t, postfixtest.Config{Main: map[string]string{
		"mydestination": "dent.example, dent.test, ford.example", "local_recipient_maps": "",
	}})
	users := customer.Path("users") // one file for all
	s.must(os.WriteFile(users, nil, 0o666))
	s.must(os.Chmod(users, 0o666))
	s.must(customer.Set("alias_maps", fmt.Sprintf("inline:{ arthur=%[1]s, zaphod=%[1]s, prefect=%[1]s }", users)))
	s.must(customer.Start())
	for _, account := range []string{"dent", "ford"} {
		out, err := s.bySheet(account, "poll mx.provider.example", "poll "+host(s.POP3), "PASSWORD", sheetPassword,
			"smtphost localhost", "smtphost "+host(customer.Addr())+"/"+port(customer.Addr()))
		if err != nil {
			t.Fatalf("fetchmail of %s: %v\n%s", account, err, out)
		}
	}
	s.must(customer.WaitQueue("the queue is empty", func(q []postfixtest.Entry) bool { return len(q) == 0 }))
	text, err := os.ReadFile(users)
	s.must(err)
	if n := strings.Count(string(text), "Subject: to all"); n != 3 || strings.Contains(customer.Log(), "status=bounced") {
		t.Errorf("the users have %d messages, want 3:\n%s\n%s", n, text, customer.Log())
	}
}

// withMailbox adds an account without a catch-all that has one mailbox, and waits until that takes mail.
func (s *story) withMailbox(name, address string) {
	s.t.Helper()
	_, domain, _ := strings.Cut(address, "@")
	s.account(name, "pop3", domain, "--catch-all", "no")
	s.withSecret("mailbox", "add", name, address, "--password-stdin")
	s.knows(address)
}

// knows waits until an address takes mail.
func (s *story) knows(address string) {
	s.t.Helper()
	client, err := postfixtest.Dial(s.mta.Addr(), "")
	s.must(err)
	defer client.Close()
	_, err = client.Say("EHLO client.example")
	s.must(err)
	s.waitFor(address+" is known", func() bool {
		reply, err := client.Say("VRFY " + address)
		s.must(err)
		return strings.HasPrefix(reply, "252 ")
	})
}
