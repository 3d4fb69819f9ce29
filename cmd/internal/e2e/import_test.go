package e2e

import (
	"encoding/csv"
	"os"
	"strings"
	"testing"
)

// TestWaitingMailMovesWithAnImport changes the modes of accounts by a spreadsheet while mail waits for them, and finds it where
// the passwords of the import fetch it.
func TestWaitingMailMovesWithAnImport(t *testing.T) {
	s := beginPOP(t)
	s.account("acme", "etrn", "acme.example", "--host", "127.0.0.1:9", "--network", "192.0.2.1")
	s.account("bolt", "backup", "bolt.example", "--host", "127.0.0.1:9", "--domain", "shop.bolt.example")
	s.waits(1, "info@acme.example")
	s.waits(2, "info@bolt.example", "info@shop.bolt.example")

	file, passwords := s.mta.Path("accounts.csv"), s.mta.Path("passwords.csv")
	imports := func(text string) (says string, err error) {
		t.Helper()
		s.must(os.WriteFile(file, []byte(text), 0o600))
		out, errs, err := s.Mailbag("account", "import", file, "--passwords", passwords)
		return out + errs, err
	}
	says, err := imports("\ufeffName;Domains\r\nbolt;bolt.example\r\n")
	if err == nil || !strings.Contains(says, "accounts.csv:2: domains: mail waits for shop.bolt.example (") {
		t.Errorf("a domain for which mail waits is taken away: %v\n%s", err, says)
	}
	if _, err := os.Stat(passwords); err == nil {
		t.Error("passwords were written by an import that failed")
	}

	says, err = imports("\ufeffName;Mode\r\nacme;POP3\r\nbolt;POP3\r\n")
	if err != nil || !strings.Contains(says, " for acme, bolt released to the new way") {
		t.Errorf("the import ended with %v and said\n%s", err, says)
	}
	s.stored(s.maildir("acme", ""), 1)
	s.stored(s.maildir("bolt", ""), 4) // a copy for each recipient
	s.waitFor("an empty queue", func() bool { return s.queued() == 0 })

	text, err := os.ReadFile(passwords)
	s.must(err)
	logins, err := csv.NewReader(strings.NewReader(string(text))).ReadAll()
	s.must(err)
	if len(logins) != 3 {
		t.Fatalf("the passwords are %q", logins)
	}
	for _, login := range logins[1:] {
		s.waitFor("the log-in of "+login[1], func() bool {
			c, err := popLogin(s.POP3, login[1], login[2])
			if err == nil {
				c.Close()
			}
			return err == nil
		})
	}
}
