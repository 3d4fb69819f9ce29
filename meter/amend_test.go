package meter

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// amended is an amendment of an account that the ledger has.
func amended(t *testing.T, l *Ledger, name string, edit func(*Amendment)) Amendment {
	t.Helper()
	before := mustLoad(t, l).Account(name)
	a := Amendment{Before: before, After: *before}
	edit(&a)
	return a
}

func TestAmendmentsAreInForceTogether(t *testing.T) {
	t.Parallel()
	l := outfit(t)
	v := newVerifier(false)
	d := mustLoad(t, l)
	err := l.Amend(t.Context(), d.Revision(), []Amendment{
		amended(t, l, "acme", func(a *Amendment) { // gets what dent has
			a.After.Domains = []string{"acme.example", "dent.example"}
			a.After.Networks = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}
			a.After.Customer, a.After.Suspended, a.After.CRAMMD5 = "K-1", false, false
		}),
		amended(t, l, "dent", func(a *Amendment) {
			a.After.Domains = []string{"acme.test"}
			a.Added, a.Removed = []string{"info@acme.test"}, []string{"arthur@dent.example"}
			a.Verifiers = map[string]*Verifier{"info@acme.test": v}
		}),
		{After: withDefaults(Account{Name: "new", Mode: POP3, Domains: []string{"new.example"}}), Added: []string{"a@new.example"},
			Verifiers: map[string]*Verifier{"new": v, "a@new.example": v}},
	})
	if err != nil {
		t.Fatal(err)
	}
	d = mustLoad(t, l)
	acme, dent := d.Account("acme"), d.Account("dent")
	if !slices.Equal(acme.Domains, []string{"acme.example", "dent.example"}) || acme.Networks[0].String() != "198.51.100.0/24" || len(acme.Networks) != 1 ||
		acme.Customer != "K-1" || acme.Suspended {
		t.Errorf("acme is %+v", acme)
	}
	if !slices.Equal(d.Mailboxes(dent), []string{"info@acme.test"}) || !slices.Equal(d.Mailboxes(d.Account("new")), []string{"a@new.example"}) {
		t.Errorf("the mailboxes are %q and %q", d.Mailboxes(dent), d.Mailboxes(d.Account("new")))
	}
	for login, want := range map[string]bool{"arthur@dent.example": false, "info@acme.test": true, "new": true, "a@new.example": true, "acme": true} {
		v, err := l.Verifier(t.Context(), login)
		if err != nil || v != nil != want {
			t.Errorf("the verifier of %s is %v, %v", login, v, err)
		}
		if login == "acme" && v.CRAMMD5 != nil {
			t.Error("what CRAM-MD5 needs is kept")
		}
	}
	for name, want := range map[string][]string{"acme": {"account import"}, "dent": {"mailbox remove arthur@dent.example", "account import"}, "new": {"account import"}} {
		history, err := l.History(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		for i, action := range want {
			line := history[len(history)-len(want)+i]
			if line.Action != action || len(line.After) == 0 || (line.Before == nil) != (name == "new") {
				t.Errorf("the history of %s has %s: %s -> %s, want %s", name, line.Action, line.Before, line.After, action)
			}
		}
	}
}

func TestAMailboxThatWasRemovedByAnAmendmentComesBackEmpty(t *testing.T) {
	t.Parallel()
	l := outfit(t)
	const key = "arthur@dent.example"
	for _, edit := range []func(*Amendment){
		func(a *Amendment) { a.Removed = []string{key} },
		func(a *Amendment) { a.Added = []string{key} },
	} {
		d := mustLoad(t, l)
		if err := l.Amend(t.Context(), d.Revision(), []Amendment{amended(t, l, "dent", edit)}); err != nil {
			t.Fatal(err)
		}
	}
	if place := mustLoad(t, l).Maildir(key); place == key {
		t.Error("it has the Maildir of the former one")
	}
}

