package meter

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var gold = Plan{Name: "gold", Terms: Terms{Messages: 10, Bytes: 1000, OnLimit: Defer, MaxTiers: 3, BasePrice: Price{true, 2000},
	TierPrice: Price{Set: true}, WaitingMessages: 50, WaitingBytes: 60}}

func mustAddPlan(t testing.TB, l *Ledger, p Plan) {
	t.Helper()
	if err := l.AddPlan(t.Context(), p); err != nil {
		t.Fatal(err)
	}
}

func TestOwnTermsGoBeforeThePlansAndThoseBeforeTheSettings(t *testing.T) {
	t.Parallel()
	l := newTestLedger(t, Options{})
	mustAddPlan(t, l, gold)
	mustAddPlan(t, l, Plan{Name: "bare"})
	mustAdd(t, l, Account{Name: "all", Mode: Backup, Plan: "gold"})
	mustAdd(t, l, Account{Name: "some", Mode: Backup, Plan: "gold", Terms: Terms{Messages: 7, OnLimit: Bill, BasePrice: Price{Set: true}, WaitingBytes: 1}})
	mustAdd(t, l, Account{Name: "bare", Mode: Backup, Plan: "bare"})
	mustAdd(t, l, Account{Name: "none", Mode: Backup})
	some := gold.Terms
	some.Messages, some.OnLimit, some.BasePrice, some.WaitingBytes = 7, Bill, Price{Set: true}, 1
	want := map[string]Terms{"all": gold.Terms, "some": some, "bare": {}, "none": {}}
	d := mustLoad(t, l)
	for name, terms := range want {
		if diff := cmp.Diff(terms, d.Account(name).InForce()); diff != "" {
			t.Errorf("the terms of %s (-want +got):\n%s", name, diff)
		}
	}
	// A bill has the same ones.
	month := MonthOf(l.opt.Now(), l.opt.Location)
	all, err := l.Invoices(t.Context(), month, standard)
	if err != nil || len(all.Accounts) != len(want) {
		t.Fatalf("%d bills, %v", len(all.Accounts), err)
	}
	for _, i := range all.Accounts {
		a := d.Account(i.Account)
		tariff := standard.For(a)
		if tariff.OnLimit == "" {
			tariff.OnLimit = i.Tariff.OnLimit // none in either
		}
		if i.Tariff != tariff || i.Plan != a.Plan {
			t.Errorf("%s of plan %q is billed by %+v, want %+v", i.Account, i.Plan, i.Tariff, tariff)
		}
	}
}

func TestAChangedPlanIsInForceForAllWhoFollow(t *testing.T) {
	t.Parallel()
	l := newTestLedger(t, Options{})
	mustAddPlan(t, l, gold)
	mustAdd(t, l, Account{Name: "acme", Mode: Backup, Plan: "gold"})
	mustAdd(t, l, Account{Name: "bolt", Mode: Backup, Plan: "gold", Terms: Terms{Messages: 7}})
	changes := make(chan *Directory, 10)
	f := Follow(t.Context(), l, slog.New(slog.DiscardHandler), func(_, fresh *Directory) { changes <- fresh })
	defer f.Close()
	<-changes
	before, after, err := l.EditPlan(t.Context(), "gold", func(terms *Terms) error { terms.Messages = 99; return nil })
	if err != nil || before.Messages != 10 || after.Messages != 99 || after.Bytes != gold.Bytes {
		t.Fatalf("changed %+v to %+v, %v", before, after, err)
	}
	d := <-changes
	if got := d.Account("acme").InForce().Messages; got != 99 {
		t.Errorf("who follows has %d messages in force", got)
	}
	if got := d.Account("bolt").InForce().Messages; got != 7 {
		t.Errorf("an account's own limit is %d", got)
	}
	if before, after, err := l.EditPlan(t.Context(), "gold", func(*Terms) error { return nil }); err != nil || before != after {
		t.Errorf("a change of nothing is %v, %v, %v", before, after, err)
	}
	if revision := mustLoad(t, l).Revision(); revision != d.Revision() {
		t.Errorf("a change of nothing leads from revision %d to %d", d.Revision(), revision)
	}
}

