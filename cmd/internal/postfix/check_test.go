package postfix

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"mailbag/cmd/internal/mta"
	postfixtest "mailbag/testdata/postfix"
)

func check(t *testing.T, in Instance, w mta.Needs) []string {
	t.Helper()
	found, err := in.Check(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range found {
		if f.Remedy == "" {
			t.Errorf("no remedy for %q", f.Text)
		}
		out = append(out, string(f.Severity)+": "+f.Text)
	}
	return out
}

func TestCheckHasNothingToSayAfterSetup(t *testing.T) {
	t.Parallel()
	in, p := configured(t, "compatibility_level = 3.6\n")
	runDaemon(t, p)
	setUp(t, in, longHold())
	if found := check(t, in, longHold()); len(found) > 0 {
		t.Errorf("%s", strings.Join(found, "\n"))
	}
}

func TestCheckNamesEveryMissingPiece(t *testing.T) {
	t.Parallel()
	in, _ := configured(t, "compatibility_level = 3.6\n")
	found := strings.Join(check(t, in, longHold()), "\n")
	for _, name := range []string{"relay_domains", "transport_maps", "smtpd_recipient_restrictions", "smtpd_milters", "non_smtpd_milters",
		"smtpd_restriction_classes", "mailbag_recipients", "mailbag_etrn", "mailbag_milter", "fast_flush_domains",
		"smtpd_etrn_restrictions", "defer_transports", "maximal_queue_lifetime", "bounce_queue_lifetime", "unverified_recipient_reject_code", "smtp_tls_policy_maps",
		"mailbag-turn_destination_concurrency_limit", "mailbag-turn/unix", "mailbag-pop/unix", PolicySocket, MilterSocket} {
		if !strings.Contains(found, name) {
			t.Errorf("nothing is said of %s in\n%s", name, found)
		}
	}
}

// Each case edits a Postfix that was set up, and names what check then says in addition.
func TestCheckNamesWhatWorksAgainstTheWiring(t *testing.T) {
	t.Parallel()
	const reinject = "127.0.0.1:10026/inet"
	ours := "check_recipient_access " + noRoutes.recipients()
	cases := map[string]struct {
		main   string
		master []string // services, added with postconf -Me
		edit   []string // after setup, name=value for main.cf
		need   mta.Needs
		want   []string // severity and the start of the text
	}{
		"permits of every kind": {
			main: "smtpd_restriction_classes = mine\nmine = reject_unauth_destination, permit_tls_clientcerts\n" +
				"smtpd_recipient_restrictions = MINE, permit_mynetworks, $macro\nmacro = reject_unauth_destination permit\n",
		},
		"what may say OK": {
			main: "smtpd_recipient_restrictions = check_client_access hash:/x, inline:{localhost=OK}, check_policy_service inet:127.0.0.1:10023, permit_mynetworks\n",
			want: []string{`hint: smtpd_recipient_restrictions: "check_client_access hash:/x" stands before`,
				`hint: smtpd_recipient_restrictions: "inline:{localhost=OK}" stands before`,
				`hint: smtpd_recipient_restrictions: "check_policy_service inet:127.0.0.1:10023" stands before`},
		},
		"our check where nothing comes to it": {
			edit: []string{"smtpd_recipient_restrictions=permit_mynetworks, " + ours},
			want: []string{"fault: main.cf: smtpd_recipient_restrictions is not"},
		},
		"our check on trial": {
			edit: []string{"smtpd_recipient_restrictions=warn_if_reject " + ours},
			want: []string{"fault: main.cf: smtpd_recipient_restrictions is not"},
		},
		"our check as the operator moved it": {
			edit: []string{"smtpd_recipient_restrictions=" + ours + ", reject_unlisted_recipient, permit_mynetworks, reject_unlisted_recipient, reject"},
		},
		"a class before our check in master.cf, which is on trial": {
			main:   "smtpd_restriction_classes = mine\nmine = reject_unauth_destination, permit_tls_clientcerts\n",
			master: []string{"587/inet=587 inet n - y - - smtpd -o { smtpd_recipient_restrictions = mine, warn_if_reject " + ours + " }"},
			want: []string{`warning: master.cf: the service 587/inet: smtpd_recipient_restrictions: "permit_tls_clientcerts" stands before`,
				"warning: master.cf: the service 587/inet: smtpd_recipient_restrictions: warn_if_reject stands before our check"},
		},
		"a reject before our check in master.cf": {
			master: []string{"587/inet=587 inet n - y - - smtpd -o { smtpd_recipient_restrictions = reject, " + ours + " }"},
			want:   []string{`fault: master.cf: the service 587/inet: smtpd_recipient_restrictions: our check is never reached, because "reject"`},
		},
		"a permit before our check in master.cf": {
			master: []string{"587/inet=587 inet n - y - - smtpd -o { smtpd_recipient_restrictions = permit_mynetworks, " + ours + " }"},
			want:   []string{`warning: master.cf: the service 587/inet: smtpd_recipient_restrictions: "permit_mynetworks" stands before`},
		},
		"a permit before the check of an older wiring in master.cf": {
			master: []string{"587/inet=587 inet n - y - - smtpd -o { smtpd_recipient_restrictions = permit_mynetworks, " + formerRecipientCheck + " }"},
			want:   []string{`warning: master.cf: the service 587/inet: smtpd_recipient_restrictions: "permit_mynetworks" stands before`},
		},
		"a trailing permit in capitals": {
			main: "smtpd_recipient_restrictions = reject_unauth_destination, PERMIT\n",
		},
		"milters by client": {
			main: "smtpd_milter_maps = cidr:{ {192.0.2.1 DISABLE} }\n",
			want: []string{"warning: smtpd_milter_maps gives some clients other milters"},
		},
		"a milter behind the tap": {
			main: "non_smtpd_milters = $smtpd_milters, inet:127.0.0.1:2\n",
			want: []string{`warning: non_smtpd_milters: "inet:127.0.0.1:2" stands behind our milter`},
		},
		"bounces that pass milters": {
			main: "internal_mail_filter_classes = bounce\n",
			want: []string{"hint: internal_mail_filter_classes = bounce"},
		},
		"a submission service of its own": {
			main: "mua_recipient_restrictions = permit_sasl_authenticated,reject\n",
			master: []string{"submission/inet=submission inet n - y - - smtpd -o smtpd_recipient_restrictions=$mua_recipient_restrictions" +
				" -o smtpd_etrn_restrictions=reject"},
			want: []string{"warning: master.cf: the service submission/inet overrides smtpd_recipient_restrictions",
				"warning: master.cf: the service submission/inet overrides smtpd_etrn_restrictions"},
		},
		"a service with its own milters": {
			main:   "smtpd_milters = inet:127.0.0.1:1\n",
			master: []string{"587/inet=587 inet n - y - - smtpd -o smtpd_milters=inet:127.0.0.1:2", "588/inet=588 inet n - y - - smtpd -o receive_override_options=no_milters"},
			want: []string{"warning: master.cf: the service 587/inet overrides smtpd_milters",
				"warning: master.cf: the service 588/inet has receive_override_options=no_milters"},
		},
		"a content filter whose mail meets our check again": {
			main:   "content_filter = smtp:[127.0.0.1]:10025\n",
			master: []string{reinject + "=127.0.0.1:10026 inet n - y - - smtpd -o content_filter="},
			want:   []string{"warning: master.cf: mail comes back from a content filter through the service " + reinject + ", where our recipient check"},
		},
		"a content filter's service in brackets": {
			main:   "content_filter = smtp:[127.0.0.1]:10025\n",
			master: []string{"[127.0.0.1]:10026/inet=[127.0.0.1]:10026 inet n - y - - smtpd -o content_filter="},
			want:   []string{"warning: master.cf: mail comes back from a content filter through the service [127.0.0.1]:10026/inet, where our recipient check"},
		},
		"a content filter that is set up well": {
			main: "content_filter = smtp:[127.0.0.1]:10025\nsmtpd_milters = inet:127.0.0.1:1\n",
			master: []string{reinject + "=127.0.0.1:10026 inet n - y - - smtpd -o content_filter=" +
				" -o smtpd_recipient_restrictions=permit_mynetworks,reject"},
		},
		"a proxy filter whose mail passes the tap behind it": {
			main: "smtpd_proxy_filter = 127.0.0.1:10025\n",
			master: []string{reinject + "=127.0.0.1:10026 inet n - y - - smtpd -o smtpd_proxy_filter=" +
				" -o smtpd_recipient_restrictions=permit_mynetworks,reject"},
		},
		"a proxy filter whose mail passes no tap": {
			main: "smtpd_proxy_filter = 127.0.0.1:10025\n",
			master: []string{reinject + "=127.0.0.1:10026 inet n - y - - smtpd -o smtpd_proxy_filter= -o receive_override_options=no_milters" +
				" -o smtpd_recipient_restrictions=permit_mynetworks,reject"},
			want: []string{"fault: master.cf: mail passes smtpd_proxy_filter and comes back through the service " + reinject},
		},
		"warnings of delay": {
			main: "delay_warning_time = 4h\n",
			want: []string{"warning: main.cf: delay_warning_time = 4h"},
		},
		"settings for outgoing mail and for another LMTP server": {
			main: "default_destination_rate_delay = 2s\ndefault_transport_rate_delay = 2s\nlmtp_tls_security_level = encrypt\n" +
				"lmtp_discard_lhlo_keywords = xforward\nlmtp_sasl_auth_enable = yes\nlmtp_rcpt_timeout = 1s\ndefault_recipient_limit = 1\nsoft_bounce = NO\n",
		},
		"a trial": {
			main: "soft_bounce = yes\n",
			want: []string{"warning: main.cf: soft_bounce = yes: what a customer's server refuses"},
		},
		"changes to what LMTP delivers": {
			main: "default_delivery_status_filter = inline:{4.3.2=5.3.2}\nlmtp_reply_filter = regexp:/r\nlmtp_generic_maps = inline:{a=b}\n" +
				"lmtp_header_checks = regexp:/h\nlmtp_mime_header_checks = regexp:/m\nlmtp_nested_header_checks = regexp:/n\n" +
				"lmtp_body_checks = regexp:/b\ndisable_mime_output_conversion = yes\n",
			want: []string{"warning: main.cf: lmtp_delivery_status_filter = inline:{4.3.2=5.3.2}: mail that",
				"warning: main.cf: lmtp_reply_filter = regexp:/r: what a customer's server says",
				"warning: main.cf: lmtp_generic_maps = inline:{a=b}: held mail leaves with other addresses",
				"warning: main.cf: lmtp_header_checks = regexp:/h: customers get other content",
				"warning: main.cf: lmtp_mime_header_checks", "warning: main.cf: lmtp_nested_header_checks", "warning: main.cf: lmtp_body_checks",
				"hint: main.cf: disable_mime_output_conversion = yes"},
		},
		"a status filter for all but LMTP": {
			main: "default_delivery_status_filter = inline:{4.3.2=5.3.2}\nlmtp_delivery_status_filter =\n",
		},
		"our transports, changed by hand": {
			edit: []string{"mailbag-turn_destination_rate_delay=2s", "mailbag-pop_delivery_slot_cost=0"},
			want: []string{`fault: main.cf: mailbag-turn_destination_rate_delay is not what mailbag needs: it is "2s" and should be "0s"`,
				"hint: main.cf: mailbag-pop_delivery_slot_cost = 0 is for a transport of mailbag's"},
		},
		"a level that authenticates servers": {
			main: "smtp_tls_security_level = dane\nsmtp_tls_per_site = hash:/x\n",
			need: mta.Needs{RequireTLS: true},
			want: []string{"warning: smtp_tls_per_site is set", "warning: smtp_tls_security_level = dane authenticates servers"},
		},
		"a level that authenticates servers, with certificates verified": {
			main: "smtp_tls_security_level = dane\nsmtp_tls_CAfile = /x\n",
			need: mta.Needs{VerifyTLS: true},
		},
		"a relay to fall back on": {
			main: "smtp_fallback_relay = [spare.example]\n",
			need: mta.Needs{RequireTLS: true},
			want: []string{"warning: smtp_fallback_relay = [spare.example] gets"},
		},
		"TLS that nobody asks for": {
			main: "smtp_tls_security_level = secure\nsmtp_tls_per_site = hash:/x\n",
		},
		"no authorities": {
			need: mta.Needs{VerifyTLS: true},
			want: []string{"fault: smtp_tls_CAfile and smtp_tls_CApath are empty"},
		},
		"the system's authorities": {
			main: "tls_append_default_CA = yes\n",
			need: mta.Needs{VerifyTLS: true},
		},
		"a relay with TLS policies of its own": {
			master: []string{"relay/unix=relay unix - - y - - smtp -o smtp_tls_policy_maps=hash:/x -o smtp_tls_CApath=/x"},
			need:   mta.Needs{VerifyTLS: true},
			want:   []string{"fault: master.cf: the service relay/unix overrides smtp_tls_policy_maps"},
		},
		"our domain elsewhere": {
			main: "mydestination = localhost, Acme.Example\n",
			want: []string{"fault: the domain acme.example is also in mydestination"},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in, p := configured(t, "compatibility_level = 3.6\n"+c.main)
			runDaemon(t, p)
			w := c.need
			w.Tables = string(noRoutes)
			w.Domains = []string{"acme.example", "other.example"}
			if c.master != nil {
				edit(t, in, append([]string{"-Me"}, c.master...)...)
			}
			setUp(t, in, w)
			if c.edit != nil {
				edit(t, in, append([]string{"-e"}, c.edit...)...)
			}
			got := check(t, in, w)
			for _, want := range c.want {
				if !slices.ContainsFunc(got, func(g string) bool { return strings.HasPrefix(g, want) }) {
					t.Errorf("check does not say %q", want)
				}
			}
			if len(got) != len(c.want) {
				t.Errorf("%d findings, want %d:\n%s", len(got), len(c.want), strings.Join(got, "\n"))
			}
		})
	}
}

