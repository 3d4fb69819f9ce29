package settings

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func parse(t *testing.T, text string) *Settings {
	t.Helper()
	s, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestDaemonThatRunsTakesWhatNeedsNoRestart(t *testing.T) {
	t.Parallel()
	old := parse(t, "[limits]\nmessages = 5\n[pop]\nlisten = [':110']\n[turn]\nfirst_wait = '20s'\n")
	file := parse(t, "proxies = ['192.0.2.5']\n[limits]\nmessages = 6\n[pop]\nlisten = [':110', '[::1]:3110']\nplain_login = true\n[tls]\nkey = '/k'\n[notices]\nfrom = 'ops@provider.example'\n")
	file.File = "/etc/mailbag/mailbag.toml"
	for program, want := range map[string][]Change{
		policyd: {{"limits.messages", "5", "6", false}},
		turnd: {
			{"proxies", "[]", "['192.0.2.5']", false}, {"tls.key", "'/etc/mailbag/tls/privkey.pem'", "'/k'", false},
			{"turn.first_wait", "'20s'", "'10s'", false},
		},
		popd: {
			{"proxies", "[]", "['192.0.2.5']", false}, {"tls.key", "'/etc/mailbag/tls/privkey.pem'", "'/k'", false},
			{"pop.listen", "[':110']", "[':110' '[::1]:3110']", true}, {"pop.plain_login", "false", "true", false},
		},
		eximd: nil,
	} {
		next, changes := old.Renew(program, file)
		if diff := cmp.Diff(want, changes); diff != "" {
			t.Errorf("%s (-want +got):\n%s", program, diff)
		}
		if next.Limits.Messages != 6 || !next.POP.PlainLogin || len(next.POP.Listen) != 1 || next.File != file.File {
			t.Errorf("%s goes on with %+v", program, next)
		}
		if old.Limits.Messages != 5 || len(file.POP.Listen) != 2 {
			t.Error("what was compared was changed")
		}
		if _, again := next.Renew(program, old); slices.ContainsFunc(again, func(c Change) bool { return c.Restart }) {
			t.Errorf("%s: the way back takes a restart: %v", program, again)
		}
	}
}

func TestHashesTellWhatADaemonLacks(t *testing.T) {
	t.Parallel()
	old := parse(t, "[limits]\nmessages = 5\n")
	for _, c := range []struct {
		text, program   string
		reload, restart bool // differs
	}{
		{"# a remark\nlimits.messages = 5\n", policyd, false, false},
		{"limits.messages = 6\n", policyd, true, false},
		{"limits.messages = 6\n", popd, false, false},
		{"limits.messages = 5\nbilling.timezone = 'Europe/Berlin'\n", popd, false, true},
		{"limits.messages = 5\nbilling.base_price = '7'\n", policyd, false, false},
		{"limits.messages = 6\ndatabase = '/mailbag.db'\n", policyd, true, true},
		{"limits.messages = 5\nproxies = ['127.0.0.1']\n", turnd, true, false},
	} {
		reload, restart := old.Hashes(c.program)
		toReload, toRestart := parse(t, c.text).Hashes(c.program)
		if (reload != toReload) != c.reload || (restart != toRestart) != c.restart {
			t.Errorf("%s, %q: differs %v and %v, want %v and %v", c.program, c.text, reload != toReload, restart != toRestart, c.reload, c.restart)
		}
	}
}

func TestPackagedFileNamesTheKeysThatTakeARestart(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../../packaging/mailbag.toml")
	if err != nil {
		t.Fatal(err)
	}
	_, list, found := strings.Cut(strings.ReplaceAll(string(text), "\n# ", " "), `takes "systemctl restart": `)
	list, _, ended := strings.Cut(list, ".\n")
	if !found || !ended {
		t.Fatal("there is no list")
	}
	var want []string
	for _, k := range keys {
		if k.use.restart {
			want = append(want, k.name)
		}
	}
	if diff := cmp.Diff(want, regexp.MustCompile(`, +`).Split(list, -1)); diff != "" {
		t.Errorf("(-keys +file):\n%s", diff)
	}
}
