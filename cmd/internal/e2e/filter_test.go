package e2e

import (
	"net"
	"strings"
	"testing"

	postfixtest "mailbag/testdata/postfix"
)

// TestContentFilterCountsOnce has Postfix hand every message to a filter, which sends it in again on
// a second smtpd: FILTER_README's advanced content filter.
func TestContentFilterCountsOnce(t *testing.T) {
	for name, options := range map[string][]string{
		"as FILTER_README says": {
			"content_filter=", "smtpd_recipient_restrictions=permit_mynetworks,reject", "mynetworks=127.0.0.0/8",
			"smtpd_end_of_data_restrictions=", "smtpd_milters=", "smtpd_relay_restrictions=permit_mynetworks,reject",
		},
		"with all milters again": {
			"content_filter=", "smtpd_recipient_restrictions=permit_mynetworks,reject", "mynetworks=127.0.0.0/8",
		},
	} {
		t.Run(name, func(t *testing.T) {
			var again string
			s := beginPostfix(t, "content_filter is Postfix's", postfixtest.Config{}, func(in *postfixtest.Instance) {
				var err error
				if again, err = in.AddSMTPD(options...); err != nil {
					t.Fatal(err)
				}
				filter := startFilter(t, again)
				if err := in.Set("content_filter", "smtp:["+host(filter)+"]:"+port(filter)); err != nil {
					t.Fatal(err)
				}
			})
			s.etrn("acme", "acme.example")
			data, size := letter("filtered", 4)
			s.accept(data, "a@acme.example", "b@acme.example")
			s.accept(data, "a@acme.example")
			s.must(s.mta.WaitQueue("both came through the filter and wait", func(q []postfixtest.Entry) bool {
				return len(q) == 2 && allHeld(q)
			}))
			s.wantUsage("acme", used{2, 2 * size})
			if findings, _ := s.check(); strings.Contains(findings, port(again)) {
				t.Errorf("postfix check says of the second smtpd on %s:\n%s", again, findings)
			}
		})
	}
}

// startFilter is the content filter: it sends in again what it gets, unchanged.
func startFilter(t *testing.T, again string) string {
	t.Helper()
	sink, err := postfixtest.NewSink()
	if err != nil {
		t.Fatal(err)
	}
	sink.OnMessage = func(m postfixtest.Message) string {
		outcome, err := postfixtest.Send(again, "", postfixtest.Mail{From: m.From, To: m.Recipients, Data: m.Data})
		if err != nil || !outcome.Accepted() {
			t.Logf("the second smtpd said %+v, %v", outcome, err)
			return "451 4.3.0 try again"
		}
		return ""
	}
	if err := sink.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sink.Stop)
	return sink.Addr()
}

func host(addr string) string {
	h, _, _ := net.SplitHostPort(addr)
	return h
}

func port(addr string) string {
	_, p, _ := net.SplitHostPort(addr)
	return p
}
