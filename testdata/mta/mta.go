// Package mtatest is the private mail transfer agent of a test that runs with either: a Postfix (package postfixtest) or an
// Exim (package eximtest). What an [Instance] is asked is what both can tell.
package mtatest

import (
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"

	eximtest "mailbag/testdata/exim"
	postfixtest "mailbag/testdata/postfix"
)

// An Instance is one private MTA.
type Instance interface {
	// Name is that of the command group of mailbag that wires it: "postfix" or "exim". String is as people write it.
	Name() string
	String() string
	Addr() string
	// Path is one in the instance's directory, the same for all programs.
	Path(name ...string) string

	Start() error
	// Stop ends the MTA as its own command does. It may be started again.
	Stop() error
	// Close ends all that the instance has. It cannot be used any more.
	Close() error
	Reload() error
	// Settle has what was changed before count as changed long ago.
	Settle() error
	// Reread has the MTA look at mailbag's tables now.
	Reread() error

	// Command is a program beside this MTA.
	Command(path string, args ...string) *exec.Cmd
	// Wiring are the arguments with which mailbag is told to set up this MTA, or to check it.
	Wiring(verb string) []string
	// Socket is where mailbag-policyd listens for this MTA, by the name "policy" or "milter"; empty: it does not.
	Socket(name string) string
	// Tables is the directory of mailbag's tables.
	Tables() string
	// Settings are the lines of [policy] that say both; none: they are at their usual places.
	Settings() string
	// User is the user, and the group of that number, that mailbag's daemons have beside this MTA.
	User() int
	// Helper is the daemon that does for them what takes privileges with this MTA, and its socket; none: they need none.
	Helper() (program, socket string)
	// Gid is the group with which the MTA delivers.
	Gid() int
	// Held is the account for whose turns mail waits that takes a way in a table; held is false for another way.
	Held(way string) (account string, held bool)

	Queue() ([]postfixtest.Entry, error)
	WaitQueue(what string, holds func([]postfixtest.Entry) bool) error
	// Waiting counts the messages that are held or deferred, faster than Queue.
	Waiting() int
	// Busy reports whether a message is under way.
	Busy() bool
	// FlushQueue tries every message, as an operator may.
	FlushQueue() error
	// HoldAll puts all messages on hold, as an operator may, or takes them off hold.
	HoldAll(on bool) error
	// Sendmail submits a message as a program of the host does.
	Sendmail(data, from string, to ...string) error

	Log() string
	WaitLog(text string) error
	// Bounced counts the recipients, as logged, that were given up, and Notified the messages that say so to senders.
	Bounced() int
	Notified() int
}

// Config is what both can be. The zero value is an MTA that works.
type Config struct {
	// Restless is an MTA that tries deferred mail again within seconds.
	Restless bool
	// Relays are domains for which mail is taken from everybody, and the host:port to which it goes.
	Relays map[string]string
	// Local are domains of the MTA's own, whose mail is discarded.
	Local []string
	// Postfix are parameters of main.cf, and Exim lines of the main section, for what they say in words of their own.
	Postfix map[string]string
	Exim    string
}

// Names are those of the MTAs.
func Names() []string { return slices.Sorted(maps.Keys(known)) }

var known = map[string]struct {
	available func() error
	prepare   func(testing.TB, Config) Instance
	build     func(dir string, c Config) (Instance, error)
}{
	"postfix": {
		postfixtest.Available,
		func(t testing.TB, c Config) Instance { return postfixtest.Prepare(t, c.postfix()) },
		func(dir string, c Config) (Instance, error) { return postfixtest.New(dir, c.postfix()) },
	},
	"exim": {
		eximtest.Available,
		func(t testing.TB, c Config) Instance { return eximtest.Prepare(t, c.exim()) },
		func(dir string, c Config) (Instance, error) { return eximtest.New(dir, c.exim()) },
	},
}

// Available is nil where a private one of this name can run.
func Available(name string) error {
	mta, ok := known[name]
	if !ok {
		return fmt.Errorf("there is no MTA %q; there are %s", name, strings.Join(Names(), " and "))
	}
	return mta.available()
}

// New builds an instance in dir, which must exist, be empty and be reachable by other users. It starts nothing. The
// instance has to be closed.
func New(name, dir string, c Config) (Instance, error) {
	if err := Available(name); err != nil {
		return nil, err
	}
	return known[name].build(dir, c)
}

// Prepare builds an instance for a test, without starting it. It is closed and removed when the test ends; a failed test
// shows the end of its log. Where it cannot run, the test is skipped.
func Prepare(t testing.TB, name string, c Config) Instance {
	t.Helper()
	if err := Available(name); err != nil {
		t.Skip(err)
	}
	return known[name].prepare(t, c)
}

func (c Config) postfix() postfixtest.Config {
	main := map[string]string{}
	if c.Restless {
		main = postfixtest.Restless()
	}
	if len(c.Relays) > 0 {
		var ways strings.Builder
		for domain, at := range c.Relays {
			host, port, _ := strings.Cut(at, ":")
			fmt.Fprintf(&ways, "{ %s = smtp:[%s]:%s } ", domain, host, port)
		}
		main["transport_maps"] = "inline:{ " + ways.String() + "}"
		main["relay_domains"] = strings.Join(slices.Sorted(maps.Keys(c.Relays)), " ")
	}
	if len(c.Local) > 0 {
		main["mydestination"] = "$myhostname, localhost, " + strings.Join(c.Local, ", ")
		main["local_recipient_maps"], main["local_transport"] = "", "discard"
	}
	maps.Copy(main, c.Postfix)
	return postfixtest.Config{Main: main}
}

func (c Config) exim() eximtest.Config {
	return eximtest.Config{Main: c.Exim, Relays: c.Relays, Local: c.Local, Restless: c.Restless}
}
