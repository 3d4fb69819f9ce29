package meter

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

func waitingOf(t *testing.T, l *Ledger, a *Account) Waiting {
	t.Helper()
	w, err := l.Waiting(t.Context(), a.ID)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// severalDomains is a ledger with an account, hooli, that has three domains.
func severalDomains(t testing.TB, opt Options) (*Ledger, *Directory) {
	t.Helper()
	l := newTestLedger(t, opt)
	mustAdd(t, l, Account{Name: "hooli", Mode: ATRN, Domains: []string{"a.example", "b.example", "c.example"}})
	return l, mustLoad(t, l)
}

// severalWaiting is an account with three domains and messages for them: Q1 for a, Q2 for b, Q3 for a and c, Q4
// for one that nobody knows.
func severalWaiting(t *testing.T) (*Ledger, *Account) {
	t.Helper()
	l, d := severalDomains(t, Options{})
	hooli := d.Account("hooli")
	r := NewRecorder(l, nil)
	defer r.Close()
	for i, domains := range [][]string{{"a.example"}, {"b.example", "elsewhere.example"}, nil} {
		m := Message{Instance: fmt.Sprint(i), QueueID: []string{"Q1", "Q2", "Q4"}[i], Size: 10, At: noon.Add(time.Duration(i) * time.Minute),
			Accounts: []*Account{hooli}, Domains: domains}
		if err := r.Record(m, nil); err != nil {
			t.Fatal(err)
		}
	}
	queue := queueOf(QueuedMessage{"Q3", 10, noon.Add(-time.Minute), []string{"x@a.example", "y@c.example", "z@A.example"}})
	if _, err := l.Reconcile(t.Context(), d, queue); err != nil {
		t.Fatal(err)
	}
	return l, hooli
}

func TestWaitingIsKnownByDomain(t *testing.T) {
	t.Parallel()
	l, hooli := severalWaiting(t)
	for _, c := range []struct {
		domains []string
		want    string
	}{
		{nil, "Q3 Q1 Q2 Q4 "},
		{[]string{"a.example"}, "Q3 Q1 Q4 "},
		{[]string{"b.example"}, "Q2 Q4 "},
		{[]string{"b.example", "c.example"}, "Q3 Q2 Q4 "},
		{[]string{"a.example", "b.example"}, "Q3 Q1 Q2 Q4 "},
		{[]string{"example"}, ""},
	} {
		var got string
		var last WaitingMessage
		for { // a page at a time
			page, err := l.WaitingAfter(t.Context(), hooli.ID, c.domains, last, 2)
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				break
			}
			for _, last = range page {
				got += last.ID + " "
			}
		}
		if got != c.want {
			t.Errorf("for %v there waits %q, want %q", c.domains, got, c.want)
		}
		w, err := l.Waiting(t.Context(), hooli.ID, c.domains...)
		if err != nil || w.Messages != int64(len(got)/3) {
			t.Errorf("for %v there wait %v, %v", c.domains, w, err)
		}
		if waits, err := l.HasWaiting(t.Context(), hooli.ID, c.domains...); err != nil || waits != (got != "") {
			t.Errorf("for %v it is said to wait: %v, %v", c.domains, waits, err)
		}
	}
}

