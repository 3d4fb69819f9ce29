package postfix

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"mailbag/cmd/internal/mta"
)

// Sockets in private/ of the queue directory. Names are relative, because smtpd is chrooted.
const (
	PolicySocket = "private/mailbag-policy"
	MilterSocket = "private/mailbag-milter"
)

const tlsPolicyMaps = "smtp_tls_policy_maps"

// A parameter is one line of main.cf that we have a part in.
type parameter struct {
	name  string
	ours  bool     // the whole line, which is by a name of our own
	parts []string // list entries of ours, of older versions too, to be found again when somebody else edited the line
	// wire returns the line with our part in it; nil where nothing of ours is to be there.
	wire func(base) string
	// settled reports whether the line, as it stands, has our part where it belongs; nil where wire alone says it.
	settled func(c configuration, line string) bool
	// unwrap takes off what wire put around a list; nil where that is nothing.
	unwrap func(string) string
}

// A base is what is in force without us.
type base struct {
	in             configuration
	text, expanded string
	chosen         bool // by the operator; else it is Postfix's default
}

// names reports whether a macro of the text is this parameter.
func (b base) names(parameter string) bool {
	return slices.ContainsFunc(macro.FindAllString(b.text, -1), func(m string) bool { return strings.Trim(m, "${}()") == parameter })
}

// own is a line that is ours whole.
func own(name, value string) parameter {
	return parameter{name: name, ours: true, wire: fixed(value)}
}

func fixed(value string) func(base) string {
	return func(base) string { return value }
}

func last(entry string) func(base) string {
	return func(b base) string { return behind(b.text, entry) }
}

func first(entry string) func(base) string {
	return func(b base) string { return before(b.text, entry) }
}

// when wires something, or takes it out.
func when(needed bool, wire func(base) string) func(base) string {
	if !needed {
		return nil
	}
	return wire
}

// lookedUp is what a list had while mailbag-policyd answered for the tables.
func lookedUp(name string) string { return "socketmap:unix:private/mailbag-lookup:" + name }

// What lists had while mailbag-policyd was asked about everybody's mail, and counted it where no milter could refuse it.
const (
	formerCheck          = "check_policy_service unix:" + PolicySocket
	formerRecipientCheck = "reject_unlisted_recipient, " + formerCheck
	formerEndOfDataCheck = "check_policy_service { unix:" + PolicySocket + ", try_limit=10 }"
	formerETRNCheck      = formerCheck + ", reject"
	formerTap            = "{ unix:" + MilterSocket + ", default_action=tempfail, protocol=6 }"
)

// parameters are all that setup may touch.
func parameters(w mta.Needs, aside time.Time) []parameter {
	t := tables(w.Tables)
	list := func(name string, wire func(base) string, parts ...string) parameter {
		return parameter{name: name, parts: parts, wire: wire}
	}
	hold := when(w.LongestHold > 0, atLeast(w.LongestHold))
	all := []parameter{
		list("relay_domains", last(t.routes()), t.routes(), lookedUp("relay-domains")),
		list("transport_maps", first(t.ways()), t.ways(), lookedUp("transport")),
		// mailbag-policyd knows the recipients, and Postfix reads a list of them here where there is one.
		list("relay_recipient_maps", func(b base) string {
			if len(words(b.expanded)) == 0 { // empty means that every recipient is good; with our table alone only ours would be
				return b.text
			}
			return behind(b.text, t.routes())
		}, t.routes(), lookedUp("relay-recipients")),
		list("smtpd_restriction_classes", last(recipientClass+", "+etrnClass), recipientClass, etrnClass),
		{name: "smtpd_recipient_restrictions", parts: withWarning(t.check(), formerRecipientCheck, formerCheck),
			wire:    func(b base) string { return b.in.place(b.text, t.check()) },
			settled: func(c configuration, line string) bool { return c.settled(line, t.check()) }},
		list("smtpd_etrn_restrictions", fixed(etrnClass+", reject"), etrnClass+", reject", etrnClass, formerETRNCheck, formerCheck),
		list("smtpd_milters", last("$"+milterMacro), "$"+milterMacro, formerTap),
		list("non_smtpd_milters", func(b base) string {
			if b.names("smtpd_milters") {
				return b.text
			}
			return behind(b.text, "$"+milterMacro)
		}, "$"+milterMacro),
		list("smtpd_end_of_data_restrictions", nil, formerEndOfDataCheck, formerCheck),
		list("defer_transports", last(turnTransport), turnTransport),
		{name: "fast_flush_domains", parts: []string{t.routes(), "!" + lookedUp("held-domains"), lookedUp("relay-domains")},
			wire: flushable(t), unwrap: operatorsFlush},
		list("maximal_queue_lifetime", hold),
		list("bounce_queue_lifetime", hold),
		list("unverified_recipient_reject_code", when(w.Verify, fixed("550"))),
		list("unverified_recipient_defer_code", when(w.Verify, fixed("250"))),
		// In front of the operator's own: an account's promise is not to be weakened by an entry for its host. Only where
		// it is needed: with any policy map Postfix looks at smtp_tls_per_site no more.
		list(tlsPolicyMaps, when(w.RequireTLS || w.VerifyTLS, first(t.tls())), t.tls(), lookedUp("tls-policy")),
		own(heldFlush, heldOut(t)),
		// One lmtp process carries one unanswered message, so this is how many there can be per round trip.
		own(turnTransport+"_initial_destination_concurrency", "20"),
		own(turnTransport+"_destination_concurrency_limit", "100"),
		// A message for one account is one transaction of its turn.
		own(turnTransport+"_destination_recipient_limit", "1000"),
		own(popTransport+"_destination_recipient_limit", "1000"),
		// Of a message with more qmgr brings a part, and a turn takes less than a full transaction for all there is.
		own(turnTransport+"_recipient_limit", "20000"),
		// To qmgr all mailboxes are one destination.
		own(popTransport+"_destination_concurrency_limit", "20"),
	}
	for _, transport := range []string{turnTransport, popTransport} {
		for _, o := range queueing {
			all = append(all, own(transport+"_"+o.name, o.value))
		}
	}
	return append(all, stance(aside)...)
}

// maxLifetime is Postfix's own maximum for a message in the queue.
const maxLifetime = 100 * 24 * time.Hour

// atLeast raises a lifetime where it is shorter. One that cannot be read is left alone.
func atLeast(hold time.Duration) func(base) string {
	hold = min(hold, maxLifetime)
	return func(b base) string {
		if now, err := period(b.expanded); b.expanded != "" && err != nil || err == nil && now >= hold {
			return b.text
		}
		if hold%(24*time.Hour) == 0 {
			return fmt.Sprintf("%dd", hold/(24*time.Hour))
		}
		return fmt.Sprintf("%ds", (hold+time.Second-1)/time.Second)
	}
}

// period reads a time of main.cf whose default unit is the day, such as "5d", "12h" or "5".
func period(s string) (time.Duration, error) {
	units := map[string]time.Duration{"": 24 * time.Hour, "s": time.Second, "m": time.Minute, "h": time.Hour,
		"d": 24 * time.Hour, "w": 7 * 24 * time.Hour}
	number := strings.TrimRight(s, "smhdwSMHDW")
	n, err := strconv.ParseInt(number, 10, 32)
	unit, known := units[strings.ToLower(s[len(number):])]
	if err != nil || !known || n < 0 || time.Duration(n) > (1<<62)/unit {
		return 0, fmt.Errorf("%q is not a time that Postfix knows", s)
	}
	return time.Duration(n) * unit, nil
}
