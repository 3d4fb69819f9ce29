package postfix

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// A Severity says how bad a finding is.
type Severity string

const (
	Fault   Severity = "fault"   // mail is lost, refused, kept or counted in another way than it should be
	Warning Severity = "warning" // some mail is not metered or an operator may be surprised
	Hint    Severity = "hint"    // worth knowing
)

// A Finding is one thing that Check has to say.
type Finding struct {
	Severity Severity `json:"severity"`
	Text     string   `json:"text"`   // what is so
	Remedy   string   `json:"remedy"` // what to do
}

const runSetup = "run: mailbag postfix setup"

// Check compares this Postfix with the wiring and names what is missing or works against it, faults first. The error
// is ErrMissing, ErrTooOld or ErrBroken, as with Plan. Needs root.
func (in Instance) Check(ctx context.Context, w Wiring) ([]Finding, error) {
	c, err := in.inspect(ctx)
	if err != nil {
		return nil, err
	}
	p, err := in.plan(ctx, c, &w)
	if err != nil {
		return nil, err
	}
	conflicts, err := in.conflicts(ctx, c, w.Domains)
	if err != nil {
		return nil, err
	}
	found := missing(p)
	found = append(found, fitting(c, p)...)
	for _, name := range []string{"smtpd_recipient_restrictions", "smtpd_end_of_data_restrictions"} {
		found = append(found, order(c, name, c.expanded[name])...)
		for _, s := range c.smtpds() {
			if own, ok := s.options[name]; ok {
				found = append(found, order(c, "master.cf: the service "+s.id()+": "+name, own)...)
			}
		}
	}
	found = append(found, late(c)...)
	found = append(found, mapped(c, p.Tap)...)
	found = append(found, overrides(c, p.Tap)...)
	found = append(found, reinjection(c, p.Tap)...)
	found = append(found, encryption(c, w)...)
	found = append(found, sockets(c, p.Tap)...)
	running, err := in.Running(ctx)
	if err != nil {
		return nil, err
	}
	if running {
		found = append(found, orphans(c)...)
	}
	found = append(found, inherited(c)...)
	found = append(found, surroundings(c)...)
	for _, k := range conflicts {
		found = append(found, Finding{Fault, k.String(), "take the domain out of " + k.Parameter + ", or remove it from its account"})
	}
	rank := []Severity{Fault, Warning, Hint}
	slices.SortStableFunc(found, func(a, b Finding) int {
		return slices.Index(rank, a.Severity) - slices.Index(rank, b.Severity)
	})
	return found, nil
}

// missing names what setup would change.
func missing(p *Plan) []Finding {
	var out []Finding
	for _, c := range p.Changes {
		text := fmt.Sprintf("%s: %s is not what mailbag needs: it is %s and should be %s", c.File, c.Name, c.Old, c.New)
		out = append(out, Finding{Fault, text, runSetup})
	}
	return out
}

// String is for messages.
func (l Line) String() string {
	if !l.Set {
		return "not set"
	}
	return strconv.Quote(l.Text)
}

// fitting says when messages are counted at the other end than they should be.
func fitting(c configuration, p *Plan) []Finding {
	var wired Tap
	switch {
	case find(words(c.expanded["smtpd_milters"]), texts(milterTap)) >= 0:
		wired = MilterTap
	case find(words(c.expanded["smtpd_end_of_data_restrictions"]), texts(endOfDataCheck)) >= 0:
		wired = PolicyTap
	}
	switch {
	case wired == PolicyTap && p.Tap == MilterTap:
		return []Finding{{Fault, "messages are counted at END-OF-MESSAGE, but " + strings.Join(p.Because, ", ") +
			" can still refuse them afterwards: refused mail is billed", runSetup}}
	case wired == MilterTap && p.Tap == PolicyTap:
		return []Finding{{Warning, "messages are counted by our milter, but nothing is left that could refuse one after the policy service", runSetup}}
	}
	return nil
}

