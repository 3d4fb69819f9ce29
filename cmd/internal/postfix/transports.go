package postfix

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"mailbag/cmd/internal/mta"
)

// Our two transports inherit every default_* and lmtp_* parameter of main.cf. Operators set these for mail that goes out
// or for another LMTP server, such as Dovecot's; what would stop, slow or cut the way to our sockets is therefore said
// for our transports by themselves. Inherited remains what makes no difference at a unix socket, and what Check names.

const (
	turnTransport = "mailbag-turn"
	popTransport  = "mailbag-pop"
)

// An option is a parameter and its value for our transports.
type option struct{ name, value string }

// queueing is what qmgr(8) reads, in main.cf, as TRANSPORT_NAME. The values are Postfix's own.
var queueing = []option{
	// Usual for outgoing mail: one message in so much time, for a turn and for all mailboxes together.
	{"destination_rate_delay", "0s"},
	{"transport_rate_delay", "0s"},
	// How the number of connections falls and rises after failures, and how many end the attempts.
	{"destination_concurrency_positive_feedback", "1"},
	{"destination_concurrency_negative_feedback", "1"},
	{"destination_concurrency_failed_cohort_limit", "1"},
}

// client is what lmtp(8) gets for both transports, in master.cf. The timeouts are Postfix's own.
var client = []option{
	// What was counted is what is delivered, with lines as long as they are.
	{"lmtp_line_length_limit", "0"},
	// What listens is a socket on this machine, without TLS and without log-ins.
	{"lmtp_tls_security_level", "none"},
	// With a policy map lmtp_tls_per_site counts no more; from 3.10 on Postfix warns wherever that is set, also to nothing.
	{"lmtp_tls_policy_maps", "static:none"},
	{"lmtp_tls_wrappermode", "no"},
	{"lmtp_sasl_auth_enable", "no"},
	// Our daemons offer what they need: XFORWARD tells them of which message they hear, DSN what the sender wants to know.
	{"lmtp_discard_lhlo_keywords", ""},
	{"lmtp_discard_lhlo_keyword_address_maps", ""},
	{"lmtp_quote_rfc821_envelope", "yes"},
	// With any other a full backlog is an error and not a wait.
	{"lmtp_connect_timeout", "0s"},
	{"lmtp_lhlo_timeout", "300s"},
	{"lmtp_mail_timeout", "300s"},
	{"lmtp_rcpt_timeout", "300s"},
	{"lmtp_data_init_timeout", "120s"},
	{"lmtp_rset_timeout", "20s"},
	{"lmtp_quit_timeout", "300s"},
	// The time limits are for a silence, not for all of a large message on a slow line.
	{"lmtp_per_request_deadline", "no"},
	{"lmtp_per_record_deadline", "no"}, // its name before Postfix 3.7
	// The watchdog of Postfix's processes: longer than a message may take.
	{"daemon_timeout", "18000s"},
}

// turnClient is for mail that passes a turn to the customer's server, which may be slow.
var turnClient = []option{
	{"lmtp_send_xforward_command", "yes"},
	{"lmtp_xforward_timeout", "300s"},
	// To scache(8) and back takes longer than a new connection.
	{"lmtp_connection_cache_on_demand", "no"},
	{"lmtp_connection_cache_destinations", ""},
	// What waits for its turn is in no log of fast_flush_domains.
	{"fast_flush_domains", ""},
	// A server without DSN is not the last one; a sender is told that the message was relayed.
	{"lmtp_assume_final", "no"},
	{"lmtp_data_xfer_timeout", "3600s"},
	{"lmtp_data_done_timeout", "3600s"},
}

var popClient = []option{
	{"lmtp_data_xfer_timeout", "180s"},
	{"lmtp_data_done_timeout", "600s"},
}

// entries are our services in master.cf, by their ID. They are not chrooted, because their sockets are elsewhere;
// maxproc 0 lets every open turn have its processes. What this Postfix does not know it warns of, and so it is left out.
func (c configuration) entries() map[string]string {
	entry := func(name, maxproc string, own []option) string {
		text := name + " unix - - n - " + maxproc + " lmtp"
		for _, o := range slices.Concat(client, own) {
			if _, known := c.defaults[o.name]; known {
				text += " -o " + o.name + "=" + o.value
			}
		}
		return text
	}
	return map[string]string{
		turnTransport + "/unix": entry(turnTransport, "0", turnClient),
		popTransport + "/unix":  entry(popTransport, "-", popClient),
	}
}

const (
	elsewhere    = "take it out of main.cf, and in master.cf give it with -o to the services that it is meant for"
	otherContent = "customers get other content than was accepted and counted"
)

// deliberate is what is set for other mail, or for a trial, and changes what becomes of held mail. Whether that is meant
// only the operator knows.
var deliberate = []struct {
	severity     mta.Severity
	name, unset  string
	effect, cure string
}{
	{mta.Warning, "soft_bounce", "no", "what a customer's server refuses for good stays in the queue and comes to each of its turns until its hold time ends",
		"set it to no when the trial is over"},
	{mta.Warning, "lmtp_delivery_status_filter", "", "mail that a customer's server refuses or puts off may stay where it should go back, or go back where it should wait",
		"set lmtp_delivery_status_filter to nothing, for otherwise it is default_delivery_status_filter; in master.cf give it with -o to the services that it is meant for"},
	{mta.Warning, "lmtp_reply_filter", "", "what a customer's server says of held mail is taken for something else: mail may be lost, go back or come twice", elsewhere},
	{mta.Warning, "lmtp_generic_maps", "", "held mail leaves with other addresses than it came with, and a turn takes only those of its account", elsewhere},
	{mta.Warning, "lmtp_header_checks", "", otherContent, elsewhere},
	{mta.Warning, "lmtp_mime_header_checks", "", otherContent, elsewhere},
	{mta.Warning, "lmtp_nested_header_checks", "", otherContent, elsewhere},
	{mta.Warning, "lmtp_body_checks", "", otherContent, elsewhere},
	{mta.Hint, "disable_mime_output_conversion", "no", "a customer's server without 8BITMIME gets 8-bit mail as it is", "set it to no, unless that is meant"},
}

// inherited names what our transports get from main.cf that setup leaves to the operator.
func inherited(c configuration) []mta.Finding {
	var out []mta.Finding
	for _, d := range deliberate {
		if value := c.expanded[d.name]; !strings.EqualFold(value, d.unset) {
			out = append(out, finding(d.severity, fmt.Sprintf("main.cf: %s = %s: %s", d.name, value, d.effect), d.cure))
		}
	}
	ours := parameters(mta.Needs{}, time.Time{})
	for _, name := range slices.Sorted(maps.Keys(c.explicit)) {
		mine := strings.HasPrefix(name, turnTransport+"_") || strings.HasPrefix(name, popTransport+"_")
		if mine && !slices.ContainsFunc(ours, func(p parameter) bool { return p.name == name }) {
			out = append(out, hint(fmt.Sprintf("main.cf: %s = %s is for a transport of mailbag's, and not by mailbag", name, c.explicit[name]),
				"take it out, unless it is meant: postconf -X "+name))
		}
	}
	return out
}
