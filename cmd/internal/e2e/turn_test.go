package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"mailbag/testdata/certificate"
	mtatest "mailbag/testdata/mta"
	"mailbag/testdata/peer"
	postfixtest "mailbag/testdata/postfix"
)

// password is that of every atrn account of the stories.
const password = "correct horse battery staple"

// turning is a story with mailbag-turnd. settings are lines for its part of the settings file, such as "window = 5".
func turning(t *testing.T, c mtatest.Config, settings ...string) *story {
	t.Helper()
	s := begin(t, c)
	s.startTurns(settings...)
	return s
}

// startTurns starts mailbag-turnd with these settings, where they need to know of the story.
func (s *story) startTurns(settings ...string) {
	s.t.Helper()
	if len(settings) > 0 {
		text, err := os.ReadFile(s.Config)
		s.must(err)
		part := "[turn]\n" + strings.Join(settings, "\n") + "\n"
		s.must(os.WriteFile(s.Config, bytes.Replace(text, []byte("[turn]\n"), []byte(part), 1), 0o644))
	}
	certificate.New(s.t, "mx.provider.example").Write(s.t, s.Certificate(), s.Key())
	s.must(s.Turnd.Start())
}

// restless makes the MTA look at its queue all the time.
var restless = mtatest.Config{Restless: true}

// atrn adds an account that fetches its mail by ATRN, and waits until it is in force.
func (s *story) atrn(name string, domains ...string) {
	s.t.Helper()
	s.must(s.addATRN(name, domains...))
	s.inForce(domains[len(domains)-1], name)
}

