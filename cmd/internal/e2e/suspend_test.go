package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	mtatest "mailbag/testdata/mta"
	postfixtest "mailbag/testdata/postfix"
)

// TestASuspendedAccountHearsSoAndKeepsItsMail suspends customers of both kinds that fetch, and lets them try.
func TestASuspendedAccountHearsSoAndKeepsItsMail(t *testing.T) {
	s := begin(t, mtatest.Config{})
	s.must(s.Turnd.Start())
	bolt, corp := postfixtest.RunSink(t), postfixtest.RunSink(t)
	s.account("bolt", "etrn", "bolt.example", "--host", bolt.Addr(), "--network", "127.0.0.1")
	s.withPassword("corp", "--mode", "atrn", "--domain", "corp.example")
	s.waits(1, "a@bolt.example")
	s.waits(1, "b@corp.example")
	fetch := func(account string) string {
		at := map[string]string{"bolt": s.mta.Addr(), "corp": s.ODMR}[account]
		out, _ := s.bySheet(account, "poll mx.provider.example", "poll "+host(at), "protocol etrn", "protocol etrn port "+port(s.mta.Addr()),
			"PASSWORD", sheetPassword, "smtphost localhost", "smtphost "+host(corp.Addr())+"/"+port(corp.Addr()))
		return out
	}
	for account, want := range map[string]string{
		"bolt": by("Etrn command rejected: ", "459 4.7.1 ") + "Service for this domain is suspended, please call your provider",
		"corp": "Service is suspended, please call your provider",
	} {
		s.mailbag("account", "suspend", account)
		s.waitFor("new mail for "+account+" is deferred", func() bool {
			outcome := s.send("x@elsewhere.example", "Subject: new\r\n\r\n", "a@"+account+".example")
			return strings.HasPrefix(outcome.Recipients[0], "450 4.2.1 ")
		})
		if account == "corp" { // mailbag-turnd follows the ledger by itself
			s.waitFor("mailbag-turnd to know that corp is suspended", func() bool {
				c := s.caller("corp", corp.Addr(), "elsewhere.example") // which brings nothing in any case
				c.Password = sheetPassword
				reply, err := c.Run(s.soon())
				return strings.Contains(fmt.Sprint(reply, err), "suspended")
			})
		}
		if out := fetch(account); !strings.Contains(out, want) {
			t.Errorf("%s is not told %q:\n%s", account, want, out)
		}
	}
	if out := s.mailbag("expire"); out != "" {
		t.Errorf("mail was returned: %s", out)
	}
	if n := s.queued(); n < 2 || len(bolt.Messages())+len(corp.Messages()) > 0 {
		t.Errorf("%d messages are left, %d were delivered", n, len(bolt.Messages())+len(corp.Messages()))
	}
	for account, server := range map[string]*postfixtest.Sink{"bolt": bolt, "corp": corp} {
		s.mailbag("account", "resume", account)
		s.waitFor(account+" fetches again", func() bool {
			fetch(account)
			_, err := server.MessagesWithin(2*time.Second, 1)
			return err == nil
		})
	}
}
