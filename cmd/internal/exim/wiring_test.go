package exim

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mailbag/cmd/internal/mta"
	eximtest "mailbag/testdata/exim"
)

// A verb is what a test has done in the root of a private Exim, by this program.
type verb struct {
	Do      string // "setup", "remove", "aside", "in", "check", "conflicts", "answers"
	DryRun  bool
	Room    uint64 // unless 0: octets that a file may have at most, as if the disk were full
	Stop    bool   // it is interrupted among its writes
	Until   int    // unless 0: it is killed in this of its writes, the one behind the last file being that of the whole
	Needs   mta.Needs
	Domains []string
}

// An outcome is what came of it.
type outcome struct {
	Err       string
	Missing   bool
	NotWired  bool
	Silent    bool
	Empty     bool
	Diff      string
	Since     time.Time
	Reloaded  bool
	Findings  []mta.Finding
	Conflicts []mta.Conflict
}

const verbVariable = "MAILBAG_TEST_VERB"

// TestVerb does one in the place of a test, within the root of a private Exim.
func TestVerb(t *testing.T) {
	var v verb
	if json.Unmarshal([]byte(os.Getenv(verbVariable)), &v) != nil {
		t.Skip("this is for other tests")
	}
	o, err := v.run(t)
	if err != nil {
		o.Err, o.Missing, o.NotWired, o.Silent = err.Error(), errors.Is(err, mta.ErrMissing), errors.Is(err, mta.ErrNotWired), errors.Is(err, mta.ErrSilent)
	}
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(os.Getenv("MAILBAG_TEST_OUTCOME"), text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (v verb) run(t *testing.T) (o outcome, err error) {
	var in Instance
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	var p mta.Plan
	switch v.Do {
	case "setup":
		p, err = in.Plan(ctx, v.Needs)
		if fits, unfit := in.Fits(ctx, v.Needs); err == nil && (unfit != nil || fits != p.Empty()) {
			t.Errorf("it is said to fit: %v, %v, and the plan is:\n%s", fits, unfit, p.Diff())
		}
	case "remove":
		p, err = in.PlanRemoval(ctx, v.Needs)
	case "aside":
		p, err = in.PlanAside(ctx, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	case "in":
		p, err = in.PlanIn(ctx)
	case "check":
		o.Findings, err = in.Check(ctx, v.Needs)
		return o, err
	case "conflicts":
		o.Conflicts, err = in.Conflicts(ctx, v.Domains...)
		return o, err
	case "answers":
		return o, in.Answers(ctx, v.Needs)
	}
	if err != nil {
		return o, err
	}
	o.Empty, o.Diff, o.Since = p.Empty(), p.Diff(), p.AsideSince()
	if v.Room > 0 {
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: v.Room, Max: v.Room}); err != nil {
			return o, err
		}
	}
	switch {
	case v.Until > 0:
		err = die(ctx, p.(*plan), v.Until)
	case v.Stop:
		cancel()
		fallthrough
	case !v.DryRun:
		o.Reloaded, err = p.Apply(ctx)
	}
	return o, err
}

// die leaves what a run does that is killed in one of its writes.
func die(ctx context.Context, p *plan, in int) error {
	if err := os.WriteFile(unfinished, nil, 0o600); err != nil {
		return err
	}
	for i, f := range p.files {
		if i+1 == in {
			torn := filepath.Join(confdir, filepath.Dir(f.path), "."+filepath.Base(f.path)+"."+rand.Text())
			return os.WriteFile(torn, f.new[:len(f.new)/2], 0o600)
		}
		if err := put(f); err != nil {
			return err
		}
	}
	if in == len(p.files)+1 {
		return nil
	}
	return generate(ctx)
}

func do(t *testing.T, x *eximtest.Instance, v verb) outcome {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	result := x.Path("outcome")
	cmd := x.Command(os.Args[0], "-test.run", "^TestVerb$")
	cmd.Env = append(os.Environ(), verbVariable+"="+string(text), "MAILBAG_TEST_OUTCOME="+result)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", v.Do, err, out)
	}
	text, err = os.ReadFile(result)
	var o outcome
	if err := errors.Join(err, json.Unmarshal(text, &o)); err != nil {
		t.Fatal(err)
	}
	return o
}

// done is do for what has to succeed.
func done(t *testing.T, x *eximtest.Instance, v verb) outcome {
	t.Helper()
	o := do(t, x, v)
	if o.Err != "" {
		t.Fatalf("%s: %s", v.Do, o.Err)
	}
	return o
}

// configuration is every file of the administrator's, with its mode.
func configuration(t *testing.T, x *eximtest.Instance) map[string]string {
	t.Helper()
	out := map[string]string{}
	dir := x.Root("/etc/exim4")
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		text, err := os.ReadFile(path)
		out[strings.TrimPrefix(path, dir)] = st.Mode().String() + "\n" + string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func edit(t *testing.T, x *eximtest.Instance, path string, change func(string) string) {
	t.Helper()
	path = x.Root("/etc/exim4/" + path)
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(change(string(text))), 0o644); err != nil {
		t.Fatal(err)
	}
}