func (s *story) addATRN(name string, domains ...string) error {
	args := []string{"account", "add", name, "--mode", "atrn", "--password-stdin"}
	for _, d := range domains {
		args = append(args, "--domain", d)
	}
	cmd := s.Command("mailbag", args...)
	cmd.Stdin = strings.NewReader(password + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("mailbag %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// dialled adds an account whose mail server, at addr, gets its mail on ETRN from this machine.
func (s *story) dialled(name, domain, addr string) {
	s.t.Helper()
	s.account(name, "etrn", domain, "--host", addr, "--network", "127.0.0.0/8")
}

// hold puts n messages for an account into the queue and waits until they are held. Each has its own recipient, 1user@,
// 2user@ and so on, by which it is told from the others; octets is how long one is.
func (s *story) hold(n, octets int, domain string) {
	s.t.Helper()
	before := s.idle()
	s.inject(n, octets, "user@"+domain)
	s.must(postfixtest.Wait(fmt.Sprintf("%d messages are held", n), func() bool { return s.deferred() == before+n }))
}

// idle waits until no message is under way, and returns how many wait then: one that was just delivered leaves the queue a
// little later, and a restless MTA takes those that wait out of their queue for each attempt.
func (s *story) idle() (waiting int) {
	s.t.Helper()
	s.waitFor("no message to be under way", func() bool {
		if s.mta.Busy() {
			return false
		}
		waiting = s.deferred()
		return !s.mta.Busy()
	})
	return waiting
}

// inject sends n messages for numbered recipients.
func (s *story) inject(n, octets int, to string) {
	s.t.Helper()
	sessions := min(n, 20)
	cmd := exec.Command("smtp-source", "-N", "-s", fmt.Sprint(sessions), "-m", fmt.Sprint(n), "-l", fmt.Sprint(octets),
		"-f", "x@elsewhere.example", "-t", to, s.mta.Addr())
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("smtp-source: %v\n%s", err, out)
	}
}

// deferred is how many messages wait for turns, or for their next attempt.
func (s *story) deferred() int { return s.mta.Waiting() }

// call fetches an account's mail to the mail server at addr and returns the reply to ATRN, when all is over.
func (s *story) call(account, addr string, domains ...string) string {
	s.t.Helper()
	reply, err := s.caller(account, addr, domains...).Run(s.soon())
	s.must(err)
	return reply
}

func (s *story) caller(account, addr string, domains ...string) peer.Caller {
	return peer.Caller{Server: s.ODMR, User: account, Password: password, Domains: domains, SMTP: addr}
}

// soon is a context for what takes a minute or two.
func (s *story) soon() context.Context {
	ctx, cancel := context.WithTimeout(s.t.Context(), 2*postfixtest.Patience)
	s.t.Cleanup(cancel)
	return ctx
}

// fetch calls until there is nothing more, and fails where that takes more than so many turns.
func (s *story) fetch(account, addr string, turns int) {
	s.t.Helper()
	granted := 0
	s.must(postfixtest.Wait(account+" has no more mail", func() bool { // 451 while another turn ends
		reply, _ := s.caller(account, addr).Run(s.soon())
		if strings.HasPrefix(reply, "250") {
			granted++
		}
		return strings.HasPrefix(reply, "453")
	}))
	if granted > turns {
		s.t.Errorf("it took %s %d turns to fetch everything", account, granted)
	}
}

// etrnAt says ETRN from this machine and returns the reply.
func (s *story) etrnAt(addr, argument string) string {
	s.t.Helper()
	c, err := postfixtest.Dial(addr, "127.0.0.1")
	s.must(err)
	defer c.Close()
	_, err = c.Say("EHLO mail.customer.example")
	s.must(err)
	reply, err := c.Say("ETRN " + argument)
	s.must(err)
	_, err = c.Say("QUIT")
	s.must(err)
	return reply
}

// turnsOf are an account's turns, as mailbag turns --json lists them.
type turnLine struct {
	Account     string   `json:"account"`
	Kind        string   `json:"kind"`
	Messages    int64    `json:"messages"`
	Bytes       int64    `json:"bytes"`
	Outcome     string   `json:"outcome"`
	TLS         string   `json:"tls"`
	Connections int      `json:"connections"`
	Suspects    []string `json:"suspects"` // queue IDs
	Running     bool     `json:"running"`
}

func (s *story) turnsOf(account string) []turnLine {
	s.t.Helper()
	var list []turnLine
	s.must(json.Unmarshal([]byte(s.mailbag("turns", account, "--json", "--limit", "100")), &list))
	return list
}

// open reports whether the account's turn has its socket.
func (s *story) open(account string) bool {
	_, err := os.Stat(s.TurnSocket(account))
	return err == nil
}

// sink is a customer's mail server that records, and offers what any server does.
func sink(t *testing.T) *postfixtest.Sink {
	t.Helper()
	s, err := postfixtest.NewSink()
	if err != nil {
		t.Fatal(err)
	}
	s.Extensions = postfixtest.Chunking
	t.Cleanup(s.Stop)
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	return s
}

// arrived counts messages by their recipients.
func arrived(messages []postfixtest.Message) map[string]int {
	n := map[string]int{}
	for _, m := range messages {
		for _, to := range m.Recipients {
			n[to]++
		}
	}
	return n
}

// wantEach fails the test unless each of n messages that were injected has arrived, once, or at least once where again is
// allowed.
func (s *story) wantEach(n int, domain string, got map[string]int, again bool) {
	s.t.Helper()
	missing, twice := 0, 0
	for i := range n {
		// smtp-source numbers from 1, backwards or not depending on the version.
		switch c := got[fmt.Sprintf("%duser@%s", i+1, domain)]; {
		case c == 0:
			missing++
		case c > 1:
			twice++
		}
	}
	if missing > 0 || twice > 0 && !again {
		s.t.Errorf("of %d messages for %s %d are missing, %d came more than once (%d recipients in all)", n, domain, missing, twice, len(got))
	}
}

// background runs f beside the test, which waits for it at its end.
func (s *story) background(f func()) {
	var running sync.WaitGroup
	running.Go(f)
	s.t.Cleanup(running.Wait)
}
