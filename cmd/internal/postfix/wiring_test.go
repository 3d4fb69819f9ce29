package postfix

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"mailbag/cmd/internal/mta"
	postfixtest "mailbag/testdata/postfix"
)

// noRoutes are tables without an account in them.
var noRoutes tables

func TestMain(m *testing.M) {
	os.Exit(func() int {
		if postfixtest.Available() == nil && os.Getenv(submitAndDie) == "" {
			dir, err := os.MkdirTemp("", "mailbag-tables-")
			if err == nil {
				defer os.RemoveAll(dir)
				noRoutes = tables(dir)
				err = lay(noRoutes, "")
			}
			if err != nil {
				panic(err)
			}
		}
		return m.Run()
	}())
}

// lay makes the files that mailbag-policyd makes. Routes are lines of a domain and its route.
func lay(t tables, routes string) error {
	for name, text := range map[string]string{
		"domain.regexp": "/^(.*@)?([^@]+)$/ $2\n", "held.regexp": "/^mailbag-turn:/ held\n", "routes": routes, "tls": "",
	} {
		if err := os.WriteFile(t.path(name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	var in Instance
	for _, table := range []string{"routes", "tls"} {
		if _, err := in.run(context.Background(), "", "postmap", "cdb:"+t.path(table)); err != nil {
			return err
		}
	}
	return nil
}

// wiring is what needs nothing beyond an empty directory of tables.
func wiring() mta.Needs { return mta.Needs{Tables: string(noRoutes)} }

func longHold() mta.Needs {
	return mta.Needs{Tables: string(noRoutes), LongestHold: 30 * 24 * time.Hour, Verify: true, RequireTLS: true}
}

// configured builds a real Postfix configuration directory whose main.cf is text beside what keeps it private.
func configured(t *testing.T, text string) (Instance, *postfixtest.Instance) {
	t.Helper()
	p := postfixtest.Prepare(t, postfixtest.Config{})
	private, err := p.Postconf("-n", "queue_directory", "data_directory", "maillog_file", "maillog_file_prefixes")
	if err != nil {
		t.Fatal(err)
	}
	in := Instance{p.ConfigDir()}
	if err := os.WriteFile(filepath.Join(in.ConfigDir, "main.cf"), []byte(private+text), 0o644); err != nil {
		t.Fatal(err)
	}
	keepOld(t, filepath.Join(in.ConfigDir, "main.cf"))
	return in, p
}

// keepOld spares Postfix's programs their wait for a main.cf that is younger than a second: it makes every edit look
// older at once.
func keepOld(t *testing.T, path string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	t.Cleanup(func() { cancel(); <-done })
	go func() {
		defer close(done)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			if st, err := os.Stat(path); err == nil && time.Since(st.ModTime()) < 5*time.Second {
				then := time.Now().Add(-10 * time.Second)
				_ = os.Chtimes(path, then, then) // or it has just been replaced, and the next tick comes
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	}()
}

// shown is what postconf shows of the whole configuration.
func shown(t *testing.T, in Instance) string {
	t.Helper()
	var all []string
	for _, flag := range []string{"-n", "-M", "-P"} {
		out, err := in.run(context.Background(), "", "postconf", flag)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, out)
	}
	return strings.Join(all, "")
}

// setUp plans and applies, and returns the plan.
func setUp(t *testing.T, in Instance, w mta.Needs) mta.Plan {
	t.Helper()
	p, err := in.Plan(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	if fits, err := in.Fits(t.Context(), w); err != nil || fits != p.Empty() {
		t.Errorf("it is said to fit: %v, %v, and the plan is:\n%s", fits, err, p.Diff())
	}
	apply(t, p)
	return p
}

func apply(t *testing.T, p mta.Plan) {
	t.Helper()
	if _, err := p.Apply(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, p.Diff())
	}
}

func remove(t *testing.T, in Instance) {
	t.Helper()
	p, err := in.PlanRemoval(t.Context(), wiring())
	if err != nil {
		t.Fatal(err)
	}
	apply(t, p)
}

// edit is the operator with postconf.
func edit(t *testing.T, in Instance, args ...string) {
	t.Helper()
	if _, err := in.run(t.Context(), "", "postconf", args...); err != nil {
		t.Fatal(err)
	}
}

// mainCf returns the lines of main.cf for these parameters.
func mainCf(t *testing.T, in Instance, names ...string) string {
	t.Helper()
	out, err := in.run(t.Context(), "", "postconf", append([]string{"-n"}, names...)...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestWhatTheOperatorChangesAfterSetupStays(t *testing.T) {
	t.Parallel()
	in, _ := configured(t, "compatibility_level = 3.6\nrelay_domains = a.example\nmaximal_queue_lifetime = 1d\n")
	setUp(t, in, longHold())
	edit(t, in, "-e",
		"relay_domains=b.example, "+noRoutes.routes()+", c.example",
		"transport_maps="+noRoutes.ways()+", hash:/x",
		"smtpd_recipient_restrictions=reject_unlisted_sender, "+"check_recipient_access "+noRoutes.recipients(),
		"defer_transports="+turnTransport+" uucp",
		"maximal_queue_lifetime=60d", "myorigin=new.example")
	setUp(t, in, longHold())
	want := "relay_domains = b.example, c.example, " + noRoutes.routes() + "\n" +
		"transport_maps = " + noRoutes.ways() + ", hash:/x\n"
	if got := mainCf(t, in, "relay_domains", "transport_maps"); got != want {
		t.Errorf("after a second setup:\n%s\nwant\n%s", got, want)
	}
	remove(t, in)
	names := []string{"defer_transports", "maximal_queue_lifetime", "myorigin", "relay_domains", "smtpd_recipient_restrictions",
		"transport_maps", "smtpd_etrn_restrictions", "bounce_queue_lifetime"}
	want = `defer_transports = uucp
maximal_queue_lifetime = 60d
myorigin = new.example
relay_domains = b.example, c.example
smtpd_recipient_restrictions = reject_unlisted_sender
transport_maps = hash:/x
`
	if diff := cmp.Diff(want, mainCf(t, in, names...)); diff != "" {
		t.Error(diff)
	}
}

func speaksOf(found []mta.Finding, s mta.Severity, text string) bool {
	for _, f := range found {
		if f.Severity == s && strings.Contains(f.Text, text) {
			return true
		}
	}
	return false
}

func TestSetupReloadsARunningPostfixAndItStaysUp(t *testing.T) {
	t.Parallel()
	in, p := configured(t, "compatibility_level = 3.6\ninet_protocols = ipv4\nsmtpd_peername_lookup = no\n")
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	plan, err := in.Plan(t.Context(), longHold())
	if err != nil {
		t.Fatal(err)
	}
	reloaded, err := plan.Apply(t.Context())
	if err != nil || !reloaded {
		t.Fatalf("reloaded: %v, %v", reloaded, err)
	}
	if err := p.WaitLog("reload -- version"); err != nil {
		t.Error(err)
	}
	// Without a tap nothing is accepted. An smtpd that was waiting for its next client may take one more.
	var o postfixtest.Outcome
	if err := postfixtest.Wait("mail to be put off", func() bool {
		o, err = postfixtest.Send(p.Addr(), "", postfixtest.Mail{From: "a@outside.example", To: []string{"postmaster@localhost"}, Data: []byte("x\r\n")})
		return err == nil && strings.HasPrefix(o.Data, "451 4")
	}); err != nil {
		t.Errorf("%v: %+v", err, o)
	}
}

func TestAChangeThatPostfixRefusesIsUndone(t *testing.T) {
	t.Parallel()
	in, _ := configured(t, "compatibility_level = 3.6\n")
	p, err := in.Plan(t.Context(), wiring())
	if err != nil {
		t.Fatal(err)
	}
	before := shown(t, in)
	changed := p.(*plan)
	changed.Changes = append(changed.Changes, Change{"main.cf", "mail_owner", Line{}, Line{true, "no-such-user"}})
	if _, err := p.Apply(t.Context()); !errors.Is(err, mta.ErrBroken) {
		t.Errorf("error: %v", err)
	}
	if diff := cmp.Diff(before, shown(t, in)); diff != "" {
		t.Error(diff)
	}
	if _, err := os.Stat(filepath.Join(in.ConfigDir, FormerFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file of former values is left behind: %v", err)
	}
}

func TestSetupRefusesABrokenPostfix(t *testing.T) {
	t.Parallel()
	in, _ := configured(t, "compatibility_level = 3.6\n")
	if err := os.WriteFile(filepath.Join(in.ConfigDir, "master.cf"), []byte("smtp inet n\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Plan(t.Context(), wiring()); !errors.Is(err, mta.ErrBroken) {
		t.Errorf("broken master.cf: %v", err)
	}
	if _, err := (Instance{filepath.Join(in.ConfigDir, "none")}).Plan(t.Context(), wiring()); !errors.Is(err, mta.ErrBroken) {
		t.Errorf("no configuration: %v", err)
	}
}

func TestVersions(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]error{
		"3.7.11": nil, "3.5.0": nil, "3.10-20240101": nil, "4.0.0": nil,
		"3.4.23": mta.ErrTooOld, "2.11.3": mta.ErrTooOld, "": mta.ErrBroken, "x.y": mta.ErrBroken,
	} {
		if err := recentEnough(version); !errors.Is(err, want) {
			t.Errorf("%q: %v", version, err)
		}
	}
}

func TestLifetimesAreOnlyRaised(t *testing.T) {
	t.Parallel()
	day := 24 * time.Hour
	for _, c := range []struct {
		base string
		hold time.Duration
		want string
	}{
		{"5d", 30 * day, "30d"}, {"30d", 30 * day, "30d"}, {"5", 5 * day, "5"}, {"100d", 5 * day, "100d"},
		{"4w", 30 * day, "30d"}, {"720h", 30 * day, "720h"}, {"5d", 500 * day, "100d"},
		{"1h", 90 * time.Minute, "5400s"}, {"nonsense", day, "nonsense"}, {"", day, "1d"},
	} {
		if got := atLeast(c.hold)(base{text: c.base, expanded: c.base, chosen: true}); got != c.want {
			t.Errorf("%q with a hold of %v: %q, want %q", c.base, c.hold, got, c.want)
		}
	}
}

// A lifetime that the operator wrote as a macro is read through it, also once ours stands in its place.
func TestLifetimeBehindAMacroIsNeverLowered(t *testing.T) {
	t.Parallel()
	in, _ := configured(t, "maximal_queue_lifetime = $life\nlife = 20d\n")
	for _, c := range []struct {
		hold time.Duration
		want string
	}{{30 * 24 * time.Hour, "30d"}, {10 * 24 * time.Hour, "$life"}} {
		setUp(t, in, mta.Needs{Tables: string(noRoutes), LongestHold: c.hold})
		configuration, err := in.read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got := configuration.explicit["maximal_queue_lifetime"]; got != c.want {
			t.Errorf("with a hold of %v maximal_queue_lifetime is %q, want %q", c.hold, got, c.want)
		}
	}
}
