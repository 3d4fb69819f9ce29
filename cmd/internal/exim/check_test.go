package exim

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"mailbag/cmd/internal/mta"
	eximtest "mailbag/testdata/exim"
)

func TestAsideTheAccountsMailIsPutOffWithoutAQuestion(t *testing.T) {
	t.Parallel()
	x, p := wired(t, nil)
	if o := done(t, x, verb{Do: "aside"}); o.Empty || !o.Reloaded {
		t.Errorf("%+v", o)
	}
	if err := x.Reload(); err != nil {
		t.Fatal(err)
	}
	if o := done(t, x, verb{Do: "aside"}); !o.Empty || o.Since.IsZero() {
		t.Errorf("%+v", o)
	}
	if o := done(t, x, verb{Do: "setup"}); !o.Empty || o.Since.IsZero() {
		t.Errorf("setup ends it: %+v", o)
	}
	s := dial(t, x, "")
	s.say("MAIL FROM:<s@elsewhere.example>", "250")
	s.say("RCPT TO:<a@turn.example>", "451 4.3.0 Mail for this domain is put off since 2026-01-02T03:04:05Z")
	s.say("RCPT TO:<x@local.example>", "250")
	s.data("250")
	s.say("ETRN turn.example", "458 4.3.0")
	p.mu.Lock()
	n := len(p.asked)
	p.mu.Unlock()
	if n > 0 {
		t.Errorf("asked %d times", n)
	}
	found := done(t, x, verb{Do: "check"}).Findings
	if len(found) == 0 || !strings.Contains(found[0].Text, "stands aside since 2026-01-02T03:04:05Z") {
		t.Errorf("%+v", found)
	}
	if o := done(t, x, verb{Do: "in"}); o.Empty {
		t.Error("there is nothing to end")
	}
	if err := x.Reload(); err != nil {
		t.Fatal(err)
	}
	s = dial(t, x, "")
	s.mail("a@turn.example")
	s.data("250")
}

