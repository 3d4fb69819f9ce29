package meter

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// view is all that a Directory has, to compare.
type view struct {
	Newest   []any
	Plans    []Plan
	Accounts []map[string]any
	Domains  map[string]string
	Forms    map[string]map[Form]int
	CRAM     map[Mode]int
	Decoy    []byte
}

// seen is what a Directory shows, however it is asked.
func seen(t *testing.T, d *Directory) view {
	t.Helper()
	v := view{Newest: []any{d.newest.id, d.newest.at, d.newest.action}, Domains: map[string]string{}, CRAM: d.tally.cram, Decoy: d.decoyKey,
		Forms: map[string]map[Form]int{"": d.tally.accounts, "@": d.tally.mailboxes}}
	for _, p := range d.Plans() {
		v.Plans = append(v.Plans, *p)
	}
	n := 0
	for a := range d.Accounts() {
		if d.AccountByID(a.ID) != a || d.Account(a.Name) != a {
			t.Fatalf("%s is several accounts", a.Name)
		}
		m := d.byID.get(a.ID)
		v.Accounts = append(v.Accounts, map[string]any{"account": *a, "login": m.login,
			"mailboxes": d.Mailboxes(a), "maildirs": maps.Clone(m.maildirs), "forms": countOf(m.forms)})
		n += len(a.Domains)
	}
	if d.byID.len() != d.Len() || d.domains.len() != n {
		t.Fatalf("%d accounts with %d domains are found by %d IDs and %d domains", d.Len(), n, d.byID.len(), d.domains.len())
	}
	for _, part := range d.domains.parts {
		for domain, m := range part {
			v.Domains[domain] = m.Name
			if d.AccountByID(m.ID) != &m.Account {
				t.Fatalf("%s has a former %s", domain, m.Name)
			}
		}
	}
	return v
}

func countOf(forms []formCount) map[Form]int {
	n := map[Form]int{}
	for _, f := range forms {
		n[f.Form] = f.n
	}
	return n
}

// operator changes a ledger at random, in every way in which mailbag does.
type operator struct {
	*rand.Rand
	l    *Ledger
	made int
}

func (o *operator) one(of ...string) string { return of[o.IntN(len(of))] }

func (o *operator) account() string { return fmt.Sprintf("a%d", o.IntN(o.made+1)) }
func (o *operator) domain() string  { return fmt.Sprintf("d%d.example", o.IntN(12)) }
func (o *operator) address(domain string) Address {
	return Address{o.one("info", "two words", "joe", "ann", "bücher"), domain}
}

func (o *operator) verifier() *Verifier {
	v := newVerifier(o.IntN(2) == 0)
	v.Salt, v.Iterations = v.Salt[:8+o.IntN(3)], 4096+o.IntN(2)
	return v
}

func (o *operator) terms() Terms {
	return Terms{Messages: o.Int64N(3), OnLimit: OnLimit(o.one("", "defer")), BasePrice: Price{o.IntN(2) == 0, 0}}
}

// draft is a new account.
func (o *operator) draft() Account {
	o.made++
	a := Account{Name: fmt.Sprintf("a%d", o.made), Mode: Modes[o.IntN(4)], Host: "mail.example", Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")},
		Recipients: RecipientCheck(o.one("any", "list")), Plan: o.one("", "", "small", "large"), CatchAll: o.IntN(2) == 0, CRAMMD5: o.IntN(2) == 0, Terms: o.terms()}
	for range o.IntN(3) {
		if domain := o.domain(); !slices.Contains(a.Domains, domain) {
			a.Domains = append(a.Domains, domain)
		}
	}
	return withDefaults(a)
}

