package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	mtatest "mailbag/testdata/mta"
	postfixtest "mailbag/testdata/postfix"
)

// hangs reports whether no thread of a process goes on (proc_pid_stat(5)): each stops by itself when it is told to.
func hangs(pid int) bool {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	return err == nil && len(tasks) > 0 && !slices.ContainsFunc(tasks, func(task string) bool {
		stat, err := os.ReadFile(task)
		return err != nil || !strings.Contains(string(stat), ") T ")
	})
}

// TestOthersMailComesWhileThePolicydIsAway takes mailbag-policyd away in every way it can go, and sends mail for an account and
// for others by one connection each time.
func TestOthersMailComesWhileThePolicydIsAway(t *testing.T) {
	if besides() != "exim" {
		t.Skipf("not beside %s: it asks about everybody's mail, and puts all of it off until mailbag stands aside", besides())
	}
	for name, away := range map[string]func(s *story) (back func()){
		"stopped": func(s *story) func() {
			s.must(s.Stop())
			return func() { s.must(s.Start()) }
		},
		"hung": func(s *story) func() {
			s.must(syscall.Kill(s.PID(), syscall.SIGSTOP))
			s.waitFor("all of its threads to be stopped", func() bool { return hangs(s.PID()) })
			return func() { s.must(syscall.Kill(s.PID(), syscall.SIGCONT)) }
		},
		"killed with its socket open": func(s *story) func() {
			s.must(s.Stop())
			s.must(s.HoldSockets())
			s.must(s.Start())
			s.Kill()
			return func() { s.must(s.Start()) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			other := postfixtest.RunSink(t)
			s := begin(t, mtatest.Config{Local: []string{"local.example"}, Relays: map[string]string{"other.example": other.Addr()}})
			s.etrn("acme", "acme.example")
			data, size := letter("away", 3)
			s.accept(data, "a@acme.example")
			back := away(s)
			t.Cleanup(func() { back() })
			c, err := postfixtest.Dial(s.mta.Addr(), "")
			s.must(err)
			defer c.Close()
			s.must(say(c, "EHLO client.example", "250"))
			for range 2 {
				for to, want := range map[string]string{"a@acme.example": "451", "a@local.example": "250", "a@other.example": "250"} {
					outcome, err := c.Send(postfixtest.Mail{From: "x@elsewhere.example", To: []string{to}, Data: []byte(data)})
					s.must(err)
					if !strings.HasPrefix(outcome.Recipients[0], want) || want == "250" && !outcome.Accepted() {
						t.Errorf("mail for %s is answered %+v, want %s", to, outcome, want)
					}
					if want == "451" {
						s.must(say(c, "RSET", "250"))
					}
				}
				s.must(say(c, "ETRN acme.example", "458"))
			}
			_, err = other.WaitMessages(2)
			s.must(err)
			back()
			back = func() {}
			s.waitFor("mail is accepted again", func() bool {
				return s.send("x@elsewhere.example", data, "a@acme.example").Accepted()
			})
			s.waitFor("nothing to be stuck", func() bool { return s.queued() == 2 })
			s.wantUsage("acme", used{2, 2 * size})
		})
	}
}
