package postfix

import (
	"os"
	"slices"
	"strings"
	"testing"

	"mailbag/cmd/internal/mta"
)

// A parameter that a newer Postfix adds belongs to one of these, and this test says so on the first machine that has it.
func TestEveryParameterThatOurTransportsInheritIsDecidedUpon(t *testing.T) {
	t.Parallel()
	in, _ := configured(t, "compatibility_level = 3.6\n")
	c, err := in.read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("testdata/harmless")
	if err != nil {
		t.Fatal(err)
	}
	harmless := strings.Split(string(text), "\n")
	names := func(options []option, prefix string) (all []string) {
		for _, o := range options {
			all = append(all, prefix+o.name)
		}
		return all
	}
	var named []string
	for _, d := range deliberate {
		named = append(named, d.name)
	}
	for transport, own := range map[string][]option{turnTransport: turnClient, popTransport: popClient} {
		decided := slices.Concat(harmless, named, names(queueing, "default_"), names(client, ""), names(own, ""))
		for name := range c.defaults {
			if (strings.HasPrefix(name, "lmtp_") || strings.HasPrefix(name, "default_")) && !slices.Contains(decided, name) {
				t.Errorf("%s inherits %s, of which nobody has said what it does there", transport, name)
			}
		}
	}
}

// Postfix warns of an option that it does not know each time that postconf runs.
func TestTransportsHaveNoOptionThatThisPostfixDoesNotKnow(t *testing.T) {
	t.Parallel()
	for _, known := range []map[string]string{{"lmtp_per_record_deadline": "no"}, {"lmtp_per_request_deadline": "no"}} {
		for name := range known {
			want := turnTransport + " unix - - n - 0 lmtp -o " + name + "=no"
			if got := (configuration{defaults: known}).entries()[turnTransport+"/unix"]; got != want {
				t.Errorf("a Postfix that knows %s gets\n%s\nwant\n%s", name, got, want)
			}
		}
	}
}

// A host that an older mailbag wired lacks what is said of our transports since.
func TestAnOlderWiringIsNamedAndSetUpAgain(t *testing.T) {
	t.Parallel()
	in, _ := configured(t, "compatibility_level = 3.6\ndefault_destination_rate_delay = 2s\n")
	before := shown(t, in)
	setUp(t, in, wiring())
	wired := shown(t, in)
	edit(t, in, "-X", "mailbag-turn_destination_rate_delay")
	edit(t, in, "-Me", "mailbag-turn/unix="+turnTransport+" unix - - n - 0 lmtp -o lmtp_line_length_limit=0")
	found, err := in.Check(t.Context(), wiring())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"main.cf: mailbag-turn_destination_rate_delay is not", "master.cf: mailbag-turn/unix is not"} {
		if !speaksOf(found, mta.Fault, name) {
			t.Errorf("check does not say %q", name)
		}
	}
	setUp(t, in, wiring())
	if got := shown(t, in); got != wired {
		t.Errorf("a second setup makes\n%s\nwant\n%s", got, wired)
	}
	remove(t, in)
	if got := shown(t, in); got != before {
		t.Errorf("a removal leaves\n%s\nwant\n%s", got, before)
	}
}
