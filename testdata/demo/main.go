// Demo shows mailbag at work in a few seconds: a private Postfix or Exim on loopback, wired by mailbag, with customers, real
// mail over SMTP, a customer's server that is away and comes back, customers who fetch their mail by ATRN and ETRN with
// fetchmail, and the usage that was metered. It touches nothing outside its own temporary directory and leaves nothing behind.
package main

import (
	"bytes"
	"cmp"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	mtatest "mailbag/testdata/mta"
	postfixtest "mailbag/testdata/postfix"
	"mailbag/testdata/service"
)

func main() {
	bin := flag.String("bin", "bin", "directory of the programs")
	mta := flag.String("mta", "postfix", "what mailbag stands beside: "+strings.Join(mtatest.Names(), " or "))
	flag.Parse()
	if err := demo(*bin, *mta); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func demo(bin, mta string) (err error) {
	if err := mtatest.Available(mta); err != nil {
		return fmt.Errorf("the demo needs a real MTA: %w", err)
	}
	if bin, err = filepath.Abs(bin); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "mailbag-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // the MTA's own user has to get in
		return err
	}
	if bin, err = service.Programs(bin, dir); err != nil {
		return err
	}
	s, err := build(bin, dir, mta)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.strike()) }()
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	done := make(chan error, 1)
	go func() { done <- s.play() }()
	select {
	case err := <-done:
		return err
	case <-interrupted: // strike ends what the play waits for
		return errors.New("interrupted")
	}
}

// stage is what the demo plays on.
type stage struct {
	*service.Service
	dir      string
	mta      mtatest.Instance
	customer *postfixtest.Sink // acme's mail server
	globex   *postfixtest.Sink // and those of the customers who fetch
	bolt     *postfixtest.Sink
}

func build(bin, dir, name string) (*stage, error) {
	home := filepath.Join(dir, name)
	if err := os.Mkdir(home, 0o755); err != nil {
		return nil, err
	}
	mta, err := mtatest.New(name, home, mtatest.Config{Restless: true}) // nobody wants to wait five minutes for the first retry
	if err != nil {
		return nil, err
	}
	var servers [3]*postfixtest.Sink
	for i := range servers {
		if servers[i], err = postfixtest.NewSink(); err != nil {
			return nil, err
		}
		servers[i].Extensions = postfixtest.Chunking
	}
	programs, err := service.New(bin, dir, mta)
	return &stage{programs, dir, mta, servers[0], servers[1], servers[2]}, err
}

// strike takes the stage down.
func (s *stage) strike() error {
	for _, server := range []*postfixtest.Sink{s.customer, s.globex, s.bolt} {
		server.Stop()
	}
	err := s.mta.Stop()
	for _, d := range s.Daemons() {
		err = errors.Join(err, d.Stop())
	}
	return errors.Join(err, s.mta.Close())
}

func (s *stage) play() error {
	for _, act := range []struct {
		title string
		play  func() error
	}{
		{"A private " + s.mta.String() + ", wired by mailbag", s.wire},
		{"Customers", s.customers},
		{"Mail arrives while the customer's server is away", s.arrive},
		{"The customer's server comes back", s.deliver},
		{"Mail is held for customers who fetch it", s.hold},
		{"globex fetches by ATRN", s.reverse},
		{"bolt has its mail delivered by ETRN", s.trigger},
		{"A catch-all for a POP3 connector", s.mailboxes},
		{"What it all adds up to", s.bill},
	} {
		fmt.Printf("\n\033[1m== %s\033[0m\n", act.title)
		if err := act.play(); err != nil {
			return err
		}
	}
	fmt.Println("\nThat was real mail through a real", s.mta.String()+". README.md tells how to do it on yours.")
	return nil
}

func (s *stage) wire() error {
	if err := s.Start(); err != nil {
		return err
	}
	if err := s.mailbag(s.mta.Wiring("setup")...); err != nil {
		return err
	}
	if err := errors.Join(s.mta.Start(), s.globex.Start(), s.bolt.Start()); err != nil {
		return err
	}
	fmt.Printf("%s answers on %s; its settings are Debian's with the lines above.\n", s.mta, s.mta.Addr())
	return nil
}

