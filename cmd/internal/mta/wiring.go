package mta

import (
	"context"
	"fmt"
	"net/netip"
	"time"
)

// Wiring is how mailbag is made part of an MTA's configuration, and taken out of it. All of it needs root.
type Wiring interface {
	// Plan computes what setup would change; where mailbag stands aside, it still does afterwards. The error is
	// ErrMissing, ErrTooOld or ErrBroken, or says what this MTA lacks.
	Plan(context.Context, Needs) (Plan, error)

	// Fits reports whether Plan would change nothing. The MTA does not look at itself for that, which takes it longer.
	Fits(context.Context, Needs) (bool, error)

	// PlanRemoval computes what taking the wiring back would change. Former values come back where nobody changed ours in
	// between; elsewhere ours alone is cut out.
	PlanRemoval(context.Context, Needs) (Plan, error)

	// PlanAside computes what lets others' mail go on without mailbag-policyd, and puts off that of the accounts. Where
	// mailbag stands aside already, there is nothing to change. The error is as with Plan, or ErrNotWired.
	PlanAside(ctx context.Context, since time.Time) (Plan, error)

	// PlanIn computes what ends a PlanAside. The error is as there.
	PlanIn(context.Context) (Plan, error)

	// Check compares the MTA with what is needed, and names what is missing or works against it, faults first.
	Check(context.Context, Needs) ([]Finding, error)

	// Conflicts looks for domains (A-labels, lower case) that the MTA would deliver in another way than to us.
	Conflicts(ctx context.Context, domains ...string) ([]Conflict, error)

	// Answers returns nil when mailbag-policyd answers where this MTA asks it, for the user as whom the MTA's processes
	// run, before ctx ends; else ErrSilent. With needs it is where this MTA asks once Plan has been applied for them.
	Answers(context.Context, Needs) error

	// FormerLifetimes returns what setup raised, as far as its values still stand.
	FormerLifetimes(context.Context) (Lifetimes, error)

	// Lock waits until nobody else plans changes of this MTA, and keeps others from it until unlock is called.
	Lock(context.Context) (unlock func(), err error)

	// Running reports whether the mail system runs.
	Running(context.Context) (bool, error)
}

// Needs are what the accounts and the settings need of an MTA.
type Needs struct {
	Tables      string        // directory of the tables
	Policy      string        // socket of mailbag-policyd
	Turns       string        // directory of the accounts' turn sockets
	Deliver     string        // socket of the delivery into mailboxes
	LongestHold time.Duration // of any account; the MTA must not return mail earlier. 0: leave the lifetimes alone
	Verify      bool          // an account has its recipients verified by its own server
	RequireTLS  bool          // mail of a backup account leaves by TLS only, whatever certificate its server shows
	VerifyTLS   bool          // mail of a backup account leaves by TLS only, for a server whose certificate is good
	Domains     []string      // the accounts' domains, A-labels; Check looks for them in other places
}

// A Plan is a set of changes to one MTA's configuration. It is good for the configuration that it was made from.
type Plan interface {
	// Empty reports whether there is nothing to change.
	Empty() bool
	// Diff shows the changes, a removed line with "-" and an added one with "+" in front, under the name of its file.
	Diff() string
	// AsideSince is since when mailbag stands aside once the changes are made; zero: it does not.
	AsideSince() time.Time
	// Apply makes the changes and has the MTA read them if it runs, which it reports. When a step fails, or the MTA does
	// not take the new configuration, everything is put back as it was.
	Apply(context.Context) (reloaded bool, err error)
}

// A Severity says how bad a finding is.
type Severity string

const (
	Fault   Severity = "fault"   // mail is lost, refused, kept or counted in another way than it should be
	Warning Severity = "warning" // some mail is not metered or an operator may be surprised
	Hint    Severity = "hint"    // worth knowing
)

// A Finding is one thing that Check has to say.
type Finding struct {
	Severity Severity `json:"severity"`
	Text     string   `json:"text"`   // what is so
	Remedy   string   `json:"remedy"` // what to do
}

// Remedies by which findings that have one cause are told; step-in is the MTA's own command.
const StartPolicyd = "start mailbag-policyd, and look at its log and at [policy] in mailbag.toml"

// StepIn is the remedy for a mailbag that stands aside.
func (w Words) StepIn() string {
	return fmt.Sprintf("see why mailbag-policyd does not run; when it does, run: mailbag %s step-in", w.Command)
}

// A Conflict is a domain of ours that the MTA would not relay, because it is its own in another way.
type Conflict struct {
	Domain    string
	Parameter string // such as "mydestination" or "dc_other_hostnames"
	Entry     string // what matched: the name, file or table
}

func (k Conflict) String() string {
	return fmt.Sprintf("the domain %s is also in %s (%s): its mail does not reach mailbag", k.Domain, k.Parameter, k.Entry)
}

// Lifetimes are how long the MTA kept mail before setup raised that for the accounts' hold times.
type Lifetimes struct {
	Message Lifetime
	Bounce  Lifetime // of mail with the null sender
}

// A Lifetime is one that setup raised; the zero value is one that it left alone, which the MTA still keeps to.
type Lifetime struct {
	Raised bool
	Was    time.Duration
}

// An Identity is what an MTA is to others: its name, and where it listens.
type Identity struct {
	Hostname    string       // by which it greets
	Directories []string     // on whose disks it wants room: that of its queue, and others
	Owner       string       // as whom its processes run
	Ports       []uint16     // where mail comes in by SMTP; sorted
	Holds       bool         // what is held for accounts is in its queue
	Addresses   []netip.Addr // that lead here although no interface has them
	Doors       []Door       // the services behind Ports, those of port 25 first
	Wired       bool         // mailbag is in its configuration
	Aside       time.Time    // since when mailbag stands aside; zero: it does not
}

// A Door is a service through which mail comes in by SMTP.
type Door struct {
	Address string // host:port that a program on this machine connects to
	TLS     bool   // from the first octet
	Screen  bool   // it may let a client wait before it greets
}
