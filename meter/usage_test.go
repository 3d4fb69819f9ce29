package meter

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// domainsOf returns what each of the account's domains used.
func domainsOf(t testing.TB, l *Ledger, a *Account, month Month) map[string]Usage {
	t.Helper()
	all, err := l.DomainUsage(t.Context(), month, a.ID)
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]Usage{}
	for _, d := range all[a.ID] {
		used[d.Domain] = d.Usage
	}
	return used
}

func wantDomains(t *testing.T, l *Ledger, a *Account, month Month, want map[string]Usage) {
	t.Helper()
	if got := domainsOf(t, l, a, month); !maps.Equal(got, want) {
		t.Errorf("in %s the domains of %s used %v, want %v", month, a.Name, got, want)
	}
}

func TestMessageForTwoDomainsCountsInEachAndOnceForTheAccount(t *testing.T) {
	t.Parallel()
	l, d := severalDomains(t, Options{})
	mustAdd(t, l, Account{Name: "acme", Mode: Backup, Domains: []string{"acme.example"}})
	hooli, acme := d.Account("hooli"), mustLoad(t, l).Account("acme")
	r := NewRecorder(l, nil)
	defer r.Close()
	for i, domains := range [][]string{{"a.example", "b.example", "acme.example"}, {"a.example"}, nil} {
		m := Message{Instance: fmt.Sprint(i), Size: 10, At: noon.Add(time.Duration(i) * 24 * time.Hour), Accounts: []*Account{hooli, acme}, Domains: domains}
		for range 2 {
			if err := r.Record(m, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	february := Month{2026, 2}
	wantDomains(t, l, hooli, february, map[string]Usage{"a.example": {2, 20}, "b.example": {1, 10}})
	wantDomains(t, l, acme, february, map[string]Usage{"acme.example": {1, 10}})
	wantDomains(t, l, hooli, Month{2026, 3}, map[string]Usage{})
	if got := usageOf(t, l, hooli, "2026-02"); got != (Usage{3, 30}) {
		t.Errorf("hooli used %v", got)
	}
}

func TestDomainThatMovedLeavesItsUsageBehind(t *testing.T) {
	t.Parallel()
	l, d := severalDomains(t, Options{})
	mustAdd(t, l, Account{Name: "acme", Mode: Backup, Domains: []string{"acme.example"}})
	r := NewRecorder(l, nil)
	defer r.Close()
	record := func(a *Account, instance string) {
		t.Helper()
		if err := r.Record(Message{Instance: instance, Size: 10, At: noon, Accounts: []*Account{a}, Domains: []string{"a.example"}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	record(d.Account("hooli"), "before")
	if err := errors.Join(l.RemoveDomain(t.Context(), "hooli", "a.example"), l.AddDomain(t.Context(), "acme", "a.example")); err != nil {
		t.Fatal(err)
	}
	acme := mustLoad(t, l).Account("acme")
	record(acme, "after 1")
	record(acme, "after 2")
	wantDomains(t, l, d.Account("hooli"), Month{2026, 2}, map[string]Usage{"a.example": {1, 10}})
	wantDomains(t, l, acme, Month{2026, 2}, map[string]Usage{"a.example": {2, 20}})
}

// In whatever order messages are counted, repeated and taken back: what is left is what was let in.
func TestUsageOfDomainsIsThatOfTheMessagesThatWereLetIn(t *testing.T) {
	t.Parallel()
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(seed, 0))
			l, d := severalDomains(t, Options{})
			hooli := d.Account("hooli")
			r := NewRecorder(l, nil)
			defer r.Close()
			unheard := errors.New("nobody hears the answer")
			letIn := map[string]Message{}
			for range 80 {
				m := Message{Instance: fmt.Sprint(random.IntN(20), "@1"), Size: random.Int64N(100), At: noon.Add(time.Duration(random.IntN(3)) * 24 * time.Hour), Accounts: []*Account{hooli}}
				for _, domain := range []string{"a.example", "b.example", "c.example", "elsewhere.example"} {
					if random.IntN(2) == 0 {
						m.Domains = append(m.Domains, domain)
					}
				}
				switch former, again := letIn[m.Instance]; random.IntN(4) {
				case 0:
					if err := r.Record(m, func() error { return unheard }); err != unheard {
						t.Fatal(err)
					}
					delete(letIn, m.Instance)
				case 1:
					r.Unheard(m.Instance)
					delete(letIn, m.Instance)
				default:
					if again {
						m = former
					}
					if err := r.Record(m, nil); err != nil {
						t.Fatal(err)
					}
					letIn[m.Instance] = m
				}
			}
			// With the next commit all is taken back that was to be.
			last := Message{Instance: "last@1", At: noon, Accounts: []*Account{hooli}}
			if err := r.Record(last, nil); err != nil {
				t.Fatal(err)
			}
			want := map[string]Usage{}
			for _, m := range letIn {
				for _, domain := range m.Domains {
					if u := want[domain]; slices.Contains(hooli.Domains, domain) {
						want[domain] = Usage{u.Messages + 1, u.Bytes + m.Size}
					}
				}
			}
			wantDomains(t, l, hooli, Month{2026, 2}, want)
			if faults, err := l.Check(t.Context()); err != nil || len(faults) > 0 {
				t.Errorf("Check = %q, %v", faults, err)
			}
		})
	}
}
