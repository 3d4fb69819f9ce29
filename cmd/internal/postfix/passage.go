package postfix

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"mailbag/cmd/internal/mta"
)

// What is said here is which way mail comes in, past our recipient check and through our tap. Where a check stands does
// not matter to what is counted: the tap hears of a message when all else has let it pass.

// asideSince says that mailbag stands aside, and where others' mail waits for it all the same.
func asideSince(c configuration) []mta.Finding {
	since := c.aside()
	if since.IsZero() {
		return nil
	}
	out := []mta.Finding{fault(fmt.Sprintf("mailbag stands aside since %s: mail for its domains is put off, turns are refused, and what programs on this host send to them is not metered", since.Format(time.RFC3339)),
		Instance{}.Words().StepIn())}
	for _, s := range c.smtpds() {
		for _, name := range slices.Sorted(maps.Keys(s.options)) {
			if value := s.options[name]; strings.Contains(value, MilterSocket) || strings.Contains(value, PolicySocket) {
				out = append(out, warning(fmt.Sprintf("master.cf: the service %s asks mailbag-policyd in its -o %s, also while mailbag stands aside", s.id(), name), byName))
			}
		}
	}
	return out
}

const byName = "write $" + milterMacro + " there for our milter, and for our checks what main.cf has"

// tap names what passes our milter by, and what comes behind it.
func tap(c configuration) []mta.Finding {
	var out []mta.Finding
	for _, name := range []string{"smtpd_milters", "non_smtpd_milters"} {
		all := texts(c.expanded[name])
		if ours := slices.IndexFunc(all, isTap); ours >= 0 && ours < len(all)-1 {
			out = append(out, warning(fmt.Sprintf("%s: %q stands behind our milter: what it refuses was counted", name, all[ours+1]), "move it in front of our milter"))
		}
	}
	if len(words(c.expanded["smtpd_milter_maps"])) > 0 {
		out = append(out, warning("smtpd_milter_maps gives some clients other milters than smtpd_milters: mail of those whose entry does not end in our milter, or is DISABLE, is not metered",
			fmt.Sprintf("put %q at the end of every entry of smtpd_milter_maps", milterTap)))
	}
	// Bounces to customers pass it too, and they are mail like any other; but nobody expects them on a bill.
	if classes := texts(c.expanded["internal_mail_filter_classes"]); slices.Contains(classes, "bounce") || slices.Contains(classes, "notify") {
		out = append(out, hint("internal_mail_filter_classes = "+c.expanded["internal_mail_filter_classes"]+": what this host itself tells customers of undelivered mail is counted too",
			"take bounce and notify out, unless that is meant"))
	}
	return out
}

func isTap(milter string) bool { return strings.Contains(milter, MilterSocket) }

// overrides names the services of master.cf in which one of our lines is replaced.
func overrides(c configuration) []mta.Finding {
	aside := !c.aside().IsZero()
	needs := []struct {
		name, lost string
		has        func(string) bool
		remedy     string
	}{
		{"smtpd_recipient_restrictions", "recipients of our domains are not checked there", c.checks, "put into its -o smtpd_recipient_restrictions what main.cf has"},
		{"smtpd_etrn_restrictions", "an ETRN there opens no turn", isOurETRN, "put into its -o smtpd_etrn_restrictions what main.cf has"},
		// While mailbag stands aside, the macro is empty there too.
		{"smtpd_milters", "mail that comes in there is not metered", func(v string) bool { return isTap(v) || aside }, "put $" + milterMacro + " at the end of its -o smtpd_milters"},
	}
	var out []mta.Finding
	for _, s := range c.smtpds() {
		if c.reinjects(s) {
			continue // there it is right: the message was checked and counted when it came in
		}
		for _, n := range needs {
			if v, ok := s.options[n.name]; ok && !n.has(v) {
				out = append(out, warning(fmt.Sprintf("master.cf: the service %s overrides %s: %s", s.id(), n.name, n.lost), "if outside mail comes in there, "+n.remedy))
			}
		}
		if withoutMilters(c, s) {
			out = append(out, warning(fmt.Sprintf("master.cf: the service %s has receive_override_options=no_milters: mail that comes in there is not metered", s.id()),
				"if outside mail comes in there, take no_milters out"))
		}
	}
	return out
}

func isOurETRN(list string) bool {
	return slices.Contains(texts(list), etrnClass) || strings.Contains(list, PolicySocket)
}

func withoutMilters(c configuration, s service) bool {
	return slices.Contains(texts(c.value(s, "receive_override_options")), "no_milters")
}

// reinjects reports whether a content filter gives mail back through this service: others send their mail into a
// filter, and it has none, as it must not or the mail would go round for ever.
func (c configuration) reinjects(s service) bool {
	for _, filter := range []string{"content_filter", "smtpd_proxy_filter"} {
		if len(words(c.value(s, filter))) > 0 {
			return false
		}
	}
	return slices.ContainsFunc(c.smtpds(), func(front service) bool {
		return len(words(c.value(front, "content_filter"))) > 0 || len(words(c.value(front, "smtpd_proxy_filter"))) > 0
	}) && c.loopback(s)
}

// loopback reports whether the service is for this machine only: bound to a loopback address or a unix socket, or
// closed to all but mynetworks. (A service of type pass stands behind postscreen and takes mail from everywhere.)
func (c configuration) loopback(s service) bool {
	host := strings.NewReplacer("[", "", "]", "").Replace(strings.ToLower(s.name))
	return s.kind == "unix" || strings.HasPrefix(host, "127.") || strings.HasPrefix(host, "localhost:") || strings.HasPrefix(host, "::1:") ||
		slices.Equal(texts(c.value(s, "smtpd_client_restrictions")), []string{"permit_mynetworks", "reject"})
}

// reinjection names the services at which mail that comes back from a filter meets too little of ours, or too much. A
// message that passes our milter again is recognised by it.
func reinjection(c configuration) []mta.Finding {
	var out []mta.Finding
	proxied := slices.ContainsFunc(c.smtpds(), func(s service) bool { return len(words(c.value(s, "smtpd_proxy_filter"))) > 0 })
	for _, s := range c.smtpds() {
		if !c.reinjects(s) {
			continue
		}
		// In front of a proxy filter smtpd never shows a milter the message.
		if tapped := isTap(c.value(s, "smtpd_milters")) && !withoutMilters(c, s); proxied && !tapped && c.aside().IsZero() {
			out = append(out, fault(fmt.Sprintf("master.cf: mail passes smtpd_proxy_filter and comes back through the service %s, which has not our milter: it is not metered", s.id()),
				fmt.Sprintf("add $%s to its -o smtpd_milters, and take no_milters out of its -o receive_override_options", milterMacro)))
		}
		if c.checks(c.value(s, "smtpd_recipient_restrictions")) {
			out = append(out, warning(fmt.Sprintf("master.cf: mail comes back from a content filter through the service %s, where our recipient check can refuse what was accepted", s.id()),
				fmt.Sprintf("add -o smtpd_recipient_restrictions=permit_mynetworks,reject to %s", s.id())))
		}
	}
	return out
}