func unsplit(t *testing.T, x *eximtest.Instance) {
	t.Helper()
	edit(t, x, "update-exim4.conf.conf", func(s string) string {
		return strings.Replace(s, "dc_use_split_config='true'", "dc_use_split_config='false'", 1)
	})
	edit(t, x, "exim4.conf.localmacros", func(string) string {
		text, err := os.ReadFile(x.Root("/etc/exim4/conf.d/main/00_private"))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	})
}

// bp is what Exim has for an option.
func bp(t *testing.T, x *eximtest.Instance, option string) string {
	t.Helper()
	out, err := x.Command("/usr/sbin/exim4", "-bP", option).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

func TestSetupIsTakenBackByteForByte(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"split", "unsplit"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			x := eximtest.Prepare(t, eximtest.Config{Relays: map[string]string{"other.example": "127.0.0.1:25"}})
			if kind == "unsplit" {
				unsplit(t, x)
			}
			edit(t, x, "update-exim4.conf.conf", func(s string) string {
				return strings.Replace(s, "dc_relay_domains='other.example'", "dc_relay_domains='other.example;third.example'", 1)
			})
			if err := x.Start(); err != nil {
				t.Fatal(err)
			}
			before := configuration(t, x)
			if o := done(t, x, verb{Do: "setup", DryRun: true}); o.Empty || !strings.Contains(o.Diff, "+ begin") && !strings.Contains(o.Diff, "+ acl_mailbag_rcpt:") {
				t.Errorf("%+v", o)
			}
			if now := configuration(t, x); !equal(before, now) {
				t.Error("a dry run changed something")
			}
			if o := done(t, x, verb{Do: "setup"}); !o.Reloaded {
				t.Error("Exim was not reloaded")
			}
			for option, want := range map[string]string{
				"acl_smtp_rcpt": "acl_smtp_rcpt = acl_mailbag_rcpt", "acl_not_smtp": "acl_not_smtp = acl_mailbag_not_smtp",
				"+relay_to_domains": "domainlist relay_to_domains = +mailbag_domains : +mailbag_host_relays",
			} {
				if got := bp(t, x, option); got != want {
					t.Errorf("%s: %s", option, got)
				}
			}
			out, err := x.Command("/usr/sbin/exim4", "-be", "${if match_domain{third.example}{+mailbag_host_relays}{still relayed}}").CombinedOutput()
			if err != nil || string(out) != "still relayed\n" {
				t.Errorf("%s, %v", out, err)
			}
			if routers := bp(t, x, "router_list"); !strings.HasPrefix(routers, "mailbag_known\n") {
				t.Errorf("the first routers are %.60q", routers)
			}
			if o := done(t, x, verb{Do: "setup"}); !o.Empty || o.Reloaded {
				t.Errorf("a second setup changes:\n%s", o.Diff)
			}
			edit(t, x, "conf.d/main/00_private", func(s string) string { return s + "# meanwhile\n" })
			edit(t, x, "exim4.conf.template", func(s string) string { return s + "# meanwhile" })
			done(t, x, verb{Do: "remove"})
			before["/conf.d/main/00_private"] += "# meanwhile\n"
			before["/exim4.conf.template"] += "# meanwhile"
			if now := configuration(t, x); !equal(before, now) {
				for name := range now {
					if now[name] != before[name] {
						t.Errorf("%s is not as it was", name)
					}
				}
			}
			if got := bp(t, x, "acl_smtp_rcpt"); got != "acl_smtp_rcpt = acl_check_rcpt" {
				t.Error(got)
			}
			if o := done(t, x, verb{Do: "remove"}); !o.Empty {
				t.Errorf("a second removal changes:\n%s", o.Diff)
			}
		})
	}
}

func equal(a, b map[string]string) bool {
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	return bytes.Equal(x, y)
}

