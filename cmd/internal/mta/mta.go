// Package mta is what mailbag asks of the mail transfer agent beside which it runs, whichever that is. Packages
// postfix and exim are the two that do it; package host tells which one this machine has. What is said to people takes
// its words from the System.
//
// It promises that a caller need not know which MTA answers: errors that lead to another way of doing things are the
// ones here, for errors.Is, and what one MTA does not need is done by a method that has nothing to do.
//
// It has no code that touches an MTA.
package mta

import (
	"context"
	"errors"
	"iter"
	"strings"
	"time"

	"mailbag/meter"
	"mailbag/policy/routes"
)

// Sentinel errors, for errors.Is.
var (
	ErrMissing = errors.New("the MTA is not installed")
	ErrTooOld  = errors.New("the MTA is too old")
	ErrBroken  = errors.New("the configuration of the MTA is broken")
	// ErrNotWired is what standing aside and stepping in need.
	ErrNotWired = errors.New("mailbag is not wired into this MTA")
	// ErrSilent is a mailbag-policyd that the MTA would ask in vain.
	ErrSilent = errors.New("mailbag-policyd does not answer the MTA")
	// ErrTruncated means that a listing of the queue ended early. What was read until then is not the whole queue.
	ErrTruncated = errors.New("the listing of the queue is incomplete")
	// ErrUnreachable is a helper of ours, through which the MTA is asked, that does not answer.
	ErrUnreachable = errors.New("the MTA cannot be asked")
)

// A System is one MTA of this machine. Its methods may be called at once.
type System interface {
	Queue
	Wiring

	Words() Words
	Places() Places

	// Identity reads who this MTA is. The error is ErrMissing, ErrBroken or ErrUnreachable.
	Identity(context.Context) (Identity, error)

	// Log is where it says what became of messages, and how that is read.
	Log(context.Context) Log

	// Submit hands a message with the null sender (RFC 5321, section 4.5.5) to the MTA. It is in the MTA's queue when
	// Submit returns nil, and there it is whole or not at all, also when this process is killed.
	Submit(ctx context.Context, message string, to ...string) error

	// Tables are the files in which the MTA finds by itself whose domain is an account's and which way its mail takes,
	// in the order in which they are to be written.
	Tables(routes.Sockets, *meter.Directory) []routes.Table
}

// A Queue is the mail that an MTA has. A message that is gone is an error of none of its methods.
type Queue interface {
	// Queue lists all messages, one entry in memory at a time. A listing that fails or ends early yields an error as its
	// last element, ErrTruncated among them, so that it never looks like a shorter queue. Leaving the loop early ends it.
	Queue(context.Context) iter.Seq2[Entry, error]

	// Missing returns those of the messages that the queue does not have for delivery: they are gone, or on hold.
	Missing(ctx context.Context, ids []string) ([]string, error)

	// Release makes the MTA try these messages now and nothing else. It does not wait for a delivery longer than it
	// has to, and does not learn of one.
	Release(ctx context.Context, ids ...string) error

	// Return makes the MTA give these messages back to their senders, with a delivery status notification for each of
	// the recipients that still wait. May be called again for messages that linger. Needs root.
	Return(ctx context.Context, ids ...string) error

	// Flush makes the MTA try now what it has for one domain and could not deliver.
	Flush(ctx context.Context, domain string) error

	// Hold sees that nothing tries these messages, which wait for turns, before they are released. An MTA whose queue
	// runs leave them alone by themselves has nothing to do.
	Hold(ctx context.Context, ids ...string) error

	// Unhold undoes that for messages that do not wait for turns any more, and tries them. One that is in delivery stays
	// held.
	Unhold(ctx context.Context, ids ...string) error

	// Reroute takes the messages to the new way of an account that held them, or put them into mailboxes, until now, and
	// tries them. It returns those that still took the former way when it gave up; look is told of how many are left.
	Reroute(ctx context.Context, r Reroute, left func(messages int)) ([]string, error)

	// Unfinished lists the messages whose content came in whole and which the MTA did not come to accept, because
	// it was killed in between. An MTA that leaves none behind has nothing to list.
	Unfinished(context.Context) ([]string, error)

	// Try does what turns do with the queue, without touching a message: it lists the beginning, and
	// releases a message that nobody has.
	Try(context.Context) error
}

