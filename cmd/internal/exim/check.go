package exim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"mailbag/cmd/internal/access"
	"mailbag/cmd/internal/mta"
)

const runSetup = "run: mailbag exim setup"

// Check compares this Exim with what is needed. What is in force it learns from Exim: by -bP, by -be, and by a dialogue
// with its ACLs (-bh).
func (in Instance) Check(ctx context.Context, n mta.Needs) ([]mta.Finding, error) {
	if err := in.recent(ctx); err != nil {
		return nil, err
	}
	found, err := in.files(ctx, n)
	if err != nil {
		return nil, err
	}
	for _, look := range []func(context.Context, mta.Needs) ([]mta.Finding, error){
		in.inForce, in.tables, in.sockets, in.destinations, in.retries, in.surroundings, in.outside,
	} {
		more, err := look(ctx, n)
		if err != nil {
			return nil, err
		}
		found = append(found, more...)
	}
	rank := []mta.Severity{mta.Fault, mta.Warning, mta.Hint}
	slices.SortStableFunc(found, func(a, b mta.Finding) int {
		return slices.Index(rank, a.Severity) - slices.Index(rank, b.Severity)
	})
	return found, nil
}

// files compares ours with what setup would write, and what Debian would make of all files with what is there.
func (in Instance) files(ctx context.Context, n mta.Needs) ([]mta.Finding, error) {
	if err := in.debian(); err != nil {
		var foreign foreignError
		if !errors.As(err, &foreign) {
			return nil, err
		}
		return []mta.Finding{{Severity: mta.Hint, Text: "the configuration of Exim is not made of Debian's parts: mailbag does not keep its blocks in it up to date",
			Remedy: `"mailbag exim setup" prints them; compare them after each upgrade of mailbag`}}, nil
	}
	p, err := in.plan(n)
	if err != nil {
		return nil, err
	}
	var out []mta.Finding
	if !p.since.IsZero() {
		out = append(out, mta.Finding{Severity: mta.Fault, Text: "mailbag stands aside since " + p.since.UTC().Format(time.RFC3339) +
			": mail for its domains is put off, turns are refused, and what programs on this host send to them is not metered", Remedy: in.Words().StepIn()})
	}
	if p.owed {
		out = append(out, mta.Finding{Severity: mta.Fault, Text: "a setup or removal was ended before Exim read what it wrote", Remedy: runSetup})
	}
	for _, f := range p.files {
		text := fmt.Sprintf("%s/%s is not what mailbag needs", confdir, f.path)
		if f.old == nil {
			text = fmt.Sprintf("there is no %s/%s", confdir, f.path)
		}
		out = append(out, mta.Finding{Severity: mta.Fault, Text: text, Remedy: runSetup})
	}
	stale, err := stale(ctx)
	if err != nil {
		out = append(out, mta.Finding{Severity: mta.Fault, Text: err.Error(), Remedy: "repair what it names in " + confdir})
	}
	if stale {
		out = append(out, mta.Finding{Severity: mta.Fault, Text: "the files in " + confdir + " were changed, and " + generated + " was not made of them since",
			Remedy: "run: update-exim4.conf && systemctl reload exim4"})
	}
	return out, nil
}

// stale reports whether the configuration is not what Debian makes of the files.
func stale(ctx context.Context) (bool, error) {
	dir, err := os.MkdirTemp("", "mailbag-exim-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	whole := filepath.Join(dir, "whole")
	if err := generate(ctx, "-o", whole); err != nil {
		return false, err
	}
	fresh, err := os.ReadFile(whole)
	if err != nil {
		return false, err
	}
	now, err := os.ReadFile(generated)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	return !bytes.Equal(fresh, now), nil
}

// inForce looks whether Exim asks mailbag and knows its domains.
func (in Instance) inForce(ctx context.Context, _ mta.Needs) ([]mta.Finding, error) {
	macros, err := in.options(ctx, "macros")
	if err != nil {
		return nil, err
	}
	if macros[wiredMacro] == "" {
		return []mta.Finding{{Severity: mta.Fault, Text: "mailbag is not in the configuration of Exim that is in force", Remedy: runSetup}}, nil
	}
	var out []mta.Finding
	if err := in.wired(ctx); err != nil {
		if errors.Is(err, mta.ErrBroken) || ctx.Err() != nil {
			return nil, err
		}
		out = append(out, mta.Finding{Severity: mta.Fault, Text: err.Error(), Remedy: "then run: mailbag exim setup"})
	}
	relays, err := in.run(ctx, nil, "-bP", "+relay_to_domains")
	if err == nil && !strings.Contains(relays, "+mailbag_domains") {
		out = append(out, mta.Finding{Severity: mta.Fault, Text: "the list relay_to_domains has no +mailbag_domains: mail for the accounts' domains is refused",
			Remedy: "have MAIN_RELAY_TO_DOMAINS say what relay_to_domains is, before " + confdir + "/" + parts[0].path + ", and run: mailbag exim setup"})
	}
	routers, err := in.run(ctx, nil, "-bP", "router_list")
	if err != nil {
		return nil, err
	}
	before, _, ours := strings.Cut(routers, "mailbag_known\n")
	switch {
	case !ours:
		out = append(out, mta.Finding{Severity: mta.Fault, Text: "Exim has none of mailbag's routers: the accounts' mail takes another way", Remedy: runSetup})
	case before != "":
		out = append(out, mta.Finding{Severity: mta.Warning, Text: "Exim asks other routers before mailbag's: " + strings.Join(strings.Fields(before), ", "),
			Remedy: "see that they leave the accounts' domains alone, or put them behind"})
	}
	return out, nil
}

// tablesTime is what mailbag-policyd gets to write the tables after a change of the accounts. It takes a second at the most.
const tablesTime = 2 * time.Second

// tables looks whether Exim can read whose domain is an account's, and does.
func (in Instance) tables(ctx context.Context, n mta.Needs) ([]mta.Finding, error) {
	dir := n.Tables
	if dir == "" {
		dir = tablesDirectory
	}
	path := filepath.Join(dir, "routes.cdb")
	fault := func(text string) []mta.Finding {
		return []mta.Finding{{Severity: mta.Fault, Text: text + ": Exim answers 451 to all mail without it", Remedy: mta.StartPolicyd}}
	}
	if _, err := os.Stat(path); err != nil {
		return fault(fmt.Sprintf("the table %s cannot be seen: %v", path, err)), nil
	}
	u, err := access.LookupAlone(owner)
	if err != nil {
		return fault("there is no user " + owner + ", as whom Exim runs"), nil
	}
	if err := u.Denied(path, access.Read); err != nil {
		return fault(err.Error()), nil
	}
	unknown, err := in.unknown(ctx, path, n.Domains)
	for until := time.Now().Add(tablesTime); err == nil && len(unknown) > 0 && time.Now().Before(until); {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(tablesTime / 8):
		}
		unknown, err = in.unknown(ctx, path, unknown)
	}
	if err != nil || len(unknown) == 0 {
		return nil, err
	}
	return []mta.Finding{{Severity: mta.Fault, Text: fmt.Sprintf("the table %s has no %s: Exim refuses mail for it", path, few(unknown)), Remedy: mta.StartPolicyd}}, nil
}

