package postfix

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"mailbag/cmd/internal/mta"
)

// Conflicts looks for domains (A-labels, lower case) in mydestination, virtual_alias_domains and
// virtual_mailbox_domains. Tables are asked with postmap; one that cannot be read is passed over. The error is
// mta.ErrMissing or mta.ErrBroken.
func (in Instance) Conflicts(ctx context.Context, domains ...string) ([]mta.Conflict, error) {
	text, err := in.run(ctx, "", "postconf", append([]string{"-x"}, localDomains...)...)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errBroken, err)
	}
	return in.conflicts(ctx, assignments(text), domains)
}

// localDomains are the parameters with domains that Postfix delivers by itself.
var localDomains = []string{"mydestination", "virtual_alias_domains", "virtual_mailbox_domains"}

// conflicts goes by the expanded values of parameters.
func (in Instance) conflicts(ctx context.Context, expanded map[string]string, domains []string) ([]mta.Conflict, error) {
	var out []mta.Conflict
	for _, name := range localDomains {
		left := slices.Clone(domains)
		for _, entry := range texts(expanded[name]) {
			if len(left) == 0 {
				break
			}
			// Postfix takes the first entry that matches; "!" makes it say no.
			pattern, negated := strings.CutPrefix(entry, "!")
			hits, err := in.matching(ctx, pattern, left)
			if err != nil {
				return nil, err
			}
			for _, d := range hits {
				if !negated {
					out = append(out, mta.Conflict{Domain: d, Parameter: name, Entry: entry})
				}
			}
			left = slices.DeleteFunc(left, func(d string) bool { return slices.Contains(hits, d) })
		}
	}
	return out, nil
}

// matching returns the domains that one entry of a list matches: a name, a file of names, or a table.
func (in Instance) matching(ctx context.Context, entry string, domains []string) ([]string, error) {
	var names []string
	switch {
	case strings.HasPrefix(entry, "/"):
		text, err := os.ReadFile(entry)
		if err != nil {
			return nil, nil // unknown
		}
		for line := range strings.Lines(string(text)) {
			if !strings.HasPrefix(line, "#") {
				names = append(names, texts(line)...)
			}
		}
	case strings.Contains(entry, ":") && !strings.HasPrefix(entry, "["):
		found, err := in.inTable(ctx, entry, domains)
		if ctx.Err() != nil {
			return nil, err
		}
		return found, nil // a table that fails is unknown
	default:
		names = []string{entry}
	}
	var hits []string
	for _, d := range domains {
		if slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, d) }) {
			hits = append(hits, d)
		}
	}
	return hits, nil
}

// inTable asks one table for all domains.
func (in Instance) inTable(ctx context.Context, table string, domains []string) ([]string, error) {
	out, err := in.run(ctx, strings.Join(domains, "\n")+"\n", "postmap", "-q", "-", table)
	var hits []string
	for _, d := range domains {
		// The key, white space, and the value.
		if slices.ContainsFunc(strings.Split(out, "\n"), func(l string) bool { return strings.HasPrefix(l, d+"\t") || strings.HasPrefix(l, d+" ") }) {
			hits = append(hits, d)
		}
	}
	return hits, err
}