// A Reroute is what changes its way.
type Reroute struct {
	IDs     []string
	Domains []string // of the account, A-labels
	Former  []string // sockets of the ways that are not the account's any more
}

// An Entry is one message in the queue.
type Entry struct {
	Queue      string // the MTA's word for where it is, such as "active", "deferred" or "hold"
	ID         string
	Arrival    time.Time // UTC, to the second at least
	Size       int64     // octets, as the MTA counts them
	Sender     string    // empty for the null sender
	OnHold     bool      // by the operator or a content filter: no release moves it
	Held       bool      // where no queue run of the MTA tries it
	Expiring   bool      // it is being returned
	Uncounted  bool      // it could not be counted when it was accepted, and is at an attempt to deliver it
	Recipients []Recipient
}

// A Recipient is one to whom the message is still to be delivered.
type Recipient struct {
	Address string `json:"address"`
	Reason  string `json:"delay_reason"` // why it waits, where the MTA says so; empty before the first attempt
}

// Waiting is the entry as the ledger takes it. What is on hold waits for the operator and for none of its recipients.
func (e Entry) Waiting() meter.QueuedMessage {
	m := meter.QueuedMessage{ID: e.ID, Size: e.Size, Arrived: e.Arrival}
	if e.OnHold {
		return m
	}
	for _, r := range e.Recipients {
		m.Recipients = append(m.Recipients, r.Address)
	}
	return m
}

// Misplaced reports whether a message waits for accounts alone whose mail is held, and is not held itself; and whether it is held,
// and waits for an account whose mail is not. The operator's hold goes before both.
func (e Entry) Misplaced(d *meter.Directory) (hold, unhold bool) {
	if e.OnHold || len(e.Recipients) == 0 {
		return false, false
	}
	held, other := true, false
	for _, r := range e.Recipients {
		var a *meter.Account
		if domain, err := meter.NormalizeDomain(r.Address[strings.LastIndexByte(r.Address, '@')+1:]); err == nil {
			a = d.Domain(domain)
		}
		held = held && a != nil && a.Held()
		other = other || a != nil && !a.Held()
	}
	return held && !e.Held, other && e.Held
}

// Words are what people call things in this MTA.
type Words struct {
	Name    string             // "Postfix", "Exim"
	Command string             // the command group of mailbag that wires it: "postfix", "exim"
	Unit    string             // of systemd: "postfix.service", "exim4.service"
	Program string             // that listens for SMTP, as /proc/PID/comm has it: "master", "exim4"
	Start   string             // the command that starts it
	Status  string             // the command that tells whether it runs
	Reload  string             // the command that has it read its configuration and what it remembers anew
	Test    string             // the command that tells what is wrong with its configuration
	Log     string             // where it says what it did, for people
	Unhold  func(Entry) string // the command that takes a message off hold, before its queue ID
	Delete  string             // the command that deletes a message, before its queue ID
	Lingers string             // what of it goes on with an account's former TLS until a reload; empty: nothing
	// Refuses says why mail from outside is refused for every address with this local part, by the MTA's usual settings;
	// empty: it is not.
	Refuses func(local string) string
	Reach   string // what to do where a daemon of ours cannot list its queue or release mail
}

// Places are where mailbag and this MTA meet, unless the settings say otherwise.
type Places struct {
	Policy string // socket at which it asks mailbag-policyd
	Milter string // socket at which it shows messages to it; empty: it does not
	Tables string // directory of the tables
	Group  string // with which its deliveries run, and which may connect to sockets of ours
	Helper string // program of ours through which daemons do what takes privileges, at a socket of systemd's; empty: none
}