func TestAmendmentsAreRefusedWhole(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name      string
		meanwhile func(*testing.T, *Ledger)
		edit      func(*Amendment) // of dent
		want      error
	}{
		{"changed meanwhile", func(t *testing.T, l *Ledger) {
			if _, _, err := l.EditAccount(t.Context(), "dent", "account set", func(a *Account) error { a.Hold = 9e9; return nil }); err != nil {
				t.Fatal(err)
			}
		}, nil, ErrChanged},
		{"deleted meanwhile", func(t *testing.T, l *Ledger) {
			if err := l.DeleteAccount(t.Context(), "dent"); err != nil {
				t.Fatal(err)
			}
		}, nil, ErrChanged},
		{"name taken meanwhile", func(t *testing.T, l *Ledger) { mustAdd(t, l, Account{Name: "new", Mode: Backup}) }, nil, ErrNameTaken},
		{"domain taken meanwhile", func(t *testing.T, l *Ledger) {
			mustAdd(t, l, Account{Name: "other", Mode: Backup, Domains: []string{"new.example"}})
		}, nil, ErrDomainTaken},
		{"plan that is not there", nil, func(a *Amendment) { a.After.Plan = "gold" }, ErrChanged},
		{"domain of others", nil, func(a *Amendment) { a.After.Domains = append(slices.Clone(a.After.Domains), "acme.example") }, ErrDomainTaken},
		{"invalid", nil, func(a *Amendment) { a.After.Mode = "smtp" }, ErrInvalid},
		{"mailbox elsewhere", nil, func(a *Amendment) { a.Added = []string{"a@acme.example"} }, ErrInvalid},
		{"mailbox in capitals", nil, func(a *Amendment) { a.Added = []string{"A@dent.example"} }, ErrInvalid},
		{"mailbox of another mode", nil, func(a *Amendment) { a.After.Mode, a.Added = Backup, []string{"a@dent.example"} }, ErrInvalid},
		{"domain with a mailbox", nil, func(a *Amendment) { a.After.Domains = nil }, ErrChanged},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			l := outfit(t)
			revision := mustLoad(t, l).Revision()
			edit := test.edit
			if edit == nil {
				edit = func(*Amendment) {}
			}
			all := []Amendment{
				amended(t, l, "acme", func(a *Amendment) { a.After.Note = "changed" }),
				{After: withDefaults(Account{Name: "new", Mode: Backup, Domains: []string{"new.example"}})},
				amended(t, l, "dent", edit),
			}
			if test.meanwhile != nil {
				test.meanwhile(t, l)
			}
			err := l.Amend(t.Context(), revision, all)
			if !errors.Is(err, test.want) {
				t.Errorf("Amend = %v, want %v", err, test.want)
			}
			if errors.Is(err, ErrNameTaken) && !strings.HasPrefix(err.Error(), "new: ") {
				t.Errorf("%q does not name the account", err)
			}
			if mustLoad(t, l).Account("acme").Note != "" {
				t.Error("half of it was done")
			}
		})
	}
}

func TestAChangeOfAnotherAccountIsInNoAmendmentsWay(t *testing.T) {
	t.Parallel()
	l := outfit(t)
	revision := mustLoad(t, l).Revision()
	dent := amended(t, l, "dent", func(a *Amendment) { a.After.Note = "changed" })
	if _, _, err := l.EditAccount(t.Context(), "acme", "account set", func(a *Account) error { a.Hold = 10e9; return nil }); err != nil {
		t.Fatal(err)
	}
	if err := l.Amend(t.Context(), revision, []Amendment{dent}); err != nil {
		t.Fatal(err)
	}
	if d := mustLoad(t, l); d.Account("dent").Note != "changed" || d.Account("acme").Hold != 10e9 {
		t.Errorf("dent is %+v, acme %+v", d.Account("dent"), d.Account("acme"))
	}
}

func TestNamesTakenAreThoseThatAccountsHaveOrHad(t *testing.T) {
	t.Parallel()
	l := outfit(t)
	if err := l.DeleteAccount(t.Context(), "ford"); err != nil {
		t.Fatal(err)
	}
	taken, err := l.NamesTaken(t.Context(), []string{"acme", "ford", "free"})
	if err != nil || len(taken) != 2 || taken["acme"] || !taken["ford"] {
		t.Errorf("NamesTaken = %v, %v", taken, err)
	}
}