// What a host has of its own where mailbag needs to be is named with a way out, and nothing is changed.
func TestSetupSaysWhatIsInItsWay(t *testing.T) {
	t.Parallel()
	x := eximtest.Run(t, eximtest.Config{})
	for _, c := range []struct{ file, text, want string }{
		{"conf.d/main/99_host", "acl_not_smtp = host_acl\n", "/etc/exim4/conf.d/main/99_host:1 sets acl_not_smtp, which mailbag needs for an ACL of its own; write MAILBAG_HOST_NOT_SMTP in place of acl_not_smtp there"},
		{"conf.d/main/000_host", "acl_smtp_etrn = host_acl\n", "/etc/exim4/conf.d/main/000_host:1 sets acl_smtp_etrn, which mailbag needs for an ACL of its own; write MAILBAG_HOST_ETRN"},
		{"conf.d/main/000_host", "smtp_etrn_command = /bin/false\n", "/etc/exim4/conf.d/main/000_host:1 sets smtp_etrn_command, which mailbag needs for itself; take it out"},
		{"conf.d/main/01_local", "MAIN_ACL_CHECK_RCPT = host_acl\n", "/etc/exim4/conf.d/main/01_local:1 defines MAIN_ACL_CHECK_RCPT behind mailbag's part; define it in a file that comes before"},
		{"conf.d/transport/99_host", "mailbag_turn:\n  driver = smtp\n", "exim does not accept the changes, so nothing was changed: "},
		{"conf.d/transport/99_host", "remote_smtp:\n  driver = smtp\n", "the configuration of the MTA is broken, without mailbag as well: what is in /etc/exim4 does not make one that Exim takes; nothing was changed"},
	} {
		edit(t, x, c.file, func(string) string { return c.text })
		before := configuration(t, x)
		o := do(t, x, verb{Do: "setup"})
		if !strings.Contains(o.Err, c.want) {
			t.Errorf("%s: %s\nwant %s", strings.TrimSpace(c.text), o.Err, c.want)
		}
		if !equal(before, configuration(t, x)) {
			t.Errorf("%s: something was changed", c.text)
		}
		if err := os.Remove(x.Root("/etc/exim4/" + c.file)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSetupLeavesAForeignConfigurationAlone(t *testing.T) {
	t.Parallel()
	x := eximtest.Run(t, eximtest.Config{})
	if out, err := x.Command("/bin/sh", "-ec", "update-exim4.conf -o /etc/exim4/exim4.conf").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	before := configuration(t, x)
	o := do(t, x, verb{Do: "setup"})
	for _, want := range []string{"/etc/exim4/exim4.conf, is not made of Debian's parts", `write "acl_smtp_rcpt = MAIN_ACL_CHECK_RCPT"`, "acl_mailbag_rcpt:", `directly behind "begin routers"`, "MAILBAG_ROUTES = /var/lib/mailbag/exim/routes.cdb"} {
		if !strings.Contains(o.Err, want) {
			t.Errorf("no %q in:\n%.300s", want, o.Err)
		}
	}
	if !equal(before, configuration(t, x)) {
		t.Error("something was changed")
	}
	if o := done(t, x, verb{Do: "remove"}); !o.Empty {
		t.Errorf("a removal changes:\n%s", o.Diff)
	}
	found := done(t, x, verb{Do: "check"}).Findings
	if len(found) == 0 || found[0].Text != "mailbag is not in the configuration of Exim that is in force" {
		t.Errorf("%+v", found)
	}
}

func TestPathsThatEximWouldReadAsCodeAreRefused(t *testing.T) {
	for _, path := range []string{"/run/${run{/bin/false}}", "/run/a b", "/run/a:b", "relative", "/run/a\nb", `/run/a\b`, "/run/a}"} {
		if _, err := parts[0].text(mta.Needs{Policy: path}, time.Time{}); err == nil {
			t.Errorf("%q is taken", path)
		}
	}
	text, err := parts[0].text(mta.Needs{Policy: "unix:/run/x/policy.sock"}, time.Time{})
	if err != nil || !strings.Contains(text, "\nMAILBAG_POLICY = /run/x/policy.sock\n") {
		t.Errorf("%v\n%s", err, text)
	}
}

func TestAsideIsRememberedAndForgotten(t *testing.T) {
	t.Parallel()
	plain, err := parts[0].text(mta.Needs{}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	since := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	aside := withAside(plain, since)
	if got := asideIn(aside); !got.Equal(since) {
		t.Errorf("it stands aside since %v", got)
	}
	if written, err := parts[0].text(mta.Needs{}, since); err != nil || written != aside {
		t.Errorf("setup writes something else: %v", err)
	}
	if got := withAside(aside, time.Time{}); got != plain {
		t.Error("stepping in does not restore the text")
	}
	x := eximtest.Prepare(t, eximtest.Config{})
	if o := do(t, x, verb{Do: "aside"}); !o.NotWired {
		t.Errorf("%+v", o)
	}
}

// Editors, for one, leave links that lead nowhere.
func TestLinksInTheConfigurationAreFollowed(t *testing.T) {
	t.Parallel()
	x := eximtest.Prepare(t, eximtest.Config{})
	private := x.Root("/etc/exim4/conf.d/main/00_private")
	if err := errors.Join(os.Rename(private, x.Root("/etc/exim4/private")), os.Symlink("../../private", private),
		os.Symlink("me@host.1:2", x.Root("/etc/exim4/conf.d/main/.#00_private")), os.Symlink("/nowhere", x.Root("/etc/exim4/virtual"))); err != nil {
		t.Fatal(err)
	}
	done(t, x, verb{Do: "setup", DryRun: true})
}
