package postfix

import (
	"fmt"
	"slices"
	"strings"

	"mailbag/cmd/internal/mta"
)

// Where our check stands in a list of restrictions is judged here alone, for setup, which writes it, and for check. It is in
// its place where nothing before it ends the list for sure: all mail for the accounts then comes to it, and whatever the
// operator permits behind it is fine. A table or policy service before it may say OK, and that is the operator's own affair.

// A restriction is one step of a list as smtpd takes it, with its argument.
type restriction struct {
	text string // the name in lower case, as Postfix compares it; tables keep their spelling
	word int    // of the list, that it came from
	warn bool   // warn_if_reject stands before it
}

const warnIfReject = "warn_if_reject"

// withWarning has each check with the warn_if_reject that somebody put before it too, which is not to be left for the next.
func withWarning(checks ...string) []string {
	var out []string
	for _, check := range checks {
		out = append(out, warnIfReject+" "+check, check)
	}
	return out
}

// restrictions are those of a list in order, with each macro and each restriction class replaced by what it stands for.
func (c configuration) restrictions(list string) []restriction {
	var all []restriction // first the words
	for i, w := range words(list) {
		for _, text := range texts(c.expand(w.text)) {
			all = append(all, restriction{text: text, word: i})
		}
	}
	all = joined(all)
	classes := texts(c.expanded["smtpd_restriction_classes"])
	for i, left := 0, 1000; i < len(all) && left > 0; i++ { // a class may name itself
		if slices.ContainsFunc(classes, func(class string) bool { return strings.EqualFold(class, all[i].text) }) {
			value, _ := c.named(all[i].text)
			var within []restriction
			for _, text := range texts(c.expand(value)) {
				within = append(within, restriction{text: text, word: all[i].word, warn: all[i].warn})
			}
			all = slices.Replace(all, i, i+1, joined(within)...)
			i, left = i-1, left-1
		}
	}
	return all
}

// joined gives restrictions their arguments, and takes warn_if_reject from before them.
func joined(list []restriction) []restriction {
	var out []restriction
	warn := false
	for i := 0; i < len(list); i++ {
		r := list[i]
		if !strings.Contains(r.text, ":") {
			r.text = strings.ToLower(r.text)
		}
		if r.text == warnIfReject {
			warn = true
			continue
		}
		if takesArgument(r.text) && i+1 < len(list) {
			i++
			r.text += " " + list[i].text
		}
		r.warn, warn = r.warn || warn, false
		out = append(out, r)
	}
	return out
}

// takesArgument reports whether the word behind this restriction belongs to it.
func takesArgument(restriction string) bool {
	for _, p := range []string{"check_", "reject_rbl_client", "reject_rhsbl_", "permit_dnswl_client", "permit_rhswl_client", "sleep"} {
		if strings.HasPrefix(restriction, p) {
			return true
		}
	}
	return false
}

// ends reports whether nothing behind this restriction is seen by some mail for the accounts, or may be: of a macro that
// is not understood nobody knows.
func (r restriction) ends() bool {
	return r.text == "reject" || r.text == "defer" || strings.HasPrefix(r.text, "permit") || strings.HasPrefix(r.text, "$")
}

// isOurCheck is for a restriction with its argument: the table that names our class, or what such a service had before.
func (r restriction) isOurCheck() bool {
	return strings.Contains(r.text, "static:"+recipientClass) || strings.Contains(r.text, PolicySocket)
}

// checks reports whether our check is anywhere in a list.
func (c configuration) checks(list string) bool {
	return slices.ContainsFunc(c.restrictions(list), restriction.isOurCheck)
}

// reached reports whether a check is in its place in a list.
func (c configuration) reached(list, check string) bool {
	all := c.restrictions(list)
	i := slices.IndexFunc(all, func(r restriction) bool { return r.text == check || r.ends() })
	return i >= 0 && all[i].text == check && !all[i].warn
}

// settled reports whether a check is in its place in a list, and there is nothing of ours besides.
func (c configuration) settled(list, check string) bool {
	ours := 0
	for _, r := range c.restrictions(list) {
		if r.isOurCheck() {
			ours++
		}
	}
	return ours == 1 && c.reached(list, check)
}

// place puts a check into its place in a list: at the end, or before the first that ends it, which is as late as can be.
// What else is there stays in its order.
func (c configuration) place(list, check string) string {
	if c.reached(list, check) { // in a macro or a class
		return list
	}
	all := words(list)
	at := len(all)
	if r := c.restrictions(list); slices.ContainsFunc(r, restriction.ends) {
		at = r[slices.IndexFunc(r, restriction.ends)].word
	}
	for at > 0 && strings.EqualFold(all[at-1].text, warnIfReject) { // which is about the one behind it
		at--
	}
	return insert(list, check, at)
}

// order names what stands before our check in a list of restrictions and can keep mail from it. Of the list in main.cf
// this is what setup leaves to the operator.
func order(c configuration, t tables) []mta.Finding {
	const name = "smtpd_recipient_restrictions"
	var out []mta.Finding
	if c.settled(c.inForce[name], t.check()) {
		out = earlier(c, name, c.inForce[name])
	}
	for _, s := range c.smtpds() {
		if own, ok := s.options[name]; ok {
			out = append(out, earlier(c, "master.cf: the service "+s.id()+": "+name, own)...)
		}
	}
	return out
}

func earlier(c configuration, where, list string) []mta.Finding {
	all := c.restrictions(list)
	ours := slices.IndexFunc(all, restriction.isOurCheck)
	if ours < 0 {
		return nil
	}
	const unchecked = "is metered, but not checked: neither a suspension nor a limit nor a list of recipients applies"
	var out []mta.Finding
	for _, r := range all[:ours] {
		verb, _, _ := strings.Cut(r.text, " ")
		before := fmt.Sprintf("%s: %q stands before our check: mail ", where, r.text)
		switch {
		case r.text == "permit" || r.text == "reject" || r.text == "defer":
			out = append(out, fault(fmt.Sprintf("%s: our check is never reached, because %q stands before it", where, r.text), "move "+r.text+" to the end"))
		case r.ends():
			out = append(out, warning(before+"that it permits "+unchecked, "move it behind our check, unless that is meant"))
		case verb == "check_policy_service":
			out = append(out, hint(before+"to which it says OK "+unchecked, "see that it answers DUNNO in place of OK"))
		case strings.HasPrefix(verb, "check_") && strings.HasSuffix(verb, "_access"), strings.Contains(verb, ":"):
			out = append(out, hint(before+"to which it says OK "+unchecked, "let the table say DUNNO in place of OK"))
		}
	}
	if all[ours].warn {
		out = append(out, warning(fmt.Sprintf("%s: %s stands before our check, which so refuses nothing", where, warnIfReject), "take it out when the trial is over"))
	}
	return out
}