// order names what stands before and behind our check in a list of restrictions.
func order(c configuration, name, list string) []Finding {
	all := c.restrictions(list)
	ours := slices.IndexFunc(all, func(r string) bool { return strings.Contains(r, PolicySocket) })
	if ours < 0 {
		return nil
	}
	var out []Finding
	for _, r := range all[:ours] {
		switch {
		case r == "permit" || r == "reject" || r == "defer":
			out = append(out, Finding{Fault, fmt.Sprintf("%s: our check is never reached, because %q stands before it", name, r),
				"move " + r + " to the end"})
		case strings.HasPrefix(r, "permit"):
			out = append(out, Finding{Warning, fmt.Sprintf("%s: %q stands before our check: mail that it permits is neither checked nor metered", name, r),
				"move it behind check_policy_service, or accept that this mail is free"})
		case strings.HasPrefix(r, "check_policy_service "):
			out = append(out, Finding{Hint, fmt.Sprintf("%s: %q stands before our check: mail to which it says OK is neither checked nor metered", name, r),
				"see that it answers DUNNO in place of OK"})
		case strings.HasPrefix(r, "check_") && strings.HasSuffix(strings.Fields(r)[0], "_access"), strings.Contains(strings.Fields(r)[0], ":"):
			out = append(out, Finding{Hint, fmt.Sprintf("%s: %q stands before our check: mail to which it says OK is neither checked nor metered", name, r),
				"let the table say DUNNO in place of OK"})
		}
	}
	for _, r := range all[ours+1:] {
		if r == "permit" {
			continue
		}
		out = append(out, Finding{Warning, fmt.Sprintf("%s: %q stands behind our check: what it refuses was noted as accepted", name, r), runSetup})
	}
	return out
}

// late names what refuses recipients after our check noted them, where smtpd_relay_restrictions come last.
// Before Postfix 3.6 they always do. That a destination is ours was asked of us, so the usual ones
// refuse nothing of ours.
func late(c configuration) []Finding {
	if c.expanded["smtpd_relay_before_recipient_restrictions"] == "yes" {
		return nil
	}
	var out []Finding
	for _, r := range c.restrictions(c.expanded["smtpd_relay_restrictions"]) {
		if strings.HasPrefix(r, "permit") || strings.HasSuffix(r, "_unauth_destination") || r == "reject" || r == "defer" {
			continue
		}
		out = append(out, Finding{Warning, fmt.Sprintf("smtpd_relay_restrictions: %q comes after our check: what it refuses was noted as accepted", r),
			"set smtpd_relay_before_recipient_restrictions = yes, or move it to the front of smtpd_recipient_restrictions"})
	}
	return out
}

// mapped warns of clients that get other milters than ours.
func mapped(c configuration, t Tap) []Finding {
	if t != MilterTap || len(words(c.expanded["smtpd_milter_maps"])) == 0 {
		return nil
	}
	return []Finding{{Warning, "smtpd_milter_maps gives some clients other milters than smtpd_milters: mail of those whose entry does not end in our milter, or is DISABLE, is not metered",
		fmt.Sprintf("put %q at the end of every entry of smtpd_milter_maps", milterTap)}}
}

