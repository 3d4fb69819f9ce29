package policy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"mailbag/meter"
)

// answer decides over a request in place.
func (d *desk) answer(t testing.TB, attributes ...string) string {
	t.Helper()
	var r request
	if err := r.parse([]byte(requestText(attributes...))); err != nil {
		t.Fatal(err)
	}
	return d.decide(context.Background(), &r).action
}

func TestRecipientIsDecided(t *testing.T) {
	t.Parallel()
	d := openDesk(t, customers(), nil)
	unread := openDesk(t, customers(), nil)
	unread.faults.unread.Store(true)
	down := openDesk(t, customers(), nil)
	down.faults.unavailable.Store(true)
	for _, test := range []struct {
		name      string
		desk      *desk
		recipient string
		action    string // its beginning
	}{
		{"ours", d, "user@acme.example", "DUNNO"},
		{"not ours", d, "user@other.example", "DUNNO"},
		{"suspended", d, "user@gone.example", "450 4.2.1 "},
		{"listed", d, "known@listed.example", "DUNNO"},
		{"listed with an extension", d, "Known+x@Listed.Example", "DUNNO"},
		{"not listed", d, "other@listed.example", "550 5.1.1 "},
		{"to verify", d, "any@spare.example", "reject_unverified_recipient"},
		{"smuggled", d, "user%acme.example@[192.0.2.1]", "553 5.1.3 "},
		{"ledger never read", unread, "user@acme.example", "451 4.3.0 "},
		{"ledger never read, not ours", unread, "user@other.example", "451 4.3.0 "},
		{"ledger unavailable", down, "user@acme.example", "451 4.3.0 "},
		{"ledger unavailable, suspended", down, "user@gone.example", "451 4.3.0 "},
		{"ledger unavailable, not ours", down, "user@other.example", "DUNNO"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			for _, state := range []string{"RCPT", "VRFY"} {
				got := test.desk.answer(t, "protocol_state="+state, "recipient="+test.recipient)
				if !strings.HasPrefix(got, test.action) {
					t.Errorf("%s is answered %q, want %q", state, got, test.action)
				}
			}
		})
	}
	for _, state := range []string{"CONNECT", "EHLO", "MAIL", "DATA", ""} {
		if got := d.answer(t, "protocol_state="+state, "recipient=user@gone.example"); got != "DUNNO" {
			t.Errorf("%q is answered %q", state, got)
		}
	}
}

func TestLimitIsKept(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name     string
		limits   Limits
		set      func(*meter.Account)
		messages int   // used
		size     int64 // of each
		action   string
		asked    bool // whether usage was looked up
	}{
		{"billed", Limits{Messages: 1}, nil, 3, 1, "DUNNO", false},
		{"below", Limits{}, func(a *meter.Account) { a.OnLimit, a.Messages = meter.Defer, 4 }, 3, 1, "DUNNO", true},
		{"deferred", Limits{}, func(a *meter.Account) { a.OnLimit, a.Messages = meter.Defer, 3 }, 3, 1, "452 4.2.2 ", true},
		{"rejected by bytes", Limits{}, func(a *meter.Account) { a.OnLimit, a.Bytes = meter.Reject, 300 }, 3, 100, "552 5.2.2 ", true},
		{"default of the settings", Limits{Messages: 2, OnLimit: meter.Reject}, nil, 3, 1, "552 5.2.2 ", true},
		{"own limit above the default", Limits{Messages: 2, OnLimit: meter.Reject}, func(a *meter.Account) { a.Messages = 9 }, 3, 1, "DUNNO", true},
		{"own bill above the default", Limits{Messages: 2, OnLimit: meter.Reject}, func(a *meter.Account) { a.OnLimit = meter.Bill }, 3, 1, "DUNNO", false},
		{"below the tiers", Limits{Messages: 2}, func(a *meter.Account) { a.MaxTiers = 2 }, 3, 1, "DUNNO", true},
		{"tiers full", Limits{Messages: 1}, func(a *meter.Account) { a.MaxTiers = 3 }, 3, 1, "452 4.2.2 ", true},
		{"no limit at all", Limits{OnLimit: meter.Reject}, nil, 3, 1, "DUNNO", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			a := account("acme", meter.ATRN, "acme.example")
			if test.set != nil {
				test.set(&a)
			}
			d := openDesk(t, []meter.Account{a}, func(c *Config) { c.Limits = func() Limits { return test.limits } })
			for i := range test.messages {
				err := d.faults.Record(meter.Message{
					Instance: fmt.Sprint("Q", i, "@1"), Size: test.size, At: started,
					Accounts: []*meter.Account{d.follower.Directory().Account("acme")},
				}, nil)
				if err != nil {
					t.Fatal(err)
				}
			}
			if got := d.answer(t, "protocol_state=RCPT", "recipient=user@acme.example"); !strings.HasPrefix(got, test.action) {
				t.Errorf("answered %q, want %q", got, test.action)
			}
			if asked := d.faults.usageAsked.Load() > 0; asked != test.asked {
				t.Errorf("usage looked up: %v, want %v", asked, test.asked)
			}
		})
	}
}