// operations are all that change what a Directory shows. What the ledger refuses changes nothing, which is right too.
var operations = []func(*operator, *testing.T, *Directory) error{
	func(o *operator, t *testing.T, _ *Directory) error {
		return o.l.AddAccount(t.Context(), o.draft(), nil)
	},
	func(o *operator, t *testing.T, _ *Directory) error {
		return o.l.AddAccount(t.Context(), o.draft(), o.verifier())
	},
	func(o *operator, t *testing.T, _ *Directory) error {
		_, _, err := o.l.EditAccount(t.Context(), o.account(), "account set", func(a *Account) error {
			a.Recipients, a.Plan, a.Note = RecipientCheck(o.one("any", "list")), o.one("", "small", "large"), o.one("", "of note")
			a.Terms, a.CRAMMD5, a.Mode = o.terms(), o.IntN(2) == 0, Modes[o.IntN(4)]
			return nil
		})
		return err
	},
	func(o *operator, t *testing.T, _ *Directory) error {
		_, _, err := o.l.EditAccount(t.Context(), o.account(), "account suspend", func(a *Account) error { a.Suspended = !a.Suspended; return nil })
		return err
	},
	func(o *operator, t *testing.T, _ *Directory) error {
		return o.l.DeleteAccount(t.Context(), o.account())
	},
	func(o *operator, t *testing.T, _ *Directory) error {
		return o.l.AddDomain(t.Context(), o.account(), o.domain())
	},
	func(o *operator, t *testing.T, d *Directory) error {
		domain := o.domain()
		if a := d.Domain(domain); a != nil {
			return o.l.RemoveDomain(t.Context(), a.Name, domain)
		}
		return ErrNoDomain
	},
	func(o *operator, t *testing.T, _ *Directory) error {
		return o.l.AddNetwork(t.Context(), o.account(), netip.MustParsePrefix(o.one("192.0.2.0/24", "198.51.100.0/24", "2001:db8::/32")))
	},
	func(o *operator, t *testing.T, _ *Directory) error {
		return o.l.RemoveNetwork(t.Context(), o.account(), netip.MustParsePrefix("192.0.2.0/24"))
	},
	func(o *operator, t *testing.T, d *Directory) error {
		domain := o.domain()
		if a := d.Domain(domain); a != nil {
			return o.l.AddMailbox(t.Context(), a.Name, o.address(domain), o.verifier())
		}
		return ErrNoDomain
	},
	func(o *operator, t *testing.T, d *Directory) error {
		address := o.address(o.domain())
		if a := d.Mailbox(address); a != nil {
			return o.l.RemoveMailbox(t.Context(), a.Name, address)
		}
		return ErrNoMailbox
	},
	func(o *operator, t *testing.T, d *Directory) error {
		name := o.account()
		login := name
		if a := d.Account(name); a != nil && len(d.Mailboxes(a)) > 0 {
			login = o.one(append(d.Mailboxes(a), name)...)
		}
		return o.l.SetPassword(t.Context(), name, login, o.verifier())
	},
	func(o *operator, t *testing.T, d *Directory) error {
		domain := o.domain()
		if a := d.Domain(domain); a != nil {
			return o.l.AddRecipients(t.Context(), a.Name, o.address(domain), o.address(domain))
		}
		return ErrNoDomain
	},
	func(o *operator, t *testing.T, d *Directory) error {
		domain := o.domain()
		if a := d.Domain(domain); a != nil {
			_, err := o.l.RemoveRecipients(t.Context(), a.Name, o.address(domain))
			return err
		}
		return ErrNoDomain
	},
	func(o *operator, t *testing.T, d *Directory) error {
		domain := o.domain()
		a := d.Domain(domain)
		if a == nil {
			return ErrNoDomain
		}
		_, err := o.l.ImportRecipients(t.Context(), a.Name, o.IntN(2) == 0, func(yield func(Address, error) bool) {
			for i := range 1 + o.IntN(5) {
				if !yield(Address{fmt.Sprint("user", i), domain}, nil) {
					return
				}
			}
		}, func(int) {})
		return err
	},
	func(o *operator, t *testing.T, _ *Directory) error {
		return o.l.AddPlan(t.Context(), Plan{o.one("small", "large"), o.terms()})
	},
	func(o *operator, t *testing.T, _ *Directory) error {
		_, _, err := o.l.EditPlan(t.Context(), o.one("small", "large"), func(terms *Terms) error { *terms = o.terms(); return nil })
		return err
	},
	func(o *operator, t *testing.T, _ *Directory) error {
		return o.l.RemovePlan(t.Context(), o.one("small", "large"))
	},
	func(o *operator, t *testing.T, _ *Directory) error {
		account := Transfer{Account: o.draft()}
		for _, domain := range account.Domains {
			account.Listed = append(account.Listed, "listed@"+domain)
			account.Mailboxes = append(account.Mailboxes, "info@"+domain)
		}
		return o.l.Import(t.Context(), []Transfer{account})
	},
	func(o *operator, t *testing.T, _ *Directory) error { // two accounts give each other a domain, and a third comes
		d := mustLoad(t, o.l)
		a, b := d.Account(o.account()), d.Account(o.account())
		if a == nil || b == nil || a == b {
			return ErrNoAccount
		}
		first, second := *a, *b
		first.Domains, second.Domains = b.Domains, a.Domains
		amendments := []Amendment{{Before: a, After: first, Removed: d.Mailboxes(a)}, {Before: b, After: second, Removed: d.Mailboxes(b)}, {After: o.draft()}}
		amendments[2].After.Domains = nil
		if len(first.Domains) > 0 && first.Mode == POP3 {
			amendments[0].Added = []string{"new@" + first.Domains[0]}
			amendments[0].Verifiers = map[string]*Verifier{"new@" + first.Domains[0]: o.verifier()}
		}
		return o.l.Amend(t.Context(), d.Revision(), amendments)
	},
}