// planHistory are the lines of a plan's history.
func planHistory(t *testing.T, l *Ledger, plan string) (lines []string) {
	t.Helper()
	for rows, err := range l.rows(t.Context(), "SELECT action, before, after FROM change WHERE plan = ? ORDER BY id", plan) {
		var action string
		var before, after *string
		if err == nil {
			err = rows.Scan(&action, &before, &after)
		}
		if err != nil {
			t.Fatal(err)
		}
		of := func(document *string) string {
			if document == nil {
				return "none"
			}
			var p struct {
				Name     string
				Messages int64
			}
			if err := json.Unmarshal([]byte(*document), &p); err != nil {
				t.Fatal(err)
			}
			return fmt.Sprintf("%s %d", p.Name, p.Messages)
		}
		lines = append(lines, action+": "+of(before)+" -> "+of(after))
	}
	return lines
}

func TestAPlansHistorySurvivesIt(t *testing.T) {
	t.Parallel()
	l := newTestLedger(t, Options{})
	mustAddPlan(t, l, gold)
	if _, _, err := l.EditPlan(t.Context(), "gold", func(terms *Terms) error { terms.Messages = 99; return nil }); err != nil {
		t.Fatal(err)
	}
	if err := l.RemovePlan(t.Context(), "gold"); err != nil {
		t.Fatal(err)
	}
	want := []string{"plan add: none -> gold 10", "plan set: gold 10 -> gold 99", "plan remove: gold 99 -> none"}
	if diff := cmp.Diff(want, planHistory(t, l, "gold")); diff != "" {
		t.Errorf("the history (-want +got):\n%s", diff)
	}
}

func TestPlansAreListedWithTheAccountsThatHaveThem(t *testing.T) {
	t.Parallel()
	l := newTestLedger(t, Options{})
	mustAddPlan(t, l, gold)
	mustAddPlan(t, l, Plan{Name: "bare"})
	for _, name := range []string{"acme", "bolt", "gone"} {
		mustAdd(t, l, Account{Name: name, Mode: Backup, Plan: "gold"})
	}
	if err := l.DeleteAccount(t.Context(), "gone"); err != nil {
		t.Fatal(err)
	}
	got, err := l.Plans(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]PlanUse{{Plan{Name: "bare"}, 0}, {gold, 2}}, got); diff != "" {
		t.Errorf("the plans (-want +got):\n%s", diff)
	}
}

