package meter

import (
	"fmt"
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

// severalDomains is an account with three domains and messages for them: Q1 for a, Q2 for b, Q3 for a and c, Q4
// for one that nobody knows.
func severalDomains(t *testing.T) (*Ledger, *Account) {
	t.Helper()
	l := newTestLedger(t, Options{})
	mustAdd(t, l, Account{Name: "hooli", Mode: ATRN, Domains: []string{"a.example", "b.example", "c.example"}})
	d := mustLoad(t, l)
	hooli := d.Account("hooli")
	r := NewRecorder(l, nil)
	defer r.Close()
	for i, domains := range [][]string{{"a.example"}, {"b.example", "elsewhere.example"}, nil} {
		m := Message{Instance: fmt.Sprint(i), QueueID: []string{"Q1", "Q2", "Q4"}[i], Size: 10, At: noon.Add(time.Duration(i) * time.Minute),
			Accounts: []*Account{hooli}, Domains: domains}
		if err := r.Record(t.Context(), m); err != nil {
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
	l, hooli := severalDomains(t)
	for _, c := range []struct {
		domains []string
		want    string
	}{
		{nil, "Q3 Q1 Q2 Q4 "},
		{[]string{"a.example"}, "Q3 Q1 Q4 "},
		{[]string{"b.example"}, "Q2 Q4 "},
		{[]string{"b.example", "c.example"}, "Q3 Q2 Q4 "},
		{[]string{"example"}, "Q4 "},
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
	l, hooli := severalDomains(t)
	// Q2 was noted for b alone, and Q4 for nobody knows which.
	if err := l.DeliveredIn(t.Context(), hooli, []string{"a.example", "b.example"}, "Q2", "Q3", "Q4"); err != nil {
		t.Fatal(err)
	}
	for domain, want := range map[string]string{"a.example": "Q1 ", "b.example": "", "c.example": "Q3 Q2 Q4 "} {
		if got := waitsIn(t, l, hooli, domain); got != want {
			t.Errorf("in %s there waits %q, want %q", domain, got, want)
		}
	}
}

func TestDeliveredIsStruckOffForItsAccountAlone(t *testing.T) {
	t.Parallel()
	l, hooli := severalDomains(t)
	mustAdd(t, l, Account{Name: "globex", Mode: ATRN, Domains: []string{"globex.example"}})
	globex := mustLoad(t, l).Account("globex")
	if err := l.StillWaits(t.Context(), globex.ID, WaitingMessage{"Q1", 10, noon}); err != nil {
		t.Fatal(err)
	}
	if err := l.Delivered(t.Context(), hooli.ID, "Q1", "Q3", "Q9"); err != nil {
		t.Fatal(err)
	}
	if got := waitingOf(t, l, hooli).Messages; got != 2 {
		t.Errorf("%d messages wait for hooli, want 2", got)
	}
	if got := waitingOf(t, l, globex); got != (Waiting{1, 10, noon}) {
		t.Errorf("globex, whose Q1 was not delivered, waits with %v", got)
	}
}
