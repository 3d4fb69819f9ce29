package e2e

import (
	"maps"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	postfixtest "mailbag/testdata/postfix"
)

// hostile is a main.cf in which outgoing mail is slowed down and another LMTP server is spoken to, all of it as
// far from what mailbag needs as it gets.
func hostile() map[string]string {
	settings := map[string]string{
		"default_destination_rate_delay":                      "2s",
		"default_transport_rate_delay":                        "2s",
		"default_destination_concurrency_limit":               "1",
		"default_destination_concurrency_positive_feedback":   "1/concurrency",
		"default_destination_concurrency_negative_feedback":   "0",
		"default_destination_concurrency_failed_cohort_limit": "0",
		"default_recipient_limit":                             "1",
		"default_delivery_slot_cost":                          "0",
		"initial_destination_concurrency":                     "1",

		"lmtp_tls_security_level":                "encrypt",
		"lmtp_tls_policy_maps":                   "static:encrypt",
		"lmtp_tls_per_site":                      "static:MUST",
		"lmtp_tls_wrappermode":                   "yes",
		"lmtp_tls_connection_reuse":              "yes",
		"lmtp_tls_block_early_mail_reply":        "yes",
		"lmtp_sasl_auth_enable":                  "yes", // and nothing to log in with
		"lmtp_send_dummy_mail_auth":              "yes",
		"lmtp_sender_dependent_authentication":   "yes",
		"lmtp_discard_lhlo_keywords":             "xforward, pipelining, 8bitmime, smtputf8, dsn, enhancedstatuscodes",
		"lmtp_discard_lhlo_keyword_address_maps": "static:xforward",
		"lmtp_connection_cache_destinations":     "static:all",
		"lmtp_connection_reuse_count_limit":      "1",
		"lmtp_quote_rfc821_envelope":             "no",
		"lmtp_assume_final":                      "yes",
		"lmtp_skip_5xx_greeting":                 "no",
		"lmtp_skip_quit_response":                "yes",
		"lmtp_fallback_relay":                    "[192.0.2.1]",
		"lmtp_line_length_limit":                 "80",
		"lmtp_per_request_deadline":              "yes",
		"lmtp_min_data_rate":                     "1000000",

		// Set on purpose, perhaps.
		"soft_bounce":                    "yes",
		"default_delivery_status_filter": "inline:{9.9.9=9.9.8}",
		"lmtp_reply_filter":              "regexp:{ {/^999 (.*)/ 998 $1} }",
		"lmtp_header_checks":             "regexp:{ {/^X-Nobody-Has-This:/ IGNORE} }",
		"disable_mime_output_conversion": "yes",
	}
	for _, moment := range []string{"connect", "lhlo", "xforward", "mail", "rcpt", "data_init", "data_xfer", "data_done", "rset", "quit", "starttls"} {
		settings["lmtp_"+moment+"_timeout"] = "1s"
	}
	return settings
}

// Whatever Postfix has been told about other mail, a turn gets all there is and a mailbox too.
func TestSettingsForOtherMailKeepNothingFromCustomers(t *testing.T) {
	s := beginPostfix(t, "the settings are Postfix's", postfixtest.Config{Main: hostile()}, nil)
	s.startTurns()
	s.must(s.Popd.Start())
	s.pop3("box", "box.example")
	acme, err := postfixtest.NewSink()
	s.must(err)
	acme.Extensions = postfixtest.Chunking
	var taken atomic.Int32
	acme.OnMessage = func(postfixtest.Message) string {
		if taken.Add(1) == 1 {
			<-time.After(3 * time.Second) // longer than any of the time limits
		}
		return ""
	}
	s.must(acme.Start())
	t.Cleanup(acme.Stop)
	s.dialled("acme", "acme.example", acme.Addr())

	s.hold(10, 2000, "acme.example")
	if reply := s.etrnAt(s.mta.Addr(), "acme.example"); !strings.HasPrefix(reply, "250") {
		t.Fatalf("ETRN: %s", reply)
	}
	s.waitFor("the end of the turn", func() bool {
		turns := s.turnsOf("acme")
		return len(turns) > 0 && turns[0].Outcome != ""
	})
	if turns := s.turnsOf("acme"); len(turns) != 1 || turns[0].Messages != 10 || turns[0].Outcome != "done" {
		t.Errorf("the turns are %+v, want one of 10 messages", turns)
	}
	s.wantEach(10, "acme.example", arrived(acme.Messages()), false)

	s.inject(10, 2000, "user@box.example")
	s.stored(s.maildir("box", ""), 10)
	s.waitFor("the queue is empty", func() bool { return s.queued() == 0 })

	findings, _ := s.check()
	for _, name := range []string{"soft_bounce", "lmtp_delivery_status_filter", "lmtp_reply_filter", "lmtp_header_checks", "disable_mime_output_conversion"} {
		if !strings.Contains(findings, "main.cf: "+name+" = ") {
			t.Errorf("check says nothing of %s", name)
		}
		findings = strings.ReplaceAll(findings, "main.cf: "+name+" = ", "")
	}
	for name := range maps.Keys(hostile()) {
		if strings.Contains(findings, "main.cf: "+name) {
			t.Errorf("check speaks of %s, which makes no difference:\n%s", name, findings)
		}
	}
}
