package exim

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"mailbag/cmd/internal/mta"
)

// name is what a domain may be that is asked about in an expansion: nothing in it means anything there.
var name = regexp.MustCompile(`^[a-z0-9_-]+(\.[a-z0-9_-]+)*$`)

// questions are how many domains are asked about by one process.
const questions = 500

// expand asks Exim for what an expression is for each of the domains, which stands in it as DOMAIN. One that is no name is
// left out.
func (in Instance) expand(ctx context.Context, expression string, domains []string) (map[string]string, error) {
	domains = slices.DeleteFunc(slices.Clone(domains), func(d string) bool { return !name.MatchString(d) })
	out := map[string]string{}
	for some := range slices.Chunk(domains, questions) {
		args := []string{"-be"}
		for _, d := range some {
			args = append(args, strings.ReplaceAll(expression, "DOMAIN", d))
		}
		said, err := in.run(ctx, nil, args...)
		if err != nil {
			return nil, err
		}
		for i, line := range lines(said) {
			if i < len(some) {
				out[some[i]] = line
			}
		}
	}
	return out, nil
}

// Conflicts looks for domains that are Exim's own, by its list local_domains: its ACL and its routers treat them as such.
func (in Instance) Conflicts(ctx context.Context, domains ...string) ([]mta.Conflict, error) {
	if err := in.recent(ctx); err != nil {
		return nil, err
	}
	local, err := in.expand(ctx, "${if match_domain{DOMAIN}{+local_domains}{local}{no}}", domains)
	if err != nil {
		return nil, err
	}
	debconf, _ := os.ReadFile(filepath.Join(confdir, answers)) // one that is not Debian's has none
	var out []mta.Conflict
	for _, d := range domains {
		if local[d] != "local" {
			continue
		}
		parameter := "local_domains"
		if regexp.MustCompile(`(?mi)^dc_other_hostnames=.*\b` + regexp.QuoteMeta(d) + `\b`).Match(debconf) {
			parameter = "dc_other_hostnames"
		}
		out = append(out, mta.Conflict{Domain: d, Parameter: parameter, Entry: d})
	}
	return out, nil
}