// unknown are those of the domains that are not in a table.
func (in Instance) unknown(ctx context.Context, path string, domains []string) ([]string, error) {
	known, err := in.expand(ctx, "${if eq{${lookup{DOMAIN}cdb{"+path+"}}}{}{no}{known}}", domains)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, d := range domains {
		if name.MatchString(d) && known[d] != "known" {
			out = append(out, d)
		}
	}
	return out, nil
}

// few names some of many.
func few(names []string) string {
	if len(names) > 3 {
		return fmt.Sprintf("%s and %d others", strings.Join(names[:3], ", "), len(names)-3)
	}
	return strings.Join(names, ", ")
}

// answerTime is what Check gives mailbag-policyd, which systemd may have to start first.
const answerTime = 3 * time.Second

// sockets asks mailbag-policyd as Exim does.
func (in Instance) sockets(ctx context.Context, _ mta.Needs) ([]mta.Finding, error) {
	asking, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	err := in.Answers(asking, mta.Needs{})
	if err == nil || ctx.Err() != nil {
		return nil, ctx.Err()
	}
	remedy := mta.StartPolicyd
	if errors.Is(err, fs.ErrPermission) {
		remedy = "see that the group of the socket is " + owner + "; start mailbag-policyd.socket again"
	}
	return []mta.Finding{{Severity: mta.Fault, Text: err.Error() + "; Exim answers 451 to all mail for the accounts' domains without it", Remedy: remedy}}, nil
}

// destinations names domains that are Exim's in another way.
func (in Instance) destinations(ctx context.Context, n mta.Needs) ([]mta.Finding, error) {
	conflicts, err := in.Conflicts(ctx, n.Domains...)
	var out []mta.Finding
	for _, k := range conflicts {
		out = append(out, mta.Finding{Severity: mta.Fault, Text: k.String(), Remedy: "take the domain out of " + k.Parameter + ", or remove it from its account"})
	}
	return out, err
}

// stranger is nobody's address (RFC 5737), by which Exim is asked how it treats a client from outside.
const stranger = "192.0.2.1"

// brokenACL is what Exim answers when an ACL cannot be found or read.
const brokenACL = "Temporary local problem"

// outside asks Exim whether its own ACLs let mail for an account in.
func (in Instance) outside(ctx context.Context, n mta.Needs) ([]mta.Finding, error) {
	i := slices.IndexFunc(n.Domains, name.MatchString)
	if i < 0 {
		return nil, nil
	}
	asking, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	dialogue := "EHLO mailbag.invalid\r\nMAIL FROM:<>\r\nRCPT TO:<postmaster@" + n.Domains[i] + ">\r\nQUIT\r\n"
	said, err := in.run(asking, strings.NewReader(dialogue), "-bh", stranger)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	all := lines(strings.ReplaceAll(said, "\r", ""))
	if err != nil || len(all) < 2 {
		return nil, nil // some ACLs want more of a client than this
	}
	reply := all[len(all)-2]
	if strings.HasPrefix(reply, "5") || strings.Contains(reply, brokenACL) {
		return []mta.Finding{{Severity: mta.Warning, Text: fmt.Sprintf("Exim refuses mail for postmaster@%s from outside (%s): %s", n.Domains[i], stranger, reply),
			Remedy: "see which of its ACLs does: exim4 -bh " + stranger}}, nil
	}
	return nil, nil
}
