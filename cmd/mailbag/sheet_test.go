package main

import (
	"encoding/json"
	"fmt"
	"image/color"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rivo/uniseg"
	"pgregory.net/rapid"

	"mailbag/testdata/peer"
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
	w.must("mailbox", "add", "dent", `"arthur d"@dent.example`, "--generate-password")
	w.must(append([]string{"account", "add", "many", "--mode", "pop3", "--generate-password"}, manyDomains(45)...)...)
	w.must("account", "add", "ford", "--mode", "pop3", "--domain", "ford.example", "--catch-all", "no")
	w.must("mailbox", "add", "ford", "a@ford.example", "--generate-password")
	w.must("mailbox", "add", "ford", "b@ford.example", "--generate-password")
	for account, want := range map[string][]string{
		"acme": {"Protocol is ETRN", "Domains for which mail will be fetched are: acme.example"},
		"bolt": {"Protocol is ETRN", "Domains for which mail will be fetched are: bolt.example"},
		"corp": {"Protocol is ODMR (using service 366)", "Domains for which mail will be fetched are: corp.example corp.test", "Messages will be SMTP-forwarded to: localhost"},
		"dent": {"Protocol is POP3 (using service 110)", "Multi-drop mode", "Envelope header is assumed to be: X-Envelope-To", "Host part of MAIL FROM line will be", "Local domains: dent.example",
			`Options for retrieving from "arthur d"@dent.example@`, `Address to be put in RCPT TO lines shipped to SMTP will be "arthur d"@dent.example`},
		"many": {"branch-office-0.customer.example branch-office-1.customer.example", strings.Repeat("long", 15) + ".example"},
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

// TestPostfixKeepsWhatItHadBesideTheSheet has a customer's settings, and postconf(1) itself, do what the sheet says.
func TestPostfixKeepsWhatItHadBesideTheSheet(t *testing.T) {
	t.Parallel()
	postconf, err := exec.LookPath("postconf")
	if err != nil {
		t.Skip("Postfix is not installed; make deps installs it")
	}
	w := manySheets(t)
	for account, want := range map[string][]string{
		"acme": {"mydestination = $myhostname, own.example, acme.example, branch-office-0.customer.example,", "xn--bcher-acme-9db.example\n",
			"smtpd_recipient_restrictions = check_client_access inline:{ mx.very-long-", "=permit_auth_destination }, check_sender_access inline:{ enemy.example = reject }, reject_unauth_pipelining\n",
			"mynetworks = 192.0.2.0/24\n"},
		"dent": {"mydestination = $myhostname, own.example, dent.example, xn--bcher-dent-9db.example\n",
			"smtpd_recipient_restrictions = check_sender_access inline:{ enemy.example = reject }, reject_unauth_pipelining\n",
			"mynetworks = 192.0.2.0/24, 127.0.0.0/8, [::1]/128\n"},
	} {
		dir := t.TempDir()
		text := "mydestination = $myhostname,\n    own.example\nmynetworks = 192.0.2.0/24\n" +
			"smtpd_recipient_restrictions = check_sender_access inline:{ enemy.example = reject },\n    reject_unauth_pipelining\n"
		for name, text := range map[string]string{"main.cf": text, "master.cf": ""} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		commands, found := strings.CutSuffix(w.settingFor(account, "Postfix"), "postfix reload\n")
		if !found {
			t.Errorf("%s: Postfix is not reloaded", account)
		}
		run := func(command string) string {
			cmd := exec.Command("sh", "-e", "-c", command)
			cmd.Env = []string{"MAIL_CONFIG=" + dir, "PATH=" + filepath.Dir(postconf) + ":/usr/bin:/bin"}
			out, err := cmd.CombinedOutput()
			if err != nil || strings.Contains(string(out), "warning") {
				t.Errorf("%s: %v\n%s", account, err, out)
			}
			return string(out)
		}
		run(commands)
		has := run("postconf mydestination smtpd_recipient_restrictions mynetworks")
		for _, line := range want {
			if !strings.Contains(has, line) {
				t.Errorf("%s: Postfix does not have %q:\n%s", account, line, has)
			}
		}
	}
}

// addedToAList is what the sheet adds to one of Exim's lists.
var addedToAList = regexp.MustCompile(`(?m)^    :.*\n(        .*\n)*`)

// TestEximReadsWhatTheSheetSays has Exim itself look addresses up in a customer's lists, to which the sheet's lines were added.
func TestEximReadsWhatTheSheetSays(t *testing.T) {
	t.Parallel()
	peer.RequireExim(t)
	w := manySheets(t)
	const domain, host = "${if match_domain{%s}{+local_domains}{yes}{no}}", "${if match_ip{%s}{+relay_from_hosts}{yes}{no}}"
	for account, want := range map[string]map[string]string{
		"acme": {
			fmt.Sprintf(domain, "own.example"): "yes", fmt.Sprintf(domain, "acme.example"): "yes", fmt.Sprintf(domain, "xn--bcher-acme-9db.example"): "yes",
			fmt.Sprintf(domain, "branch-office-41.customer.example"): "yes", fmt.Sprintf(domain, "elsewhere.example"): "no", fmt.Sprintf(host, "127.0.0.1"): "no",
		},
		"dent": {
			fmt.Sprintf(domain, "own.example"): "yes", fmt.Sprintf(domain, "dent.example"): "yes",
			fmt.Sprintf(host, "127.0.0.1"): "yes", fmt.Sprintf(host, "::1"): "yes", fmt.Sprintf(host, "192.0.2.1"): "yes", fmt.Sprintf(host, "192.0.2.2"): "no",
		},
	} {
		text := w.settingFor(account, "Exim")
		added := append(addedToAList.FindAllString(text, -1), "\n")
		_, acl, pushed := strings.Cut(text, "\naccept ")
		configuration := "domainlist local_domains = own.example" + added[0] + "hostlist relay_from_hosts = 192.0.2.1" + added[1] +
			"acl_smtp_rcpt = acl_check_rcpt\nbegin acl\nacl_check_rcpt:\n"
		if pushed {
			configuration += "accept " + acl
		}
		for expression, answer := range want {
			if got := peer.EximExpands(t, configuration, expression); got != answer {
				t.Errorf("%s: Exim makes %q of %s, want %q; it reads\n%s", account, got, expression, answer, configuration)
			}
		}
	}
}

func TestSheetsOfManyDomainsAreShort(t *testing.T) {
	t.Parallel()
	w := manySheets(t)
	sheet := w.must("account", "sheet", "acme")
	if n := strings.Count(sheet, " IN MX "); n != 2 {
		t.Errorf("the sheet of 45 domains has %d MX records, want 2 that are for all of them", n)
	}
}

// TestSheetsFitATerminal takes long lines where a record of a zone is, or a long word with no more than a name before it.
func TestSheetsFitATerminal(t *testing.T) {
	t.Parallel()
	w := manySheets(t)
	for _, account := range []string{"acme", "bolt", "corp", "dent"} {
		for line := range strings.Lines(w.must("account", "sheet", account)) {
			longest := 0
			for _, word := range strings.Fields(line) {
				longest = max(longest, uniseg.StringWidth(word))
			}
			width := uniseg.StringWidth(strings.TrimSuffix(line, "\n"))
			if width > sheetWidth && width-longest > len("Monthly limit     ") && !strings.Contains(line, " IN MX ") {
				t.Errorf("%s: the line is %d columns wide: %s", account, width, line)
			}
		}
	}
}

func TestWrappingKeepsEveryWord(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		words := rapid.SliceOfN(rapid.StringMatching(`[xü例.]{1,60}`), 1, 40).Draw(t, "words")
		for name, text := range map[string]string{
			"wrapped": wrapped("# ", "# ", strings.Join(words, " ")),
			"listed":  listed("list = ", "    ", ", ", " \\", words) + "\n",
		} {
			var got []string
			for line := range strings.Lines(text) {
				fields := strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune("#=,\\ \n", r) })
				fields = slices.DeleteFunc(fields, func(f string) bool { return f == "list" && len(got) == 0 && name == "listed" })
				if width := uniseg.StringWidth(strings.TrimSuffix(line, "\n")); width > sheetWidth && len(fields) > 1 {
					t.Fatalf("%s: a line of several words is %d columns wide: %q", name, width, line)
				}
				got = append(got, fields...)
			}
			if !slices.Equal(got, words) {
				t.Fatalf("%s: the words became %q", name, got)
			}
		}
	})
}
