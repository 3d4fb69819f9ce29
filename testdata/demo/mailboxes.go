package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	postfixtest "mailbag/testdata/postfix"
)

const dentPassword = "dont panic"

// dentUsers are the users of dent's own mail system; the last one is only in Bcc.
var dentUsers = []string{"arthur", "ford", "trillian", "marvin", "zaphod"}

// mailboxes shows a catch-all: mail for five recipients, fetched with curl to look at, and with fetchmail into the
// right users' mailboxes.
func (s *stage) mailboxes() error {
	if err := s.Popd.Start(); err != nil {
		return err
	}
	fmt.Printf("\033[2m# mailbag account add dent --mode pop3 --domain dent.example --password-stdin\033[0m\n")
	add := s.Command("mailbag", "account", "add", "dent", "--mode", "pop3", "--domain", "dent.example", "--password-stdin")
	add.Stdin = strings.NewReader(dentPassword + "\n")
	add.Stdout, add.Stderr = os.Stdout, os.Stderr
	if err := add.Run(); err != nil {
		return err
	}
	if err := s.AwaitDomain("dent.example", "dent"); err != nil {
		return err
	}
	if err := postfixtest.Wait("mailbag-popd knows dent", func() bool {
		list, _, err := s.Mailbag("account", "list", "--json")
		known, metricErr := s.Popd.Metric("mailbag_accounts")
		return err == nil && metricErr == nil && int(known) == strings.Count(list, `"name":`)
	}); err != nil {
		return err
	}
	m := postfixtest.Mail{From: "slartibartfast@sender.example", Data: []byte("From: slartibartfast@sender.example\r\n" +
		"To: arthur@dent.example, ford@dent.example\r\nCc: trillian@dent.example, marvin@dent.example\r\nSubject: Fjords\r\n\r\nThey give a continent a lovely baroque feel.\r\n")}
	for _, user := range dentUsers {
		m.To = append(m.To, user+"@dent.example")
	}
	outcome, err := postfixtest.Send(s.mta.Addr(), "", m)
	if err != nil {
		return err
	}
	fmt.Printf("%s writes to %s; the last one is only in Bcc\n    DATA  %s\n", m.From, strings.Join(m.To, ", "), outcome.Data)
	stored := filepath.Join(s.Maildirs, "dent", "catch-all", "new")
	if err := postfixtest.Wait("the mail is in the Maildir", func() bool {
		entries, _ := os.ReadDir(stored)
		return len(entries) == len(m.To)
	}); err != nil {
		return err
	}
	if err := s.curl(); err != nil {
		return err
	}
	if err := s.fetchmail(); err != nil {
		return err
	}
	if err := postfixtest.Wait("the sessions are recorded", func() bool {
		out, _, err := s.Mailbag("sessions", "dent")
		return err == nil && strings.Count(out, " done\n") == 2
	}); err != nil {
		return err
	}
	return s.mailbag("sessions", "dent")
}

// curl fetches one message and shows its beginning.
func (s *stage) curl() error {
	url := "pop3://" + s.POP3 + "/5"
	fmt.Printf("\033[2m# curl --user dent %s\033[0m\n", url)
	out, err := exec.Command("curl", "--silent", "--show-error", "--user", "dent:"+dentPassword, url).Output()
	if err != nil {
		return fmt.Errorf("curl: %w", err)
	}
	head, _, _ := strings.Cut(string(out), "\r\nReceived:")
	for line := range strings.Lines(head) {
		fmt.Println("    " + strings.TrimSpace(line))
	}
	fmt.Println("    ...")
	return nil
}

// fetchmail fetches everything in multidrop mode: each user is known by the envelope.
func (s *stage) fetchmail() error {
	home, err := os.MkdirTemp("", "mailbag-demo-fetchmail-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(home)
	host, port, err := net.SplitHostPort(s.POP3)
	if err != nil {
		return err
	}
	settings := fmt.Sprintf(`poll %s service %s protocol pop3 envelope "X-Envelope-To" no dns aka dent.example
  user "dent" password "%s" to %s here
`, host, port, dentPassword, strings.Join(dentUsers, " "))
	fmt.Println("fetchmail is told:")
	for line := range strings.Lines(settings) {
		fmt.Print("    " + strings.Replace(line, dentPassword, "...", 1))
	}
	settings = strings.TrimSuffix(settings, "\n") + fmt.Sprintf("\n  sslproto \"\" fetchall mda \"cat >>%s/%%T\"\n", home)
	rc := filepath.Join(home, "fetchmailrc")
	errs := []error{os.WriteFile(rc, []byte(settings), 0o600)}
	cmd := exec.Command("fetchmail", "--fetchmailrc", rc, "--nosyslog", "--silent")
	cmd.Env = append(os.Environ(), "HOME="+home, "FETCHMAILHOME="+home)
	if out, err := cmd.CombinedOutput(); err != nil {
		errs = append(errs, fmt.Errorf("fetchmail: %w: %s", err, out))
	}
	for _, user := range dentUsers {
		text, err := os.ReadFile(filepath.Join(home, user))
		errs = append(errs, err)
		_, envelope, _ := strings.Cut(string(text), "X-Envelope-To: ")
		envelope, _, _ = strings.Cut(envelope, "\n")
		fmt.Printf("    %-9s has %d message, which was for %s\n", user, strings.Count(string(text), "\nSubject: "), envelope)
	}
	return errors.Join(errs...)
}