func (s *stage) customers() error {
	for _, args := range [][]string{
		{"account", "add", "acme", "--mode", "backup", "--domain", "acme.example", "--host", s.customer.Addr(), "--recipients", "list"},
		{"recipient", "add", "acme", "info@acme.example", "sales@acme.example"},
	} {
		if err := s.mailbag(args...); err != nil {
			return err
		}
	}
	if err := s.asking(); err != nil {
		return err
	}
	for _, args := range [][]string{
		s.mta.Wiring("setup"), // as the lines before ask
		{"account", "list"},
	} {
		if err := s.mailbag(args...); err != nil {
			return err
		}
	}
	if err := s.mta.Reload(); err != nil {
		return err
	}
	return s.AwaitDomain("globex.example", "globex")
}

func (s *stage) arrive() error {
	sent := 0
	for _, m := range []postfixtest.Mail{
		{From: "alice@sender.example", To: []string{"info@acme.example", "nobody@acme.example"}, Data: letter("Order 4711", 40)},
		{From: "bob@sender.example", To: []string{"sales@acme.example", "ceo@globex.example"}, Data: letter("For both of you", 400)},
		{From: "carol@sender.example", To: []string{"ceo@globex.example"}, Data: letter("Minutes", 90)},
	} {
		for len(m.To) > 0 {
			outcome, err := postfixtest.Send(s.mta.Addr(), "", m)
			if err != nil {
				return err
			}
			fmt.Printf("%s, %d octets\n", m.From, len(m.Data))
			var again []string // whom the server wants in a message of their own
			for i, to := range m.To {
				fmt.Printf("    RCPT TO:<%s>  %s\n", to, outcome.Recipients[i])
				if strings.HasPrefix(outcome.Recipients[i], "452") {
					again = append(again, to)
				}
			}
			fmt.Printf("    DATA  %s\n", outcome.Data)
			if err := unless(outcome.Accepted(), outcome.Data); err != nil {
				return err
			}
			m.To = again
			sent++
		}
	}
	fmt.Printf("In %s's queue:\n", s.mta)
	return s.queue(s.mta.String()+" has tried and holds the mail", sent)
}

func (s *stage) deliver() error {
	if err := s.customer.Start(); err != nil {
		return err
	}
	messages, err := s.customer.WaitMessages(2)
	if err != nil {
		return err
	}
	for _, m := range messages {
		_, content, _ := bytes.Cut(m.Data, []byte("\r\nFrom: someone"))
		fmt.Printf("delivered to %s: %d octets, and %s's Received line\n", strings.Join(m.Recipients, ", "), len("From: someone")+len(content), s.mta)
	}
	fmt.Println("globex's mail is held until globex asks for it:")
	return s.queue("acme's mail has left the queue", 2)
}

func (s *stage) bill() error {
	for _, args := range [][]string{{"usage"}, {"usage", "acme", "--json"}, {"account", "show", "globex"}} {
		if err := s.mailbag(args...); err != nil {
			return err
		}
	}
	return nil
}

// mailbag runs the command line and shows it with what it prints.
func (s *stage) mailbag(args ...string) error {
	shown := strings.ReplaceAll(strings.Join(args, " "), s.mta.Path("etc"), "DIR")
	fmt.Printf("\033[2m# mailbag %s\033[0m\n", shown)
	cmd := s.Command("mailbag", args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("mailbag %s: %w", shown, err)
	}
	return nil
}

// queue shows what the MTA holds once so many messages wait for their next attempt and no others.
func (s *stage) queue(what string, n int) error {
	return s.mta.WaitQueue(what, func(queue []postfixtest.Entry) bool {
		if len(queue) != n {
			return false
		}
		var lines strings.Builder
		for _, entry := range queue {
			for _, recipient := range entry.Recipients {
				if !entry.Waits() || entry.Queue == "deferred" && recipient.DelayReason == "" {
					return false
				}
				reason, _, _ := strings.Cut(cmp.Or(recipient.DelayReason, entry.Queue), "[")
				fmt.Fprintf(&lines, "    %-12s %6d octets  %-20s %s\n", entry.ID, entry.Size, recipient.Address, strings.TrimSpace(reason))
			}
		}
		fmt.Print(lines.String())
		return true
	})
}

// letter is a message of so many lines.
func letter(subject string, lines int) []byte {
	return []byte("From: someone@sender.example\r\nSubject: " + subject + "\r\n\r\n" + strings.Repeat("All work and no play makes Jack a dull boy.\r\n", lines))
}