// A purge of the package, say, takes the socket of a transport from a Postfix that is still wired.
func TestCheckMissesTheSocketsOfOurTransportsWhilePostfixRuns(t *testing.T) {
	t.Parallel()
	p := postfixtest.Prepare(t, postfixtest.Config{})
	in := Instance{p.ConfigDir()}
	runDaemon(t, p)
	setUp(t, in, wiring())
	orphaned := func() bool {
		return strings.Contains(strings.Join(check(t, in, wiring()), "\n"), "fault: the transport mailbag-turn is in master.cf, and its socket")
	}
	if orphaned() {
		t.Error("sockets are missed of a Postfix that does not run")
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	if orphaned() {
		t.Error("sockets are missed that are there")
	}
	if err := os.Remove(p.Private("mailbag-turn")); err != nil {
		t.Fatal(err)
	}
	if !orphaned() {
		t.Error("nothing is said of a socket that is gone")
	}
}

func TestConflictsAreFoundInNamesFilesAndTables(t *testing.T) {
	t.Parallel()
	in, p := configured(t, "compatibility_level = 3.6\n")
	names, table, aliases := p.Path("names"), p.Path("table"), p.Path("aliases")
	for path, text := range map[string]string{
		names:   "# in-comment.example\nin-file.example\n",
		table:   "in-table.example x\n",
		aliases: "in-aliases.example anything\nuser@in-user.example other@x.example\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{table, aliases} {
		if _, err := in.run(t.Context(), "", "postmap", path); err != nil {
			t.Fatal(err)
		}
	}
	edit(t, in, "-e",
		fmt.Sprintf("mydestination=!not.example $myhostname, in-list.example, not.example, %s, hash:/nonexistent", names),
		"myhostname=in-macro.example",
		"virtual_alias_maps=hash:"+aliases,
		"virtual_mailbox_domains=hash:"+table+" inline:{in-inline.example=x, {in-group.example = y}} regexp:/nonexistent")
	got, err := in.Conflicts(t.Context(), "free.example", "in-macro.example", "in-list.example", "in-file.example", "in-comment.example", "not.example",
		"in-table.example", "in-aliases.example", "in-user.example", "in-inline.example", "in-group.example")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, k := range got {
		found = append(found, k.Parameter+" "+k.Domain)
	}
	slices.Sort(found)
	want := []string{"mydestination in-file.example", "mydestination in-list.example", "mydestination in-macro.example",
		"virtual_alias_domains in-aliases.example", "virtual_mailbox_domains in-group.example",
		"virtual_mailbox_domains in-inline.example", "virtual_mailbox_domains in-table.example"}
	if diff := cmp.Diff(want, found); diff != "" {
		t.Error(diff)
	}
}