// overrides names the services of master.cf in which one of our restrictions is replaced.
func overrides(c configuration, t Tap) []Finding {
	needs := []struct{ name, part, lost string }{
		{"smtpd_recipient_restrictions", PolicySocket, "recipients of our domains are not checked there, and their mail is not metered"},
		{"smtpd_etrn_restrictions", PolicySocket, "an ETRN there opens no turn"},
	}
	if t == PolicyTap {
		needs = append(needs, struct{ name, part, lost string }{"smtpd_end_of_data_restrictions", PolicySocket, "mail that comes in there is not metered"})
	} else {
		needs = append(needs, struct{ name, part, lost string }{"smtpd_milters", MilterSocket, "mail that comes in there is not metered"})
	}
	var out []Finding
	for _, s := range c.smtpds() {
		if c.reinjects(s) {
			continue // there it is right: the message was checked and counted when it came in
		}
		for _, n := range needs {
			if v, ok := s.options[n.name]; ok && !strings.Contains(v, n.part) {
				out = append(out, Finding{Warning, fmt.Sprintf("master.cf: the service %s overrides %s: %s", s.id(), n.name, n.lost),
					fmt.Sprintf("if outside mail comes in there, put into its -o %s what main.cf has", n.name)})
			}
		}
		if t == MilterTap && withoutMilters(c, s) {
			out = append(out, Finding{Warning, fmt.Sprintf("master.cf: the service %s has receive_override_options=no_milters: mail that comes in there is not metered", s.id()),
				"if outside mail comes in there, take no_milters out"})
		}
	}
	return out
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

// reinjection names the services at which mail that was counted already would be counted again.
func reinjection(c configuration, t Tap) []Finding {
	var out []Finding
	proxied := slices.ContainsFunc(c.smtpds(), func(s service) bool { return len(words(c.value(s, "smtpd_proxy_filter"))) > 0 })
	for _, s := range c.smtpds() {
		if !c.reinjects(s) {
			continue
		}
		milters := strings.Contains(c.value(s, "smtpd_milters"), MilterSocket) && !withoutMilters(c, s)
		switch {
		case t == MilterTap && proxied && !milters:
			// In front of a proxy filter smtpd never shows a milter the message.
			out = append(out, Finding{Fault, fmt.Sprintf("master.cf: mail passes smtpd_proxy_filter and comes back through the service %s, which has not our milter: it is not metered", s.id()),
				fmt.Sprintf("add %q to its -o smtpd_milters, and take no_milters out of its -o receive_override_options", milterTap)})
		case t == MilterTap && !proxied && milters:
			out = append(out, Finding{Fault, fmt.Sprintf("master.cf: mail comes back from content_filter through the service %s, where our milter counts it a second time", s.id()),
				fmt.Sprintf("add -o smtpd_milters= (or -o receive_override_options=no_milters) to %s", s.id())})
		}
		if strings.Contains(c.value(s, "smtpd_end_of_data_restrictions"), PolicySocket) {
			out = append(out, Finding{Fault, fmt.Sprintf("master.cf: mail comes back from a content filter through the service %s, where our END-OF-MESSAGE check can count it a second time", s.id()),
				fmt.Sprintf("add -o smtpd_end_of_data_restrictions= to %s", s.id())})
		}
		if strings.Contains(c.value(s, "smtpd_recipient_restrictions"), PolicySocket) {
			out = append(out, Finding{Warning, fmt.Sprintf("master.cf: mail comes back from a content filter through the service %s, where our recipient check can refuse what was accepted", s.id()),
				fmt.Sprintf("add -o smtpd_recipient_restrictions=permit_mynetworks,reject to %s", s.id())})
		}
	}
	return out
}

// sockets looks at the daemon's sockets as smtpd and trivial-rewrite will find them.
func sockets(c configuration, t Tap) []Finding {
	names := []string{PolicySocket, LookupSocket}
	if t == MilterTap {
		names = append(names, MilterSocket)
	}
	var out []Finding
	for _, name := range names {
		path := filepath.Join(c.expanded["queue_directory"], name)
		if problem := Unreachable(path, c.expanded["mail_owner"]); problem != "" {
			out = append(out, Finding{Fault, problem + "; Postfix answers 451 to all mail without it", "start mailbag-policyd, and look at its log and at [policy] in mailbag.toml"})
		}
	}
	return out
}

// orphans names our transports whose sockets somebody removed while Postfix runs: master listens on, and nobody
// finds it any more. A reload lets it keep what it has.
func orphans(c configuration) []Finding {
	var out []Finding
	for _, name := range []string{turnTransport, popTransport} {
		if _, ok := c.service(name + "/unix"); !ok {
			continue
		}
		path := filepath.Join(c.expanded["queue_directory"], "private", name)
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			out = append(out, Finding{Fault, fmt.Sprintf("the transport %s is in master.cf, and its socket %s is gone: its mail stays in the queue", name, path),
				"stop and start Postfix; a reload does not make the socket again"})
		}
	}
	return out
}

// Unreachable says why a process of Postfix, which runs as its mail_owner with that user's own group alone, cannot
// connect to a socket; empty if it can.
func Unreachable(path, owner string) string {
	st, err := os.Stat(path)
	if err != nil {
		return "there is no socket " + path
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if st.Mode().Type() != fs.ModeSocket || !ok {
		return path + " is not a socket"
	}
	u, err := user.Lookup(owner)
	if err != nil {
		return fmt.Sprintf("there is no user %s, who is Postfix's mail_owner", owner)
	}
	mode := st.Mode().Perm()
	if !(strconv.Itoa(int(sys.Uid)) == u.Uid && mode&0o200 != 0 || strconv.Itoa(int(sys.Gid)) == u.Gid && mode&0o020 != 0 || mode&0o002 != 0) {
		return fmt.Sprintf("the user %s may not connect to %s (mode %o, uid %d, gid %d)", owner, path, mode, sys.Uid, sys.Gid)
	}
	return ""
}

// surroundings names what is not our wiring but matters to held and relayed mail.
func surroundings(c configuration) []Finding {
	var out []Finding
	if _, ok := c.service("relay/unix"); !ok {
		out = append(out, Finding{Fault, "master.cf: there is no transport relay, by which mail of backup accounts goes out",
			"restore the line: relay unix - - y - - smtp"})
	}
	if d, err := period(c.expanded["delay_warning_time"]); err == nil && d > 0 {
		out = append(out, Finding{Warning, "main.cf: delay_warning_time = " + c.expanded["delay_warning_time"] + ": senders are told that their mail is delayed while it is held for a customer",
			"set it to 0h, unless that is meant"})
	}
	return out
}
