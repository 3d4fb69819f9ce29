package e2e

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	mtatest "mailbag/testdata/mta"
	postfixtest "mailbag/testdata/postfix"
	rqlitetest "mailbag/testdata/rqlite"
	"mailbag/testdata/service"
)

// binaries is where TestMain built the programs under test.
var binaries string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	flag.Parse()
	flag.Set("test.parallel", "6") // the stories mostly wait for other processes
	if mtatest.Available(besides()) != nil {
		return m.Run() // every test says why it is skipped
	}
	fmt.Println("the stories are told beside", besides())
	dir, err := os.MkdirTemp("", "mailbag-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // the daemons are another user's
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	binaries = dir
	// With the race detector, whether or not the tests have it: the daemons are what is tested.
	build := exec.Command("go", "build", "-race", "-o", dir, "mailbag/cmd/...")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building the programs: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// besides is the MTA of this run, which the environment says: MTA=exim go test ./cmd/internal/e2e.
func besides() string { return cmp.Or(os.Getenv("MTA"), "postfix") }

// by is what is right beside the MTA of this run, where the two differ.
func by[T any](postfix, exim T) T {
	return map[string]T{"postfix": postfix, "exim": exim}[besides()]
}

// story is a private MTA with mailbag beside it, wired by mailbag.
type story struct {
	*service.Service
	t       *testing.T
	mta     mtatest.Instance
	postfix *postfixtest.Instance // the same, in a story that only a Postfix can tell
	zone    *time.Location        // of its bills
	nodes   *rqlitetest.Nodes     // that have the ledger; nil: it is a file
	machine int                   // of which of them the story is
}

// begin builds and starts everything.
func begin(t *testing.T, c mtatest.Config) *story {
	t.Helper()
	if err := mtatest.Available(besides()); err != nil {
		t.Skip(err)
	}
	t.Parallel()
	s := &story{t: t, mta: mtatest.Prepare(t, besides(), c)}
	s.start()
	return s
}

// beginPostfix is begin for a story that only a Postfix can tell, because of what is needed. prepare, where it is not nil,
// changes Postfix's configuration before mailbag sees it.
func beginPostfix(t *testing.T, because string, c postfixtest.Config, prepare func(*postfixtest.Instance)) *story {
	t.Helper()
	if besides() != "postfix" {
		t.Skipf("not beside %s: %s", besides(), because)
	}
	postfixtest.RequirePostfix(t)
	t.Parallel()
	in := postfixtest.Prepare(t, c)
	if prepare != nil {
		prepare(in)
	}
	s := &story{t: t, mta: in, postfix: in}
	s.start()
	return s
}

// start starts mailbag beside the story's MTA, and that.
func (s *story) start() {
	s.t.Helper()
	dir := s.mta.Path("mailbag")
	s.must(os.Mkdir(dir, 0o755))
	var err error
	s.Service, err = service.New(binaries, dir, s.mta)
	s.must(err)
	if s.nodes != nil {
		s.set(fmt.Sprintf("%q\n", s.Ledger), fmt.Sprintf("%q\n[cluster]\nstate = %q\n", s.nodes.Address(s.machine), dir))
	}
	s.bill(atNoon())
	s.must(s.Start())
	s.t.Cleanup(s.end)
	s.must(s.Wire())
	s.must(s.mta.Start())
}

// atNoon is a time zone in which it is noon, so that no month ends within a story.
func atNoon() string { return fmt.Sprintf("Etc/GMT%+d", time.Now().UTC().Hour()-12) } // west of Greenwich is positive

// bill sets the billing time zone.
func (s *story) bill(zone string) {
	s.t.Helper()
	var err error
	s.zone, err = time.LoadLocation(zone)
	s.must(err)
	settings, err := os.ReadFile(s.Config)
	s.must(err)
	s.must(os.WriteFile(s.Config, fmt.Appendf(settings, "[billing]\ntimezone = %q\n", zone), 0o644))
}

// end stops the daemons and looks at how it went.
func (s *story) end() {
	for _, d := range s.Daemons() {
		if err := d.Stop(); err != nil {
			s.t.Error(err)
		}
		if log := d.Log(); strings.Contains(log, "DATA RACE") || strings.Contains(log, "panic:") {
			s.t.Errorf("%s has a race or a panic", d.Program)
		}
		if s.t.Failed() && d.Log() != "" {
			s.t.Logf("%s said:\n%s", d.Program, d.Log())
		}
	}
}

func (s *story) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// mailbag runs the command line and returns what it prints. A failure ends the test.
func (s *story) mailbag(args ...string) string {
	s.t.Helper()
	out, _, err := s.Mailbag(args...)
	s.must(err)
	return out
}

// beside runs a program of the host beside the MTA, whose mounts are those that it makes. A failure ends the test.
func (s *story) beside(program string, args ...string) {
	s.t.Helper()
	if out, err := s.mta.Command(program, args...).CombinedOutput(); err != nil {
		s.t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
}

// account adds an account and waits until it is in force.
func (s *story) account(name, mode, domain string, more ...string) {
	s.t.Helper()
	s.mailbag(append([]string{"account", "add", name, "--mode", mode, "--domain", domain}, more...)...)
	s.inForce(ascii(domain), name)
}

// inForce waits until an account is, for the MTA and for every daemon that runs: each follows the ledger by itself.
func (s *story) inForce(domain, name string) {
	s.t.Helper()
	s.must(s.AwaitDomain(domain, name))
	for _, d := range []*service.Daemon{s.Turnd, s.Popd} {
		if d.PID() == 0 {
			continue
		}
		s.waitFor(d.Program+" to know "+name, func() bool {
			all, err := s.Metric("mailbag_accounts")
			known, failed := d.Metric("mailbag_accounts")
			return err == nil && failed == nil && known == all
		})
	}
}

// etrn adds an etrn account, whose mail stays in the queue.
func (s *story) etrn(name, domain string, more ...string) {
	s.t.Helper()
	s.account(name, "etrn", domain, append([]string{"--host", "192.0.2.1", "--network", "192.0.2.0/24"}, more...)...)
}

// ascii is the one domain of the stories that needs it as an A-label.
func ascii(domain string) string { return strings.ReplaceAll(domain, "münchen", "xn--mnchen-3ya") }

// lookup is what the MTA finds in a table, empty where it finds nothing.
func (s *story) lookup(table, key string) string {
	s.t.Helper()
	value, err := s.Lookup(table, key)
	s.must(err)
	return value
}

// used is an account's usage in this month, as mailbag usage --json has it.
type used struct {
	Messages int64 `json:"messages"`
	Bytes    int64 `json:"bytes"`
}

func (s *story) usage(account string) used {
	s.t.Helper()
	var list []used
	s.must(json.Unmarshal([]byte(s.mailbag("usage", account, "--json")), &list))
	if len(list) != 1 {
		s.t.Fatalf("mailbag usage %s --json lists %d accounts", account, len(list))
	}
	return list[0]
}

// wantUsage fails the test when an account's usage is another. What was accepted is in the ledger
// before the sender hears so, and no waiting is needed.
func (s *story) wantUsage(account string, want used) {
	s.t.Helper()
	if got := s.usage(account); got != want {
		s.t.Errorf("%s used %+v, want %+v", account, got, want)
	}
}

// send sends a message from outside and returns the replies.
func (s *story) send(from string, data string, to ...string) postfixtest.Outcome {
	s.t.Helper()
	outcome, err := postfixtest.Send(s.mta.Addr(), "", postfixtest.Mail{From: from, To: to, Data: []byte(data)})
	s.must(err)
	return outcome
}

// accept sends a message from outside that has to be accepted, for every recipient.
func (s *story) accept(data string, to ...string) {
	s.t.Helper()
	outcome := s.send("x@elsewhere.example", data, to...)
	refused := slices.ContainsFunc(outcome.Recipients, func(reply string) bool { return reply[0] != '2' })
	if refused || !outcome.Accepted() {
		s.t.Fatalf("not accepted: %+v", outcome)
	}
}

// check has mailbag check the MTA and returns what it finds, and whether it was content.
func (s *story) check() (findings string, content bool) {
	s.t.Helper()
	out, errs, err := s.Mailbag(s.mta.Wiring("check")...)
	return out + errs, err == nil
}

// waitFor waits until a condition holds that other processes bring about.
func (s *story) waitFor(what string, holds func() bool) {
	s.t.Helper()
	s.must(postfixtest.Wait(what, holds))
}

// queued is how many messages are in the queue.
func (s *story) queued() int {
	s.t.Helper()
	list, err := s.mta.Queue()
	s.must(err)
	return len(list)
}

// month is the present month, as the command line takes it.
func (s *story) month() string { return time.Now().In(s.zone).Format("2006-01") }
