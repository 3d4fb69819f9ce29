package postfix

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Wiring is what mailbag needs of Postfix. The sockets are not in it: their names in Postfix's private/ are fixed.
type Wiring struct {
	LongestHold time.Duration // of any account; Postfix must not return mail earlier. 0: leave the lifetimes alone
	Verify      bool          // an account has its recipients verified by its own server
	RequireTLS  bool          // mail of a backup account leaves by TLS only, whatever certificate its server shows
	VerifyTLS   bool          // mail of a backup account leaves by TLS only, for a server whose certificate is good
	Domains     []string      // the accounts' domains, A-labels; Check looks for them in other places
}

// Sockets in private/ of the queue directory. Names are relative, because smtpd and trivial-rewrite are chrooted.
const (
	PolicySocket = "private/mailbag-policy"
	LookupSocket = "private/mailbag-lookup"
	MilterSocket = "private/mailbag-milter"
)

const tlsPolicyMaps = "smtp_tls_policy_maps"

// What is written into lists.
const (
	relayDomains    = "socketmap:unix:" + LookupSocket + ":relay-domains"
	transport       = "socketmap:unix:" + LookupSocket + ":transport"
	relayRecipients = "socketmap:unix:" + LookupSocket + ":relay-recipients"
	// Postfix's own flush of a domain moves all of its mail into the active queue at once, so it may not know what
	// is held.
	heldDomains = "!socketmap:unix:" + LookupSocket + ":held-domains"

	// In front of the operator's own: an account's promise is not to be weakened by an entry for its host.
	tlsPolicy = "socketmap:unix:" + LookupSocket + ":tls-policy"

	policyCheck = "check_policy_service unix:" + PolicySocket
	// Unlisted recipients are refused first: a recipient that Postfix refuses later must not be noted.
	recipientCheck = "reject_unlisted_recipient, " + policyCheck
	// Postfix asks again with the same instance when a connection breaks before the answer, so a restart of
	// mailbag-policyd between its commit and its answer is repaired by one of these tries. Default: 2.
	endOfDataCheck = "check_policy_service { unix:" + PolicySocket + ", try_limit=10 }"
	etrnCheck      = policyCheck + ", reject"
	// A tap that cannot be reached defers the mail, whatever milter_default_action says: nothing passes unmetered.
	// Protocol 6 is what the tap speaks, whatever milter_protocol says.
	milterTap = "{ unix:" + MilterSocket + ", default_action=tempfail, protocol=6 }"
)

// A parameter is one line of main.cf that we have a part in.
type parameter struct {
	name  string
	parts []string // list entries of ours, to be found again when somebody else edited the line
	// wire returns the line with our part in it. base is what is in force without us: its text, and expanded.
	wire func(base, expanded string) string
}

// parameters are all that setup may touch; wire is nil where nothing of ours is to be there.
func parameters(w Wiring, t Tap) []parameter {
	list := func(entry string, final ...string) func(string, string) string {
		return func(base, _ string) string { return behind(base, entry, final...) }
	}
	fixed := func(value string) func(string, string) string {
		return func(string, string) string { return value }
	}
	only := func(when bool, wire func(string, string) string) func(string, string) string {
		if !when {
			return nil
		}
		return wire
	}
	hold := only(w.LongestHold > 0, atLeast(w.LongestHold))
	all := []parameter{
		{"relay_domains", []string{relayDomains}, list(relayDomains)},
		{"transport_maps", []string{transport}, func(base, _ string) string { return before(base, transport) }},
		{"relay_recipient_maps", []string{relayRecipients}, func(base, expanded string) string {
			if len(words(expanded)) == 0 { // empty means that every recipient is good; with our map alone only ours would be
				return base
			}
			return behind(base, relayRecipients)
		}},
		{"smtpd_recipient_restrictions", []string{recipientCheck, policyCheck}, list(recipientCheck, "permit")},
		{"smtpd_end_of_data_restrictions", []string{endOfDataCheck, policyCheck}, only(t == PolicyTap, list(endOfDataCheck, "permit"))},
		{"smtpd_etrn_restrictions", []string{etrnCheck, policyCheck}, fixed(etrnCheck)},
		{"smtpd_milters", []string{milterTap}, only(t == MilterTap, list(milterTap))},
		{"defer_transports", []string{turnTransport}, list(turnTransport)},
		{"fast_flush_domains", []string{heldDomains, relayDomains}, flushable},
		{"maximal_queue_lifetime", nil, hold},
		{"bounce_queue_lifetime", nil, hold},
		{"unverified_recipient_reject_code", nil, only(w.Verify, fixed("550"))},
		{"unverified_recipient_defer_code", nil, only(w.Verify, fixed("250"))},
		// Only where it is needed: with any policy map Postfix looks at smtp_tls_per_site no more, and the connections
		// of all its mail ask.
		{tlsPolicyMaps, []string{tlsPolicy}, only(w.RequireTLS || w.VerifyTLS, func(base, _ string) string { return before(base, tlsPolicy) })},
		// One lmtp process carries one unanswered message, so this is how many there can be per round trip.
		{turnTransport + "_initial_destination_concurrency", nil, fixed("20")},
		{turnTransport + "_destination_concurrency_limit", nil, fixed("100")},
		// A message for one account is one transaction of its turn.
		{turnTransport + "_destination_recipient_limit", nil, fixed("1000")},
		{popTransport + "_destination_recipient_limit", nil, fixed("1000")},
		// Of a message with more qmgr brings a part, and a turn takes less than a full transaction for all there is.
		{turnTransport + "_recipient_limit", nil, fixed("20000")},
		// To qmgr all mailboxes are one destination.
		{popTransport + "_destination_concurrency_limit", nil, fixed("20")},
	}
	for _, transport := range []string{turnTransport, popTransport} {
		for _, o := range queueing {
			all = append(all, parameter{transport + "_" + o.name, nil, fixed(o.value)})
		}
	}
	return all
}

// flushable takes held domains out of those that ETRN flushes (fast_flush_domains), and has all others of ours in.
func flushable(base, _ string) string {
	relayed := slices.ContainsFunc(macro.FindAllString(base, -1), func(m string) bool { return strings.Trim(m, "${}()") == "relay_domains" })
	switch {
	case len(words(base)) == 0: // Postfix's default, as long as it relayed for nobody
		base = "$relay_domains"
	case !relayed:
		base = behind(base, relayDomains)
	}
	return before(base, heldDomains)
}

// maxLifetime is Postfix's own maximum for a message in the queue.
const maxLifetime = 100 * 24 * time.Hour

// atLeast raises a lifetime where it is shorter. One that cannot be read is left alone.
func atLeast(hold time.Duration) func(string, string) string {
	hold = min(hold, maxLifetime)
	return func(base, expanded string) string {
		if now, err := period(expanded); expanded != "" && err != nil || err == nil && now >= hold {
			return base
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