func TestCheckNamesWhatIsMissing(t *testing.T) {
	t.Parallel()
	x, p := wired(t, nil)
	needs := mta.Needs{Domains: []string{"turn.example"}}
	faults := func() string {
		t.Helper()
		var out strings.Builder
		for _, f := range done(t, x, verb{Do: "check", Needs: needs}).Findings {
			if f.Severity == mta.Fault {
				fmt.Fprintln(&out, f.Text)
			}
		}
		return out.String()
	}
	if got := faults(); got != "" {
		t.Errorf("a sound Exim has faults:\n%s", got)
	}
	table := x.Root(tablesDirectory + "/routes.cdb")
	if err := os.Chmod(table, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, want := faults(), "the user Debian-exim may not read "+tablesDirectory+"/routes.cdb"; !strings.Contains(got, want) {
		t.Errorf("%s\nwant %s", got, want)
	}
	if err := os.Chmod(table, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(x.Root(policySocket), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, want := faults(), "the user Debian-exim may not connect to "+policySocket; !strings.Contains(got, want) {
		t.Errorf("%s\nwant %s", got, want)
	}
	p.stop()
	if got, want := faults(), "there is no socket "+policySocket; !strings.Contains(got, want) {
		t.Errorf("%s\nwant %s", got, want)
	}
	p.listen(t, x)
	needs.Domains = append(needs.Domains, "new.example", "local.example")
	if got := faults(); !strings.Contains(got, "routes.cdb has no new.example, local.example") || !strings.Contains(got, "the domain local.example is also in dc_other_hostnames") {
		t.Error(got)
	}
	needs.Domains = needs.Domains[:1]
	edit(t, x, "conf.d/acl/50_mailbag", func(s string) string { return s + "# by hand\n" })
	if got := faults(); !strings.Contains(got, "/etc/exim4/conf.d/acl/50_mailbag is not what mailbag needs") {
		t.Error(got)
	}
	edit(t, x, "conf.d/acl/50_mailbag", func(s string) string { return strings.TrimSuffix(s, "# by hand\n") })
	edit(t, x, "conf.d/main/00_private", func(s string) string { return s + "smtp_banner = x\n" })
	if got := faults(); !strings.Contains(got, "was not made of them since") {
		t.Error(got)
	}
	edit(t, x, "conf.d/acl/00_exim4-config_header", func(s string) string { return s + "acl_dummy:\n  accept\n" })
	edit(t, x, "conf.d/acl/30_exim4-config_check_rcpt", func(s string) string {
		return strings.Replace(s, "acl_check_rcpt:\n", "acl_check_rcpt:\n  deny\n    message = 550 nobody\n", 1)
	})
	if err := x.Reload(); err != nil {
		t.Fatal(err)
	}
	found := done(t, x, verb{Do: "check", Needs: needs}).Findings
	if len(found) == 0 || !strings.Contains(fmt.Sprint(found), "Exim refuses mail for postmaster@turn.example from outside (192.0.2.1): 550 nobody") {
		t.Errorf("%+v", found)
	}
}

func TestCheckNamesWhatWorksAgainstTheAccountsMail(t *testing.T) {
	t.Parallel()
	x, _ := wired(t, nil, func(x *eximtest.Instance) {
		edit(t, x, "conf.d/main/99_host", func(string) string { return "hold_domains = turn.example\nqueue_only\n" })
		edit(t, x, "conf.d/main/000_host", func(string) string { return "MAIN_ACL_CHECK_RCPT = nowhere\n" })
		edit(t, x, "conf.d/retry/05_host", func(string) string { return "turn.example  *  F,1h,5m\n" })
		edit(t, x, "conf.d/main/02_exim4-config_options", func(s string) string {
			return strings.Replace(s, "prdr_enable = true", "prdr_enable = false", 1)
		})
	})
	found := done(t, x, verb{Do: "check", Needs: mta.Needs{Domains: []string{"mx.example", "turn.example"}}}).Findings
	for _, want := range []string{
		"mail for turn.example that cannot be delivered is returned by a rule of the host's (Retry rule: turn.example  *  F,1h,5m;)",
		"hold_domains is set (turn.example)", "queue_only is set", "prdr_enable is off",
		"Exim refuses mail for postmaster@mx.example from outside (192.0.2.1): 451 Temporary local problem",
	} {
		if !strings.Contains(fmt.Sprint(found), want) {
			t.Errorf("no %q in %+v", want, found)
		}
	}
}

// The table is written some moments after an account was made.
func TestCheckAwaitsTheTable(t *testing.T) {
	t.Parallel()
	x, _ := wired(t, nil)
	watch, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err == nil {
		_, err = unix.InotifyAddWatch(watch, x.Root(tablesDirectory+"/routes.cdb"), unix.IN_CLOSE_NOWRITE)
	}
	if err != nil {
		t.Fatal(err)
	}
	events := os.NewFile(uintptr(watch), "inotify")
	defer events.Close()
	written := make(chan struct{})
	go func() {
		defer close(written)
		if _, err := events.Read(make([]byte, 4096)); err != nil { // until Exim has looked
			t.Error(err)
		}
		writeRoutes(t, x, map[string]string{"new.example": ways["mx.example"]})
	}()
	found := done(t, x, verb{Do: "check", Needs: mta.Needs{Domains: []string{"new.example"}}}).Findings
	<-written
	if strings.Contains(fmt.Sprint(found), "has no new.example") {
		t.Errorf("%+v", found)
	}
}

func TestAnswersAsksAsEximDoes(t *testing.T) {
	t.Parallel()
	x, p := wired(t, nil)
	if o := do(t, x, verb{Do: "answers"}); o.Err != "" {
		t.Error(o.Err)
	}
	// Where setup would have Exim ask, when it is elsewhere than now.
	const other = "/run/mailbag/other.sock"
	if o := do(t, x, verb{Do: "answers", Needs: mta.Needs{Policy: other}}); !o.Silent || !strings.Contains(o.Err, other) {
		t.Errorf("%+v", o)
	}
	if err := os.Rename(x.Root(policySocket), x.Root(other)); err != nil {
		t.Fatal(err)
	}
	if o := do(t, x, verb{Do: "answers", Needs: mta.Needs{Policy: other}}); o.Err != "" {
		t.Error(o.Err)
	}
	p.stop()
	if o := do(t, x, verb{Do: "answers"}); !o.Silent {
		t.Errorf("%+v", o)
	}
	p.listener, _ = net.Listen("unix", x.Path("unused"))
}
