package e2e

import (
	"strings"
	"testing"

	mtatest "mailbag/testdata/mta"
	postfixtest "mailbag/testdata/postfix"
)

// TestThreeMachinesAreAsStrictAsOne has an MTA and a mailbag-policyd on each of three machines, which have one ledger, and
// what is changed on one of them is in force on all. Of thirty-six messages that come to all three at once, a limit lets in as many
// as it says.
func TestThreeMachinesAreAsStrictAsOne(t *testing.T) {
	t.Parallel()
	nodes := startNodes(t, t.TempDir())
	var machines []*story
	for i := range nodes.All {
		machines = append(machines, onNodes(t, nodes, i, mtatest.Config{}))
	}
	first := machines[0]
	everywhere := func(domain, account string) {
		for _, m := range machines {
			m.inForce(domain, account)
		}
	}
	for _, a := range []struct {
		name, on, refused string
	}{
		{"defers", "defer", "452 4.2.2 "},
		{"rejects", "reject", "552 5.2.2 "},
	} {
		const limit, senders = 20, 12 // on each machine
		first.etrn(a.name, a.name+".example", "--on-limit", a.on, "--messages", "20")
		everywhere(a.name+".example", a.name)
		var connections []*postfixtest.Client
		for _, m := range machines {
			connections = append(connections, m.beginData(senders, "a@"+a.name+".example")...)
		}
		accepted := int64(0)
		for _, reply := range first.finish(connections) {
			if strings.HasPrefix(reply, "250") {
				accepted++
			} else if !strings.HasPrefix(reply, a.refused) {
				t.Errorf("%s: a message is answered %q", a.name, reply)
			}
		}
		counted := first.usage(a.name).Messages
		if accepted != limit || counted != limit {
			t.Errorf("%s: %d messages were accepted and %d counted, want %d", a.name, accepted, counted, limit)
		}
		for i, m := range machines {
			m.waitFor("the limit to be known at RCPT", func() bool {
				outcome := m.send("x@elsewhere.example", "Subject: more\r\n\r\n", "a@"+a.name+".example")
				if outcome.Accepted() {
					t.Errorf("%s: machine %d accepts one more", a.name, i)
				}
				return strings.HasPrefix(outcome.Recipients[0], a.refused)
			})
		}
		if got := first.usage(a.name).Messages; got != limit {
			t.Errorf("%s: %d messages are counted after others were refused", a.name, got)
		}
	}

	first.account("dent", "pop3", "dent.example", "--catch-all", "no")
	everywhere("dent.example", "dent")
	machines[1].mailbag("mailbox", "add", "dent", "arthur@dent.example", "--generate-password")
	machines[2].etrn("acme", "acme.example")
	everywhere("acme.example", "acme")
	machines[1].mailbag("account", "suspend", "acme")
	for i, m := range machines {
		m.knows("arthur@dent.example")
		m.waitFor("acme to be suspended", func() bool {
			return strings.HasPrefix(m.send("x@elsewhere.example", "Subject: hello\r\n\r\n", "a@acme.example").Recipients[0], "450 4.2.1 ")
		})
		if reply := m.send("x@elsewhere.example", "Subject: hello\r\n\r\n", "ford@dent.example").Recipients[0]; !strings.HasPrefix(reply, "550 5.1.1 ") {
			t.Errorf("machine %d answers an unknown recipient with %q", i, reply)
		}
	}
}