func TestAPlanThatAccountsHaveIsNotRemoved(t *testing.T) {
	t.Parallel()
	l := newTestLedger(t, Options{})
	mustAddPlan(t, l, gold)
	names := []string{"acme", "bolt", "corp", "dent", "ford"}
	for _, name := range names {
		mustAdd(t, l, Account{Name: name, Mode: Backup, Plan: "gold"})
	}
	err := l.RemovePlan(t.Context(), "gold")
	if !errors.Is(err, ErrPlanInUse) || !strings.HasSuffix(err.Error(), ": acme, bolt, corp and 2 more") {
		t.Errorf("removing it: %v", err)
	}
	for _, name := range names {
		if _, _, err := l.EditAccount(t.Context(), name, "account set", func(a *Account) error { a.Plan = ""; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.RemovePlan(t.Context(), "gold"); err != nil {
		t.Errorf("removing it: %v", err)
	}
	if a := mustLoad(t, l).Account("acme"); a.Plan != "" || a.InForce() != (Terms{}) {
		t.Errorf("an account without a plan has %+v", a)
	}
}

// What a deleted account owes for its last month does not change with the removal of its plan.
func TestTheBillOfADeletedAccountOutlivesItsPlan(t *testing.T) {
	t.Parallel()
	c := clockAt("2026-02-10 12:00:00")
	l := newTestLedger(t, Options{Now: c.Now})
	mustAddPlan(t, l, gold)
	mustAdd(t, l, Account{Name: "acme", Mode: Backup, Domains: []string{"acme.example"}, Plan: "gold", Terms: Terms{Bytes: 7}})
	count(t, l, "acme", c.now, 25, 1)
	if err := l.DeleteAccount(t.Context(), "acme"); err != nil {
		t.Fatal(err)
	}
	bill := func() Tariff {
		all, err := l.Invoices(t.Context(), Month{2026, 2}, standard)
		if err != nil || len(all.Accounts) != 1 {
			t.Fatalf("%+v, %v", all, err)
		}
		return all.Accounts[0].Tariff
	}
	before := bill()
	if err := l.RemovePlan(t.Context(), "gold"); err != nil {
		t.Fatal(err)
	}
	if after := bill(); after != before || after.BasePrice != 2000 || after.MaxTiers != 3 || after.Bytes != 7 {
		t.Errorf("it is billed by %+v, and was by %+v", after, before)
	}
}

func TestWhatAPlanIsRefusedFor(t *testing.T) {
	t.Parallel()
	l := newTestLedger(t, Options{})
	mustAddPlan(t, l, gold)
	mustAdd(t, l, Account{Name: "acme", Mode: Backup})
	set := func(name string, edit func(*Terms)) error {
		_, _, err := l.EditPlan(t.Context(), name, func(terms *Terms) error { edit(terms); return nil })
		return err
	}
	_, _, unknown := l.EditAccount(t.Context(), "acme", "account set", func(a *Account) error { a.Plan = "tin"; return nil })
	for name, c := range map[string]struct{ got, want error }{
		"a name that is taken":       {l.AddPlan(t.Context(), gold), ErrPlanTaken},
		"no name":                    {l.AddPlan(t.Context(), Plan{Name: "Gold Plan"}), ErrInvalid},
		"a negative limit":           {l.AddPlan(t.Context(), Plan{Name: "tin", Terms: Terms{Messages: -1}}), ErrInvalid},
		"a change to a wrong one":    {set("gold", func(terms *Terms) { terms.OnLimit = "shrug" }), ErrInvalid},
		"a change of none":           {set("tin", func(terms *Terms) { terms.Bytes = 1 }), ErrNoPlan},
		"a removal of none":          {l.RemovePlan(t.Context(), "tin"), ErrNoPlan},
		"a new account with none":    {l.AddAccount(t.Context(), withDefaults(Account{Name: "bolt", Mode: Backup, Plan: "tin"}), nil), ErrNoPlan},
		"an account that is to have": {unknown, ErrNoPlan},
	} {
		if !errors.Is(c.got, c.want) {
			t.Errorf("%s: %v, want %v", name, c.got, c.want)
		}
	}
	if d := mustLoad(t, l); d.Account("bolt") != nil || d.Account("acme").Plan != "" || *d.Plan("gold") != gold {
		t.Error("what was refused was done")
	}
}

func TestPlansComeWithTheAccountsThatHaveThem(t *testing.T) {
	t.Parallel()
	from, to := newTestLedger(t, Options{}), newTestLedger(t, Options{})
	mustAddPlan(t, from, gold)
	mustAddPlan(t, from, Plan{Name: "tin", Terms: Terms{Messages: 1}})
	mustAddPlan(t, to, Plan{Name: "tin", Terms: Terms{Messages: 1}})
	mustAdd(t, from, Account{Name: "acme", Mode: Backup, Plan: "gold", Customer: "K-4711", Note: "pays late"})
	all, plans, err := from.Transfers(t.Context())
	if err != nil || len(plans) != 2 {
		t.Fatalf("%d plans, %v", len(plans), err)
	}
	if err := to.Import(t.Context(), all); !errors.Is(err, ErrNoPlan) {
		t.Errorf("an import without its plan: %v", err)
	}
	if clashes, err := to.Clashes(t.Context(), all, plans...); err != nil || len(clashes) > 0 {
		t.Errorf("clashes %v, %v", clashes, err)
	}
	if err := to.Import(t.Context(), all, plans...); err != nil {
		t.Fatal(err)
	}
	if a := mustLoad(t, to).Account("acme"); a.Customer != "K-4711" || a.Note != "pays late" || a.InForce() != gold.Terms {
		t.Errorf("what arrived is %+v", a)
	}
	other := newTestLedger(t, Options{})
	mustAddPlan(t, other, Plan{Name: "gold"})
	if clashes, err := other.Clashes(t.Context(), all, plans...); err != nil || len(clashes) != 1 || !errors.Is(clashes[0], ErrPlanTaken) {
		t.Errorf("clashes %v, %v", clashes, err)
	}
	if err := other.Import(t.Context(), all, plans...); !errors.Is(err, ErrPlanTaken) {
		t.Errorf("an import of another plan: %v", err)
	}
}

func TestCustomerAndNoteAreALineEach(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		customer, note string
		fine           bool
	}{
		"none":         {"", "", true},
		"usual":        {"K-4711", "pays late; call Zoë first", true},
		"as long":      {strings.Repeat("x", 64), strings.Repeat("x", 500), true},
		"too long":     {strings.Repeat("x", 65), "", false},
		"too long too": {"", strings.Repeat("ü", 251), false},
		"two lines":    {"", "a\nb", false},
		"a separator":  {"", "a\u2028b", false},
		"an escape":    {"\x1b[31m", "", false},
		"turned round": {"", "a\u202eb", false},
		"Latin-1":      {"M\xfcller", "", false},
	} {
		a := withDefaults(Account{Name: "acme", Mode: Backup, Customer: c.customer, Note: c.note})
		if err := a.Validate(); (err == nil) != c.fine {
			t.Errorf("%s: %v", name, err)
		}
	}
}
