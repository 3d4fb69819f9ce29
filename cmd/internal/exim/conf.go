package exim

import (
	"cmp"
	"embed"
	"fmt"
	"regexp"
	"strings"
	"time"

	"mailbag/cmd/internal/mta"
)

//go:embed conf
var conf embed.FS

// A part is one of our files in conf.d. Debian's unsplit configuration includes them behind a line of its template.
type part struct {
	section string // of Exim's configuration
	path    string // in confdir
	behind  *regexp.Regexp
}

// parts are in the order of the sections. The main one comes behind all macros of the host, whose files are usually named
// 00_… or 000_…, and before Debian's own, 01_exim4-config_listmacrosdefs, uses them. The others mean nothing without it, so
// a run that is killed among the files leaves all of mailbag or nothing of it.
var parts = []part{
	{"main", "conf.d/main/01_a_mailbag", regexp.MustCompile(`^UPEX4CmacrosUPEX4C\b`)},
	{"acl", "conf.d/acl/50_mailbag", regexp.MustCompile(`^begin\s+acl\s*$`)},
	{"router", "conf.d/router/050_mailbag", regexp.MustCompile(`^begin\s+routers\s*$`)},
	{"transport", "conf.d/transport/50_mailbag", regexp.MustCompile(`^begin\s+transports\s*$`)},
	{"retry", "conf.d/retry/10_mailbag", regexp.MustCompile(`^begin\s+retry\s*$`)},
}

// paths are where the parts are, in confdir.
func paths() []string {
	var all []string
	for _, p := range parts {
		all = append(all, p.path)
	}
	return all
}

// include is the line by which an unsplit configuration has the part.
func (p part) include() string { return ".include_if_exists " + confdir + "/" + p.path }

// owner is as whom Debian's Exim runs.
const owner = "Debian-exim"

// text is the part with what the settings say.
func (p part) text(n mta.Needs, aside time.Time) (string, error) {
	settings, err := settings(n, aside)
	if err != nil {
		return "", err
	}
	text, err := conf.ReadFile("conf/" + p.section)
	return strings.NewReplacer("@SETTINGS@", settings, "@USER@", owner).Replace(string(text)), err
}

// plain is what a path may have in which Exim's strings, lists and macros are to read nothing but the path.
var plain = regexp.MustCompile(`^/[A-Za-z0-9/._-]+$`)

// settings are the macros that differ from host to host.
func settings(n mta.Needs, aside time.Time) (string, error) {
	var out strings.Builder
	for _, m := range []struct{ name, path, usual, file string }{
		{wiredMacro, n.Tables, tablesDirectory, "/routes.cdb"},
		{"MAILBAG_POLICY", n.Policy, policySocket, ""},
		{"MAILBAG_TURNS", n.Turns, "/run/mailbag/turn", ""},
		{"MAILBAG_DELIVER", n.Deliver, "/run/mailbag/deliver.sock", ""},
	} {
		path := cmp.Or(strings.TrimPrefix(m.path, "unix:"), m.usual) + m.file
		if !plain.MatchString(path) {
			return "", fmt.Errorf("the path %q cannot stand in Exim's configuration; choose one of letters, digits and . _ - in mailbag.toml", path)
		}
		fmt.Fprintf(&out, "%s = %s\n", m.name, path)
	}
	return strings.TrimSuffix(out.String(), "\n") + asideLine(aside), nil
}

// asideLine is what a mailbag that stands aside has behind its settings.
func asideLine(since time.Time) string {
	if since.IsZero() {
		return ""
	}
	return "\n" + asideMacro + " = " + since.UTC().Format(time.RFC3339)
}

var asideLines = regexp.MustCompile(`(?m)^` + asideMacro + ` = (.*)\n`)

// asideIn is since when mailbag stands aside by the main part; zero: it does not.
func asideIn(main string) time.Time {
	m := asideLines.FindStringSubmatch(main)
	if m == nil {
		return time.Time{}
	}
	at, _ := time.Parse(time.RFC3339, m[1])
	return at
}

// withAside is the main part with another stance.
func withAside(main string, since time.Time) string {
	main = asideLines.ReplaceAllString(main, "")
	i := strings.Index(main, "\nMAILBAG_DELIVER = ")
	if i < 0 {
		return main
	}
	end := i + 1 + strings.IndexByte(main[i+1:], '\n')
	return main[:end] + asideLine(since) + main[end:]
}

// blocks are the parts for who puts them into a configuration by hand.
func blocks(n mta.Needs) (string, error) {
	names := map[string]string{"main": "the main section, behind the ACLs' and the relayed domains' macros",
		"acl": `behind "begin acl"`, "router": `directly behind "begin routers"`, "transport": `behind "begin transports"`,
		"retry": `directly behind "begin retry"`}
	var out strings.Builder
	for _, p := range parts {
		text, err := p.text(n, time.Time{})
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&out, "\n======== %s ========\n%s", names[p.section], text)
	}
	return out.String(), nil
}