// waitsIn are the IDs that wait for the account in a domain.
func waitsIn(t *testing.T, l *Ledger, a *Account, domain string) (ids string) {
	t.Helper()
	page, err := l.WaitingAfter(t.Context(), a.ID, []string{domain}, WaitingMessage{}, 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range page {
		ids += m.ID + " "
	}
	return ids
}

func TestDeliveredInSomeDomainsWaitsInTheOthers(t *testing.T) {
	t.Parallel()
	l, hooli := severalWaiting(t)
	// Q2 waits in b alone, and Q4 in nobody knows which.
	if err := l.Delivered(t.Context(), hooli.ID, []string{"a.example", "b.example"}, "Q2", "Q3", "Q4"); err != nil {
		t.Fatal(err)
	}
	for domain, want := range map[string]string{"a.example": "Q1 ", "b.example": "", "c.example": "Q3 Q4 "} {
		if got := waitsIn(t, l, hooli, domain); got != want {
			t.Errorf("in %s there waits %q, want %q", domain, got, want)
		}
	}
}

func TestDeliveredIsStruckOffForItsAccountAlone(t *testing.T) {
	t.Parallel()
	l, hooli := severalWaiting(t)
	mustAdd(t, l, Account{Name: "globex", Mode: ATRN, Domains: []string{"globex.example"}})
	globex := mustLoad(t, l).Account("globex")
	if err := l.StillWaits(t.Context(), globex, nil, WaitingMessage{ID: "Q1", Size: 10, Since: noon}); err != nil {
		t.Fatal(err)
	}
	if err := l.Delivered(t.Context(), hooli.ID, nil, "Q1", "Q3", "Q9"); err != nil {
		t.Fatal(err)
	}
	if got := waitingOf(t, l, hooli).Messages; got != 2 {
		t.Errorf("%d messages wait for hooli, want 2", got)
	}
	if got := waitingOf(t, l, globex); got != (Waiting{1, 10, noon}) {
		t.Errorf("globex, whose Q1 was not delivered, waits with %v", got)
	}
}

func TestWhatWasNotTakenWaitsInTheDomainsThatAreNamed(t *testing.T) {
	t.Parallel()
	l, hooli := severalWaiting(t)
	for id, domains := range map[string][]string{"Q5": {"c.example"}, "Q6": nil, "Q7": {"elsewhere.example"}} {
		if err := l.StillWaits(t.Context(), hooli, domains, WaitingMessage{ID: id, Size: 10, Since: noon.Add(time.Hour)}); err != nil {
			t.Fatal(err)
		}
	}
	for domain, want := range map[string]string{"a.example": "Q3 Q1 Q4 Q6 Q7 ", "c.example": "Q3 Q4 Q5 Q6 Q7 "} {
		if got := waitsIn(t, l, hooli, domain); got != want {
			t.Errorf("in %s there waits %q, want %q", domain, got, want)
		}
	}
}

// However its domains became known one after another, a message is one.
func TestAMessageIsOneWhateverWasNotedOfIt(t *testing.T) {
	t.Parallel()
	l, hooli := severalWaiting(t)
	if err := l.Suspect(t.Context(), hooli.ID, map[string]int{"Q1": 3}); err != nil {
		t.Fatal(err)
	}
	for _, domain := range []string{"b.example", "c.example"} {
		if err := l.StillWaits(t.Context(), hooli, []string{domain}, WaitingMessage{ID: "Q1", Size: 99, Since: noon.Add(time.Hour)}); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := waitingOf(t, l, hooli), (Waiting{4, 40, noon.Add(-time.Minute)}); got != want {
		t.Errorf("there waits %v, want %v", got, want)
	}
	got, err := l.WaitingAfter(t.Context(), hooli.ID, []string{"b.example", "c.example"}, WaitingMessage{Suspicion: 1, ID: "Q"}, 10)
	if err != nil || len(got) != 1 || got[0] != (WaitingMessage{1, "Q1", 10, noon, 3}) {
		t.Errorf("under suspicion there are %v, %v", got, err)
	}
}

func TestSuspectsAreHandedOverLast(t *testing.T) {
	t.Parallel()
	l, hooli := severalWaiting(t)
	order := func(want string) {
		t.Helper()
		var got string
		var last WaitingMessage
		for {
			page, err := l.WaitingAfter(t.Context(), hooli.ID, nil, last, 1)
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				break
			}
			last = page[0]
			got += fmt.Sprint(last.ID, ":", last.Suspicion, " ")
		}
		if got != want {
			t.Errorf("the order is %q, want %q", got, want)
		}
	}
	order("Q3:0 Q1:0 Q2:0 Q4:0 ")
	for _, suspicion := range []map[string]int{{"Q3": 1, "Q1": 1}, {"Q1": 2, "Q2": 4, "Q9": 7}} {
		if err := l.Suspect(t.Context(), hooli.ID, suspicion); err != nil {
			t.Fatal(err)
		}
	}
	order("Q4:0 Q3:1 Q1:2 Q2:4 ")
	for limit, want := range map[int][]WaitingMessage{
		1: {{1, "Q1", 10, noon, 2}},
		9: {{1, "Q1", 10, noon, 2}, {1, "Q2", 10, noon.Add(time.Minute), 4}},
	} {
		if got, err := l.Suspects(t.Context(), hooli.ID, limit); err != nil || !slices.Equal(got, want) {
			t.Errorf("%d suspects are %v, %v; want %v", limit, got, err, want)
		}
	}
	if err := l.Suspect(t.Context(), hooli.ID, map[string]int{"Q3": 0}); err != nil {
		t.Fatal(err)
	}
	order("Q3:0 Q4:0 Q1:2 Q2:4 ")
}

func TestNothingIsNotedOfADeletedAccount(t *testing.T) {
	t.Parallel()
	l, hooli := severalWaiting(t)
	if err := l.Delivered(t.Context(), hooli.ID, nil, "Q1"); err != nil {
		t.Fatal(err)
	}
	if err := l.DeleteAccount(t.Context(), "hooli"); err != nil {
		t.Fatal(err)
	}
	if w := waitingOf(t, l, hooli); w != (Waiting{}) {
		t.Errorf("there waits %v", w)
	}
	l.opt.Now = func() time.Time { return time.Now().Add(time.Minute) } // the pass begins after the delivery
	if _, err := l.Reconcile(t.Context(), mustLoad(t, l), queueOf()); err != nil {
		t.Fatal(err)
	}
	if rows, err := l.waitingBetween(t.Context(), "", pastAll); err != nil || len(rows) > 0 {
		t.Errorf("the index has %+v, %v", rows, err)
	}
}

// What a turn asks again and again while much waits costs no more than what it gets.
func TestWhatWaitsIsReadInOrderFromAnIndexAlone(t *testing.T) {
	t.Parallel()
	l, hooli := severalWaiting(t)
	after := WaitingMessage{1, "Q1", 10, noon, 0}
	for _, domains := range [][]string{nil, {"a.example"}, {"a.example", "b.example"}} {
		for what, query := range map[string]func() (string, []any){
			"whether": func() (string, []any) { return selectWhether(hooli.ID, domains) },
			"amount":  func() (string, []any) { return selectAmount(hooli.ID, domains) },
			"page":    func() (string, []any) { return selectPage(hooli.ID, domains, after, 50) },
		} {
			sql, args := query()
			plan, err := planOf(t.Context(), l, sql, args...)
			if err != nil {
				t.Fatal(err)
			}
			if !regexp.MustCompile(`SEARCH (waiting|w) USING COVERING INDEX waiting_(order|domain) \(account=\?`).MatchString(plan) ||
				strings.Contains(plan, "TEMP B-TREE") || what == "whether" && len(domains) > 0 && !strings.Contains(plan, "(account=? AND domain=?)") {
				t.Errorf("%s of %q is found by\n%s", what, domains, plan)
			}
		}
	}
}

// planOf is how SQLite executes a statement.
func planOf(ctx context.Context, l *Ledger, sql string, args ...any) (plan string, err error) {
	for rows, err := range l.rows(ctx, "EXPLAIN QUERY PLAN "+sql, args...) {
		var id, parent, unused int
		var detail string
		if err == nil {
			err = rows.Scan(&id, &parent, &unused, &detail)
		}
		if err != nil {
			return "", err
		}
		plan += detail + "\n"
	}
	return plan, nil
}
