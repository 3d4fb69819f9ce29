package eximtest

import (
	"fmt"
	"os"
	"strings"

	postfixtest "mailbag/testdata/postfix"
)

// Name is that of the command group of mailbag that wires the instance.
func (in *Instance) Name() string { return "exim" }

func (in *Instance) String() string { return "Exim" }

// Wiring are the arguments with which mailbag is told to set up this instance, or to check it.
func (in *Instance) Wiring(verb string) []string { return []string{"exim", verb} }

// Socket is where mailbag-policyd listens for this instance, by the name "policy", as seen from outside. Exim has no milter.
func (in *Instance) Socket(name string) string {
	if name == "milter" {
		return ""
	}
	return in.Root("/run/mailbag/" + name + ".sock")
}

// Tables is the directory of mailbag's tables, as seen from outside.
func (in *Instance) Tables() string { return in.Root("/var/lib/mailbag/exim") }

// Settings are none: both are at their usual places.
func (in *Instance) Settings() string { return "" }

// Held is the account for whose turns mail waits that takes a way in a table; held is false for another way.
func (in *Instance) Held(way string) (account string, held bool) {
	for field := range strings.FieldsSeq(way) {
		switch name, value, _ := strings.Cut(field, "="); {
		case name == "account":
			account = value
		case field == "transport=turn":
			held = true
		}
	}
	return account, held
}

// User is that of mailbag's daemons, and their group, in the instance's root.
func (in *Instance) User() int { return mailbagUID }

// Helper is the daemon that has Exim's privileges for them, and its socket, as seen from outside.
func (in *Instance) Helper() (program, socket string) { return "mailbag-eximd", in.Socket("exim") }

// Gid is the group with which Exim delivers.
func (in *Instance) Gid() int { return uid }

// HoldAll freezes all messages, or thaws them. One that a process of Exim's has at that moment is asked for again.
func (in *Instance) HoldAll(on bool) error {
	option := "-Mt"
	if on {
		option = "-Mf"
	}
	for _, queue := range queues {
		list, err := in.list(queue)
		if err != nil {
			return err
		}
		var left []string
		err = postfixtest.Wait("all messages to be as "+option+" makes them", func() bool {
			left = left[:0]
			for _, e := range list {
				if frozen, there := in.frozen(queue, e.ID); there && frozen != on {
					left = append(left, e.ID)
				}
			}
			if len(left) > 0 {
				_, _ = in.run("/usr/sbin/exim4", append([]string{"-qG" + queue, option}, left...)...) // the files tell
			}
			return len(left) == 0
		})
		if err != nil {
			return fmt.Errorf("%w: not so are %q", err, left)
		}
	}
	return nil
}

// frozen reports whether a message is, and whether it is there at all.
func (in *Instance) frozen(queue, id string) (frozen, there bool) {
	text, err := os.ReadFile(in.file(queue, "input", id+"-H"))
	return strings.Contains(string(text), "\n-frozen "), err == nil
}

// Settle does nothing: Exim takes a file of any age.
func (in *Instance) Settle() error { return nil }

// Reread does nothing: Exim's next lookup is in the new table.
func (in *Instance) Reread() error { return nil }

// Sendmail submits a message, with CRLF line ends, as a program of the host does.
func (in *Instance) Sendmail(data, from string, to ...string) error {
	cmd := in.Command("/usr/sbin/sendmail", append([]string{"-i", "-f", from, "--"}, to...)...)
	cmd.Stdin = strings.NewReader(strings.ReplaceAll(data, "\r\n", "\n"))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("sendmail: %w: %s", err, out)
	}
	return nil
}

// Notified counts the messages, as logged, that tell senders of a failure.
func (in *Instance) Notified() int { return strings.Count(in.Log(), " <= <> R=") }

// Bounced counts the recipients, as logged, that were given up.
func (in *Instance) Bounced() int { return strings.Count(in.Log(), " ** ") }
