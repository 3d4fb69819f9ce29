package main

import (
	"encoding/json"
	"image/color"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// settingFor is what the sheet of an account says for a program.
func (w *workplace) settingFor(account, program string) string {
	w.t.Helper()
	var s customerSheet
	if err := json.Unmarshal([]byte(w.must("account", "sheet", account, "--json")), &s); err != nil {
		w.t.Fatal(err)
	}
	for _, setting := range s.Settings {
		if setting.Title == program {
			return setting.Text
		}
	}
	w.t.Fatalf("the sheet of %s has nothing for %s", account, program)
	return ""
}

// TestFetchmailReadsWhatTheSheetSays has fetchmail itself read the settings for each kind of account.
func TestFetchmailReadsWhatTheSheetSays(t *testing.T) {
	t.Parallel()
	fetchmail, err := exec.LookPath("fetchmail")
	if err != nil {
		t.Skip("fetchmail is not installed; make deps installs it")
	}
	w := newWorkplace(t, storyMail{})
	w.must("account", "add", "acme", "--mode", "backup", "--domain", "acme.example", "--network", "192.0.2.1")
	w.must("account", "add", "bolt", "--mode", "etrn", "--domain", "bolt.example", "--host", "h", "--network", "192.0.2.1")
	w.must("account", "add", "corp", "--mode", "atrn", "--domain", "corp.example", "--domain", "corp.test", "--generate-password")
	w.must("account", "add", "dent", "--mode", "pop3", "--domain", "dent.example", "--generate-password")
	w.must("account", "add", "ford", "--mode", "pop3", "--domain", "ford.example", "--catch-all", "no")
	w.must("mailbox", "add", "ford", "a@ford.example", "--generate-password")
	w.must("mailbox", "add", "ford", "b@ford.example", "--generate-password")
	for account, want := range map[string][]string{
		"acme": {"Protocol is ETRN", "Domains for which mail will be fetched are: acme.example"},
		"bolt": {"Protocol is ETRN", "Domains for which mail will be fetched are: bolt.example"},
		"corp": {"Protocol is ODMR (using service 366)", "Domains for which mail will be fetched are: corp.example corp.test", "Messages will be SMTP-forwarded to: localhost"},
		"dent": {"Protocol is POP3 (using service 110)", "Multi-drop mode", "Envelope header is assumed to be: X-Envelope-To", "Host part of MAIL FROM line will be", "Local domains: dent.example"},
		"ford": {"Options for retrieving from a@ford.example@", "Options for retrieving from b@ford.example@", "Address to be put in RCPT TO lines shipped to SMTP will be b@ford.example"},
	} {
		rc := w.path(account + ".fetchmailrc")
		if err := os.WriteFile(rc, []byte(w.settingFor(account, "Fetchmail")), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(fetchmail, "--version", "-f", rc)
		cmd.Env = append(os.Environ(), "HOME="+w.dir, "FETCHMAILHOME="+w.dir, "LC_ALL=C")
		out, err := cmd.CombinedOutput()
		if err != nil || strings.Contains(string(out), "warning") {
			t.Errorf("%s: fetchmail: %v\n%s", account, err, out)
		}
		for _, line := range want {
			if !strings.Contains(string(out), line) {
				t.Errorf("%s: fetchmail does not understand %q:\n%s", account, line, out)
			}
		}
	}
}

func TestSheetIsSeenInABrowser(t *testing.T) {
	t.Parallel()
	w := newWorkplace(t, storyMail{})
	w.must("account", "add", "corp", "--mode", "atrn", "--domain", "corp.example", "--generate-password")
	file := w.path("sheet.html")
	if err := os.WriteFile(file, []byte(w.must("account", "sheet", "corp", "--html")), 0o644); err != nil {
		t.Fatal(err)
	}
	if found := elsewhere.FindString(read(t, file)); found != "" {
		t.Errorf("the page has %q in it", found)
	}
	shot := screenshot(t, file)
	if boxes := pixels(shot, color.RGBA{0xf3, 0xf6, 0xf9, 0xff}); boxes < 100_000 {
		t.Errorf("the browser shows %d pixels of the settings' background", boxes)
	}
}
