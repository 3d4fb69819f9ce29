package meter

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// customers are accounts of which each is something that the others are not, at noon of the 20th of February.
func customers(t *testing.T) *Ledger {
	t.Helper()
	clock := clockAt("2026-01-01 12:00:00")
	l := newTestLedger(t, Options{Now: clock.Now})
	mustInsert(t, l, "INSERT INTO plan (name, messages) VALUES ('small', 10)")
	for _, a := range []Account{
		{Name: "acme", Mode: Backup, Domains: []string{"acme.example", "shop.acme.example"}, Customer: "K-7"},
		{Name: "bolt", Mode: ETRN, Host: "192.0.2.7", Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/28")}, Domains: []string{"bolt.example"}, Plan: "small"},
		{Name: "corp", Mode: ATRN, Domains: []string{"corp.example"}, Customer: "k-7"},
		{Name: "dent", Mode: POP3, Domains: []string{"dent.example"}, Plan: "small", Terms: Terms{Messages: 11}},
		{Name: "gone", Mode: POP3, Domains: []string{"gone.example"}, Customer: "K-7", Plan: "small"},
		{Name: "hooli", Mode: ATRN, Domains: []string{"hooli.example"}, Suspended: true},
	} {
		clock.now = clock.now.Add(time.Hour)
		mustAdd(t, l, a)
	}
	clock.set("2026-02-20 12:00:00")
	if err := l.DeleteAccount(t.Context(), "gone"); err != nil {
		t.Fatal(err)
	}
	mustInsert(t, l, `INSERT INTO usage (account, day, messages, bytes) VALUES (1, '2026-02-01', 5, 100), (1, '2026-02-02', 5, 100),
		(2, '2026-02-01', 10, 10), (4, '2026-02-01', 10, 50), (4, '2026-01-31', 90, 90), (3, '2026-02-28', 1, 1000)`)
	d := mustLoad(t, l)
	for account, sent := range map[string]string{"bolt": "2026-02-10", "corp": "2026-02-19", "hooli": "2026-02-01"} {
		at, err := time.Parse(time.DateOnly, sent)
		if err != nil {
			t.Fatal(err)
		}
		a := d.Account(account)
		for i := range strings.Index("-hooli-bolt", account) {
			if err := l.StillWaits(t.Context(), a, nil, WaitingMessage{ID: fmt.Sprint(account, i), Size: 100, Since: at.Add(time.Duration(i) * time.Hour)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	// What the queue has for hooli is what it had before hooli was suspended; dent's could not be delivered yet.
	mustInsert(t, l, "INSERT INTO queued (account, messages, bytes, oldest) VALUES (1, 3, 900, ?), (4, 2, 20, ?), (6, 9, 9, 9)",
		clock.now.AddDate(0, 0, -15).UnixMilli(), clock.now.AddDate(0, 0, -1).UnixMilli())
	ago := func(days int) int64 { return clock.now.AddDate(0, 0, -days).UnixMilli() }
	mustInsert(t, l, "INSERT INTO presence (account, fetched, called) VALUES (2, ?, ?), (3, ?, ?), (6, ?, ?)", ago(10), ago(3), ago(8), ago(8), ago(30), ago(30))
	return l
}

func TestASelectionFindsItsAccountsInItsOrder(t *testing.T) {
	t.Parallel()
	l := customers(t)
	day := 24 * time.Hour
	for _, test := range []struct {
		of   Selection
		want string
	}{
		{Selection{}, "acme bolt corp dent hooli"},
		{Selection{Limit: 2}, "acme bolt"},
		{Selection{Modes: []Mode{POP3, Backup}}, "acme dent"},
		{Selection{Suspended: true}, "hooli"},
		{Selection{Domain: "acme.example"}, "acme"},
		{Selection{Domain: "shop.acme.example"}, "acme"},
		{Selection{Domain: "example"}, "acme bolt corp dent hooli"},
		{Selection{Domain: "me.example"}, ""},
		{Selection{Customer: "K-7"}, "acme corp"},
		{Selection{Plan: "small"}, "bolt dent"},
		{Selection{Plan: "small", Modes: []Mode{ETRN}}, "bolt"},
		{Selection{OverLimit: true}, "bolt"}, // its plan's 10, where dent has 11 of its own
		{Selection{OverLimit: true, Tariff: Tariff{Messages: 11, Bytes: 200}}, "acme bolt corp"},
		{Selection{OverLimit: true, Tariff: Tariff{Messages: 11, Bytes: 201}}, "bolt corp"},
		{Selection{Waiting: true}, "acme bolt dent hooli"},
		{Selection{Silent: 7 * day}, "corp dent"}, // dent never came; bolt called; acme fetches nothing; hooli must not
		{Selection{Silent: 8 * day}, "dent"},      // corp came 8 days ago, which is not longer
		{Selection{Silent: 50 * day}, ""},         // dent is not that old
		{Selection{Sort: ByMessages}, "acme bolt dent corp hooli"},
		{Selection{Sort: ByBytes}, "corp acme dent bolt hooli"},
		{Selection{Sort: ByBytes, Limit: 2}, "corp acme"},
		{Selection{Sort: ByWaiting}, "bolt acme dent hooli corp"},
		{Selection{Sort: ByOldest}, "hooli acme bolt dent corp"},
		{Selection{Sort: ByFetched}, "dent hooli bolt corp acme"},
		{Selection{Sort: ByCreated}, "hooli dent corp bolt acme"},
	} {
		test.of.Month = Month{2026, 2}
		all, err := l.Select(t.Context(), test.of)
		if err != nil {
			t.Fatalf("%+v: %v", test.of, err)
		}
		var names []string
		for _, a := range all {
			names = append(names, a.Name)
		}
		if got := strings.Join(names, " "); got != test.want {
			t.Errorf("%+v has %q, want %q", test.of, got, test.want)
		}
		if n, err := l.Count(t.Context(), test.of); err != nil || test.of.Limit == 0 && n != int64(len(names)) || n < int64(len(names)) {
			t.Errorf("%+v counts %d, %v", test.of, n, err)
		}
	}
}

func TestAListedAccountHasWhatTablesShow(t *testing.T) {
	t.Parallel()
	l := customers(t)
	at := func(text string) time.Time { return clockAt(text).now }
	want := []Listed{
		{ID: 6, Name: "hooli", Mode: ATRN, Suspended: true, Domain: "hooli.example", Domains: 1, Waiting: Waiting{1, 100, at("2026-02-01 00:00:00")},
			Fetched: at("2026-01-21 12:00:00"), Called: at("2026-01-21 12:00:00")},
		{ID: 4, Name: "dent", Mode: POP3, Domain: "dent.example", Domains: 1, Usage: Usage{10, 50}, Waiting: Waiting{2, 20, at("2026-02-19 12:00:00")}},
		{ID: 3, Name: "corp", Customer: "k-7", Mode: ATRN, Domain: "corp.example", Domains: 1, Usage: Usage{1, 1000},
			Fetched: at("2026-02-12 12:00:00"), Called: at("2026-02-12 12:00:00")},
		{ID: 2, Name: "bolt", Mode: ETRN, Domain: "bolt.example", Domains: 1, Usage: Usage{10, 10}, Waiting: Waiting{7, 700, at("2026-02-10 00:00:00")},
			Fetched: at("2026-02-10 12:00:00"), Called: at("2026-02-17 12:00:00")},
		{ID: 1, Name: "acme", Customer: "K-7", Mode: Backup, Domain: "acme.example", Domains: 2, Usage: Usage{10, 200}, Waiting: Waiting{3, 900, at("2026-02-05 12:00:00")}},
	}
	got, err := l.Select(t.Context(), Selection{Sort: ByCreated, Month: Month{2026, 2}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the listing (-want +got):\n%s", diff)
	}
}

func TestSomeAccountsAreLikeThoseOfTheWholeDirectory(t *testing.T) {
	t.Parallel()
	l := customers(t)
	all := mustLoad(t, l)
	some, err := l.LoadSome(t.Context(), 4, 1, 5)
	if err != nil {
		t.Fatal(err)
	}
	var want, got []*Account
	for a := range some.Accounts() {
		got = append(got, a)
		want = append(want, all.Account(a.Name))
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b Price) bool { return a == b })); diff != "" || len(got) != 2 {
		t.Errorf("%d accounts, which differ (-all +some):\n%s", len(got), diff)
	}
}

// TestAListingIsReadInParts has more accounts than one read takes, in an order that is not that of the ledger.
func TestAListingIsReadInParts(t *testing.T) {
	t.Parallel()
	l := newTestLedger(t, Options{})
	const accounts = 2*listedAtOnce + 1
	mustInsert(t, l, `WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?)
		INSERT INTO account (name, mode, created) SELECT printf('a%06d', i), 'atrn', i FROM n`, accounts)
	mustInsert(t, l, `INSERT INTO waiting (queue_id, account, domain, size, since, noted) SELECT 'q', id, '', id, 1, 1 FROM account`)
	all, err := l.Select(t.Context(), Selection{Sort: ByCreated})
	if err != nil || len(all) != accounts {
		t.Fatalf("%d accounts, %v", len(all), err)
	}
	for i, a := range all {
		if want := int64(accounts - i); a.ID != want || a.Waiting.Bytes != want || a.Name != fmt.Sprintf("a%06d", want-1) {
			t.Fatalf("in place %d is %+v", i, a)
		}
	}
}