func TestSnapshotAfterAnotherIsThatOfTheWholeLedger(t *testing.T) {
	t.Parallel()
	done, shared := make([]int, len(operations)), 0
	for seed := range uint64(12) {
		o := &operator{Rand: rand.New(rand.NewPCG(seed, 1)), l: newTestLedger(t, Options{})}
		d := mustLoad(t, o.l)
		for range 60 {
			before := seen(t, d)
			var did []string
			for range 1 + o.IntN(6) {
				i := o.IntN(len(operations))
				err := operations[i](o, t, d)
				if errors.Is(err, ErrUnavailable) {
					t.Fatal(err)
				}
				if err == nil {
					done[i]++
				}
				did = append(did, fmt.Sprint(i))
			}
			after, err := o.l.loadAfter(t.Context(), d)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(seen(t, mustLoad(t, o.l)), seen(t, after), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
				t.Fatalf("seed %d, after the operations %s (-whole +after another):\n%s", seed, strings.Join(did, " "), diff)
			}
			if diff := cmp.Diff(before, seen(t, d), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
				t.Fatalf("seed %d: the operations %s changed the snapshot before (-was +is):\n%s", seed, strings.Join(did, " "), diff)
			}
			for a := range after.Accounts() {
				if d.AccountByID(a.ID) == a {
					shared++
				}
			}
			d = after
		}
	}
	if shared == 0 {
		t.Error("no snapshot has an account in common with the one before")
	}
	for i, n := range done {
		if n == 0 {
			t.Errorf("operation %d never succeeded", i)
		}
	}
}

// meddling changes the ledger before some of what is read of it.
type meddling struct {
	engine
	mu     sync.Mutex
	meddle func()
	left   int
}

func (m *meddling) read(ctx context.Context, how freshness, queries ...query) error {
	m.mu.Lock()
	if m.left--; m.left >= 0 {
		m.meddle()
	}
	m.mu.Unlock()
	return m.engine.read(ctx, how, queries...)
}

func TestSnapshotReadInPartsWhileTheLedgerChangesIsOfOneMoment(t *testing.T) {
	t.Parallel()
	for seed := range uint64(16) {
		o := &operator{Rand: rand.New(rand.NewPCG(seed, 2)), l: newTestLedger(t, Options{})}
		for range 20 {
			o.l.AddAccount(t.Context(), o.draft(), o.verifier())
		}
		of := newLedger(o.l.path, o.l.opt)
		of.engine = &meddling{engine: o.l.engine, left: 4 + o.IntN(12), meddle: func() {
			if err := operations[o.IntN(len(operations))](o, t, mustLoad(t, o.l)); errors.Is(err, ErrUnavailable) {
				t.Error(err)
			}
		}}
		d, err := of.loadParts(t.Context(), 3)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(seen(t, mustLoad(t, o.l)), seen(t, d), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
			t.Fatalf("seed %d (-whole +in parts):\n%s", seed, diff)
		}
	}
}

func TestSnapshotReadInPartsEndsWithTheErrorOfAPart(t *testing.T) {
	t.Parallel()
	l := newTestLedger(t, Options{})
	for _, name := range []string{"a", "b", "c"} {
		mustAdd(t, l, Account{Name: name, Mode: ATRN})
	}
	mustInsert(t, l, "INSERT INTO network (account, prefix) VALUES (2, 'nowhere')")
	if _, err := l.loadParts(t.Context(), 1); err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("the error is %v", err)
	}
}

func TestSnapshotOfAnotherHistoryIsNotGoneOnFrom(t *testing.T) {
	t.Parallel()
	now := noon
	ledger := func(names ...string) *Ledger {
		now = now.Add(time.Minute)
		made := now
		l := newTestLedger(t, Options{Now: func() time.Time { return made }})
		for _, name := range names {
			mustAdd(t, l, Account{Name: name, Mode: ATRN, Domains: []string{name + ".example"}})
		}
		return l
	}
	gap := ledger("a", "b")
	beforeGap := mustLoad(t, gap)
	mustAdd(t, gap, Account{Name: "c", Mode: ATRN})
	mustAdd(t, gap, Account{Name: "d", Mode: ATRN})
	mustInsert(t, gap, "DELETE FROM change WHERE id = 3")
	old := mustLoad(t, ledger("a", "b"))
	for _, c := range []struct {
		what string
		l    *Ledger
		old  *Directory
	}{{"empty", ledger(), old}, {"shorter", ledger("a"), old}, {"another", ledger("a", "x"), old}, {"another and longer", ledger("x", "y", "z"), old}, {"one with a gap", gap, beforeGap}} {
		l, old, what := c.l, c.old, c.what
		d, err := l.loadAfter(t.Context(), old)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(seen(t, mustLoad(t, l)), seen(t, d)); diff != "" {
			t.Errorf("of a ledger that is %s (-is +seen):\n%s", what, diff)
		}
		for a := range d.Accounts() {
			if old.AccountByID(a.ID) == a {
				t.Errorf("of a ledger that is %s the account %s is that of the snapshot before", what, a.Name)
			}
		}
	}
}
