package e2e

import (
	"crypto/tls"
	"net"
	"strings"
	"testing"

	"mailbag/policy/routes"
	"mailbag/testdata/certificate"
	postfixtest "mailbag/testdata/postfix"
)

// Postfix's own level is none here: what an account demands is more than what the machine does for others.
func TestMailLeavesWithTheTLSThatItsAccountDemands(t *testing.T) {
	s := beginPostfix(t, "what is asked of the server is Postfix's policy table", postfixtest.Config{Main: postfixtest.Restless(),
		Hosts: map[string]string{"mail.acme.example": "127.0.0.1", "mail.globex.example": "127.0.0.1"}}, nil)
	shown := certificate.New(t, "mail.acme.example")
	server := sink(t)
	_, port, err := net.SplitHostPort(server.Addr())
	s.must(err)
	put := func(account, domain, host, level string) {
		s.account(account, "backup", domain, "--host", net.JoinHostPort(host, port), "--tls", level)
	}
	waitsFor := func(address, reason string) {
		t.Helper()
		s.must(s.mta.WaitQueue(address+" waits: "+reason, func(q []postfixtest.Entry) bool {
			for _, e := range q {
				if len(e.Recipients) == 1 && e.Recipients[0].Address == address && strings.Contains(e.Recipients[0].DelayReason, reason) {
					return true
				}
			}
			return false
		}))
	}
	arrives := func(n int) {
		t.Helper()
		messages, err := server.WaitMessages(n)
		s.must(err)
		if len(messages) != n || messages[n-1].TLS == "" {
			t.Errorf("%d messages arrived, want %d; the last by %q", len(messages), n, messages[n-1].TLS)
		}
	}

	// As long as Postfix is not set up for it, that is a fault.
	put("acme", "acme.example", "mail.acme.example", "require")
	if findings, _ := s.check(); !strings.Contains(findings, "fault: main.cf: smtp_tls_policy_maps") {
		t.Errorf("check does not miss the policy:\n%s", findings)
	}
	s.must(s.Wire())
	s.must(s.mta.Reload())

	// Without STARTTLS nothing is delivered, and with it whatever the certificate.
	s.accept("Subject: required\r\n\r\n", "a@acme.example")
	waitsFor("a@acme.example", "TLS is required, but was not offered")
	s.must(s.mta.WaitLog("TLS is required, but was not offered"))
	server.Stop()
	server.TLS = &tls.Config{Certificates: []tls.Certificate{shown.Pair}}
	s.must(server.Start())
	arrives(1)

	// The same certificate is worth nothing to who verifies it, until its authority is trusted, and then for its own
	// name alone.
	s.mailbag("account", "set", "acme", "--tls", "verify")
	put("globex", "globex.example", "mail.globex.example", "verify")
	if findings, _ := s.check(); !strings.Contains(findings, "fault: smtp_tls_CAfile and smtp_tls_CApath are empty") {
		t.Errorf("check does not miss the authorities:\n%s", findings)
	}
	authorities := s.mta.Path("authorities.pem")
	certificate.New(t, "elsewhere.example").Write(t, authorities, "")
	s.must(s.postfix.Set("smtp_tls_CAfile", authorities))
	s.waitFor("the policy is in force", func() bool {
		return s.lookup(routes.TLS, "[mail.acme.example]:"+port) == "secure match=mail.acme.example"
	})
	s.must(s.mta.Reload())
	s.accept("Subject: verified\r\n\r\n", "b@acme.example")
	waitsFor("b@acme.example", "Server certificate not verified")
	shown.Write(t, authorities, "")
	s.must(s.mta.Reload())
	arrives(2)
	s.accept("Subject: another name\r\n\r\n", "c@globex.example")
	waitsFor("c@globex.example", "Server certificate not verified")
}