// turns are what ETRN opens in tests.
type turns struct {
	open map[string]bool
	fail error

	mu      sync.Mutex
	opened  []string
	clients []string // that asked for them
}

func (o *turns) OpenTurn(_ context.Context, a *meter.Account, client string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.opened = append(o.opened, a.Name)
	o.clients = append(o.clients, client)
	return o.fail
}

// asked are the accounts for which a turn was to be opened.
func (o *turns) asked() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.opened)
}

func (o *turns) TurnOpen(_ context.Context, a *meter.Account) bool { return o.open[a.Name] }

func TestETRNIsDecided(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		turns  *turns
		domain string
		client string
		action string
	}{
		{"opens a turn", &turns{}, "acme.example", "192.0.2.9", "OK"},
		{"by IPv6 and upper case", &turns{}, "ACME.EXAMPLE", "2001:db8:1::5", "OK"},
		{"from loopback", &turns{}, "acme.example", "127.0.0.1", "OK"},
		{"from loopback by IPv6", &turns{}, "acme.example", "::1", "OK"},
		{"from loopback, mapped", &turns{}, "acme.example", "::ffff:127.0.0.1", "OK"},
		{"from another loopback", &turns{}, "acme.example", "127.0.0.2", "459 4.7.1 "},
		{"from elsewhere", &turns{}, "acme.example", "203.0.113.1", "459 4.7.1 "},
		{"from nowhere", &turns{}, "acme.example", "unknown", "459 4.7.1 "},
		{"host down", &turns{fail: fmt.Errorf("%w: connection refused", ErrUnreachable)}, "acme.example", "192.0.2.9", "458 4.4.1 "},
		{"not now", &turns{fail: errors.New("mailbag-turnd does not answer")}, "acme.example", "192.0.2.9", "458 4.3.0 "},
		{"nothing opens turns", nil, "acme.example", "192.0.2.9", "458 4.3.0 "},
		{"suspended", &turns{}, "gone.example", "192.0.2.9", "459 4.7.1 Service"},
		{"not ours", &turns{}, "other.example", "192.0.2.9", "459 4.7.1 "},
		{"address literal", &turns{}, "[192.0.2.1]", "192.0.2.9", "459 4.7.1 "},
		{"backup", &turns{}, "spare.example", "198.51.100.7", "OK"},
		{"backup from elsewhere", &turns{}, "spare.example", "192.0.2.9", "459 4.7.1 "},
		{"atrn", &turns{}, "listed.example", "127.0.0.1", "459 4.7.1 "},
		{"atrn with a turn open", &turns{open: map[string]bool{"listed": true}}, "listed.example", "127.0.0.1", "OK"},
		{"pop3", nil, "box.example", "127.0.0.1", "459 4.7.1 "},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := openDesk(t, customers(), func(c *Config) {
				if test.turns != nil {
					c.Turns = test.turns
				}
			})
			got := d.answer(t, "protocol_state=ETRN", "etrn_domain="+test.domain, "client_address="+test.client)
			if !strings.HasPrefix(got, test.action) {
				t.Errorf("answered %q, want %q", got, test.action)
			}
			opens := test.turns != nil && (got == "OK" || strings.HasPrefix(got, "458")) && strings.EqualFold(test.domain, "acme.example")
			if test.turns != nil && (len(test.turns.asked()) == 1) != opens {
				t.Errorf("answered %q after opening %q", got, test.turns.asked())
			}
			if opens && test.turns.clients[0] != test.client {
				t.Errorf("the turn is for %q", test.turns.clients)
			}
		})
	}
}

func TestActionsAreOneLineOfASCII(t *testing.T) {
	t.Parallel()
	d := openDesk(t, customers(), nil)
	for _, recipient := range []string{"x\r@listed.example", "\u00fc@listed.example", "\u00fc%acme.example"} {
		action := d.answer(t, "protocol_state=RCPT", "recipient="+recipient)
		if strings.ContainsFunc(action, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("%q is answered %q", recipient, action)
		}
	}
}

func TestETRNWithoutALedgerIsPutOff(t *testing.T) {
	t.Parallel()
	d := openDesk(t, customers(), nil)
	d.faults.unread.Store(true)
	if got := d.answer(t, "protocol_state=ETRN", "etrn_domain=acme.example", "client_address=127.0.0.1"); !strings.HasPrefix(got, "458 4.3.0 ") {
		t.Errorf("answered %q", got)
	}
}

// unreadLists are those of a ledger that cannot be read just now, although the accounts were read before.
type unreadLists struct{}

func (unreadLists) Accepts(context.Context, *meter.Directory, *meter.Account, meter.Address) (bool, error) {
	return false, meter.ErrUnavailable
}

func TestNobodyIsRefusedForAListThatCannotBeRead(t *testing.T) {
	t.Parallel()
	d := openDesk(t, customers(), func(c *Config) { c.Lists = unreadLists{} })
	if got := d.mayReceive(t.Context(), "nobody@listed.example"); got != unavailable {
		t.Errorf("the answer is %q", got.action)
	}
}
