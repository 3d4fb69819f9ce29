package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	postfixtest "mailbag/testdata/postfix"
)

// fetchmail runs the settings that an account's sheet has for it, once, with these pieces replaced: a host that
// only the story knows, a password that no sheet shows.
func (s *story) fetchmail(account string, replace ...string) (string, error) {
	s.t.Helper()
	var sheet struct {
		Settings []struct{ Title, Text string }
	}
	s.must(json.Unmarshal([]byte(s.mailbag("account", "sheet", account, "--json")), &sheet))
	home := s.t.TempDir()
	rc := home + "/fetchmailrc"
	s.must(os.WriteFile(rc, []byte(strings.NewReplacer(replace...).Replace(sheet.Settings[0].Text)), 0o600))
	cmd := exec.Command("fetchmail", "-v", "-d", "0", "-f", rc, "--pidfile", home+"/pid")
	cmd.Env = append(os.Environ(), "HOME="+home, "FETCHMAILHOME="+home, "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestFetchmailOfABackupCustomersSheetFlushes has the customer's server come back, and ask for what waits.
func TestFetchmailOfABackupCustomersSheetFlushes(t *testing.T) {
	s := begin(t, postfixtest.Config{}, nil)
	server, err := postfixtest.NewSink()
	s.must(err)
	t.Cleanup(server.Stop)
	s.account("acme", "backup", "acme.example", "--host", server.Addr(), "--network", "127.0.0.1")
	s.waits(2, "a@acme.example")
	s.must(server.Start())
	out, err := s.fetchmail("acme", "poll mx.provider.example", "poll "+host(s.postfix.Addr()), "protocol etrn", "protocol etrn port "+port(s.postfix.Addr()))
	if err != nil {
		t.Fatalf("fetchmail: %v\n%s", err, out)
	}
	_, err = server.WaitMessages(20*time.Second, 2)
	s.must(err)
}
