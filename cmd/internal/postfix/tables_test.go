package postfix

import (
	"os"
	"slices"
	"strings"
	"testing"

	"mailbag/cmd/internal/mta"
	postfixtest "mailbag/testdata/postfix"
)

// replies are what smtpd says to each recipient, to a client of that address.
func replies(t *testing.T, p *postfixtest.Instance, source string, recipients ...string) []string {
	t.Helper()
	c, err := postfixtest.Dial(p.Addr(), source)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	commands := []string{"EHLO client.example", "MAIL FROM:<a@outside.example> SMTPUTF8"}
	for _, r := range recipients {
		commands = append(commands, "RCPT TO:<"+r+">")
	}
	var all []string
	for _, command := range commands {
		reply, err := c.Say(command)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, reply)
	}
	return all[2:]
}

func TestOthersMailNeedsNoPolicyService(t *testing.T) {
	t.Parallel()
	_, p, _ := provided(t, "", "", nil)
	runTap(t, p)
	start(t, p)
	got := replies(t, p, "127.0.0.2", "user@mx.provider.example", "user@elsewhere.example", "user@acme.example")
	if !strings.HasPrefix(got[0], "250") || !strings.HasPrefix(got[1], "250") || !strings.HasPrefix(got[2], "451 4.3.0") {
		t.Errorf("local, foreign and ours: %q", got)
	}
}

func TestARestartOfThePolicyServiceIsBridged(t *testing.T) {
	t.Parallel()
	_, p, _ := provided(t, "", "", nil)
	d := runDaemon(t, p)
	d.broken = 4
	start(t, p)
	if got := replies(t, p, "", "user@acme.example"); !strings.HasPrefix(got[0], "250") {
		t.Errorf("%q", got)
	}
	if n := d.count("RCPT user@acme.example"); n != 5 {
		t.Errorf("the policy service was asked %d times, want 5", n)
	}
}

// A bare cdb table would match the subdomains too.
func TestSubdomainsOfACustomersDomainAreNotRelayed(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{"default": "", "all parents": "parent_domain_matches_subdomains = relay_domains,smtpd_access_maps\n"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, p, _ := provided(t, text, "", nil)
			d := runDaemon(t, p)
			start(t, p)
			if got := replies(t, p, "", "user@sub.acme.example", "user@acme.example"); !strings.Contains(got[0], "Relay access denied") || !strings.HasPrefix(got[1], "250") {
				t.Errorf("subdomain and domain: %q", got)
			}
			if n := d.count("RCPT user@sub.acme.example"); n != 0 {
				t.Error("the policy service was asked about a subdomain")
			}
		})
	}
}

// However a recipient is written, what Postfix takes for ours passes our check, and nothing else does.
func TestEverySpellingOfARecipientIsChecked(t *testing.T) {
	t.Parallel()
	_, p, _ := provided(t, "swap_bangpath = yes\nallow_percent_hack = yes\nallow_untrusted_routing = yes\nrecipient_delimiter = +\nsmtputf8_enable = yes\n",
		"xn--bcher-kva.example discard:\nbücher.example discard:\n", nil)
	d := runDaemon(t, p)
	d.answer = func(map[string]string) string { return "550 5.1.1 ours" }
	start(t, p)
	ours := []string{"user@ACME.example", "user@acme.example.", `"us\ er"@acme.example`, "user+tag@acme.example", "user%acme.example@mx.provider.example",
		"acme.example!user", "@mx.provider.example:user@acme.example", "user@xn--bcher-kva.example", "user@bücher.example", "user@BÜCHER.example",
		`"user@acme.example"@mx.provider.example`} // see resolve_dequoted_address
	others := []string{"user@acme.example.org", "acme.example@mx.provider.example", "user@xacme.example"}
	got := replies(t, p, "127.0.0.2", slices.Concat(ours, others)...)
	for i, address := range ours {
		if !strings.HasPrefix(got[i], "550 5.1.1") {
			t.Errorf("%s passed our check by: %s", address, got[i])
		}
	}
	for i, address := range others {
		if strings.HasPrefix(got[len(ours)+i], "550 5.1.1") {
			t.Errorf("%s was taken for ours: %s", address, got[len(ours)+i])
		}
	}
}

func TestSetupNeedsTheTables(t *testing.T) {
	t.Parallel()
	in, p := configured(t, "compatibility_level = 3.6\n")
	before := shown(t, in)
	plan, err := in.Plan(t.Context(), mta.Needs{Tables: p.Path("none")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := plan.Apply(t.Context()); err == nil || !strings.Contains(err.Error(), "routes.cdb") {
		t.Errorf("error: %v", err)
	}
	if got := shown(t, in); got != before {
		t.Errorf("Postfix was changed:\n%s", got)
	}
	if found := check(t, in, mta.Needs{Tables: p.Path("none")}); !slices.ContainsFunc(found, func(f string) bool { return strings.Contains(f, "there is no file "+p.Path("none", "routes.cdb")) }) {
		t.Errorf("check does not miss the tables: %q", found)
	}
	for _, dir := range []tables{"", "relative", "/a b", "/a,b", "/a$b", "/a{b"} {
		if _, err := in.Plan(t.Context(), mta.Needs{Tables: string(dir)}); err == nil {
			t.Errorf("the directory %q is taken", dir)
		}
	}
}

func TestSetupRefusesAPostfixWithoutCDB(t *testing.T) {
	t.Parallel()
	in, p := configured(t, "compatibility_level = 3.6\n")
	meta := p.Path("meta")
	if err := os.Mkdir(meta, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"postfix-files", "postfix-script", "post-install"} {
		if text, err := os.ReadFile("/etc/postfix/" + name); err == nil {
			if err := os.WriteFile(meta+"/"+name, text, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	edit(t, in, "-e", "meta_directory="+meta)
	if _, err := in.Plan(t.Context(), wiring()); err == nil || !strings.Contains(err.Error(), "install the package postfix-cdb") {
		t.Errorf("error: %v", err)
	}
}
