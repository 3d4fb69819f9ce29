package exim

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"mailbag/cmd/internal/mta"
)

// samples are how many domains are asked about each by itself.
const samples = 20

// retries names domains whose mail Exim returns by other rules than ours. Without the table it cannot say.
func (in Instance) retries(ctx context.Context, n mta.Needs) ([]mta.Finding, error) {
	if macros, err := in.options(ctx, "macros"); err != nil || macros[wiredMacro] == "" {
		return nil, err
	}
	domains := slices.DeleteFunc(slices.Clone(n.Domains), func(d string) bool { return !name.MatchString(d) })
	for _, d := range domains[:min(len(domains), samples)] {
		rule, err := in.run(ctx, nil, "-brt", "postmaster@"+d)
		if err != nil {
			return nil, ctx.Err()
		}
		if rule = strings.TrimSpace(rule); !strings.HasPrefix(rule, "Retry rule: *@+mailbag_") {
			return []mta.Finding{{Severity: mta.Fault, Text: fmt.Sprintf("mail for %s that cannot be delivered is returned by a rule of the host's (%s), and not when the account has it", d, rule),
				Remedy: "have that rule behind mailbag's: in a file of conf.d/retry whose name comes after 10_mailbag"}}, nil
		}
	}
	return nil, nil
}

var localOnly = regexp.MustCompile(`(?mi)^\s*dc_eximconfig_configtype=['"]?local\b`)

// surroundings names what is not our wiring but matters to the accounts' mail.
func (in Instance) surroundings(ctx context.Context, _ mta.Needs) ([]mta.Finding, error) {
	o, err := in.options(ctx, "local_interfaces", "hold_domains", "queue_domains", "queue_smtp_domains")
	if err != nil {
		return nil, err
	}
	flags, err := in.run(ctx, nil, "-bP", "queue_only", "prdr_enable")
	if err != nil {
		return nil, err
	}
	var out []mta.Finding
	if secluded(o["local_interfaces"]) {
		out = append(out, mta.Finding{Severity: mta.Warning, Text: "Exim listens on the loopback interface only (" + o["local_interfaces"] + "): no mail comes in from elsewhere",
			Remedy: "run: dpkg-reconfigure exim4-config, and choose an internet site that listens on all interfaces"})
	}
	if text, err := os.ReadFile(filepath.Join(confdir, answers)); err == nil && !there(own) && localOnly.Match(text) {
		out = append(out, mta.Finding{Severity: mta.Warning, Text: "Exim is configured for local delivery only (dc_eximconfig_configtype): what is returned to senders elsewhere does not leave",
			Remedy: "run: dpkg-reconfigure exim4-config, and choose an internet site, or a smarthost"})
	}
	for _, option := range []string{"hold_domains", "queue_domains", "queue_smtp_domains"} {
		if o[option] != "" {
			out = append(out, mta.Finding{Severity: mta.Warning, Text: fmt.Sprintf("%s is set (%s): mail for these domains waits, an account's as well", option, o[option]),
				Remedy: "have it leave the accounts' domains out, by !+mailbag_domains at its beginning"})
		}
	}
	if strings.Contains(flags, "no_prdr_enable") {
		out = append(out, mta.Finding{Severity: mta.Hint, Text: "prdr_enable is off: a message for several accounts is refused to all of them when it is too much for one",
			Remedy: "set prdr_enable = true in the main section"})
	}
	if strings.HasPrefix(flags, "queue_only") {
		out = append(out, mta.Finding{Severity: mta.Warning, Text: "queue_only is set: mail for mailboxes and for backup accounts waits for Exim's next queue run",
			Remedy: "unset it, unless that is meant"})
	}
	if running, err := in.Running(ctx); err == nil && !running {
		out = append(out, mta.Finding{Severity: mta.Warning, Text: "Exim's daemon does not run", Remedy: "run: " + in.Words().Start})
	}
	return out, nil
}
