package meter

import (
	"fmt"
	"iter"
	"testing"
	"time"
)

func collect[T any](t testing.TB, rows iter.Seq2[T, error]) (list []T) {
	t.Helper()
	for row, err := range rows {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, row)
	}
	return list
}

// numbered yields so many addresses.
func numbered(n int, domain string) iter.Seq2[Address, error] {
	return func(yield func(Address, error) bool) {
		for i := range n {
			if !yield(Address{fmt.Sprintf("%06d", i), domain}, nil) {
				return
			}
		}
	}
}

// mustList puts addresses on an account's list.
func mustList(t testing.TB, l *Ledger, name string, addresses iter.Seq2[Address, error]) {
	t.Helper()
	if _, err := l.ImportRecipients(t.Context(), name, false, addresses, func(int) {}); err != nil {
		t.Fatal(err)
	}
}

func TestALongListIsWholeAndInOrder(t *testing.T) {
	t.Parallel()
	l, d := twoAccounts(t, Options{})
	acme := d.Account("acme").ID
	const n = 3*page + 7
	mustList(t, l, "acme", numbered(n, "acme.example"))
	// Several of each time, so that pages end among them, and every tenth counted in the month after.
	mustInsert(t, l, numbers+`INSERT INTO message (instance, account, at, day, queue_id, size, client)
		SELECT printf('%06d', i), ?2, ?3 + i / 300, iif(i % 10 = 0, '2026-03-01', '2026-02-10'), 'Q', i, '' FROM n`, n, acme, noon.UnixMilli())
	mustInsert(t, l, numbers+`INSERT INTO message (instance, account, at, day, queue_id, size, client)
		SELECT 'march' || i, ?2, ?3, '2026-03-20', 'Q', i, '' FROM n`, 1, acme, noon.Add(40*24*time.Hour).UnixMilli())
	recipients := collect(t, l.Recipients(t.Context(), acme))
	if len(recipients) != n || recipients[0] != "000000@acme.example" || recipients[n-1] != fmt.Sprintf("%06d@acme.example", n-1) {
		t.Errorf("%d recipients are listed, want %d", len(recipients), n)
	}
	for month, tenth := range map[Month]bool{{2026, 2}: false, {2026, 3}: true} {
		i := 0
		for _, m := range collect(t, l.Evidence(t.Context(), acme, month)) {
			for i < n && (i%10 == 0) != tenth {
				i++
			}
			if i < n && (m.Size != int64(i) || !m.At.Equal(noon.Add(time.Duration(i/300)*time.Millisecond))) || i == n && m.Instance != "march0" {
				t.Fatalf("where message %d of %s is to be, there is %+v", i, month, m)
			}
			i++
		}
		if want := map[bool]int{false: n, true: n + 1}[tenth]; i != want {
			t.Errorf("the evidence of %s ends with message %d, want %d", month, i, want)
		}
	}
}

// Whoever reads the output may be a pager that nobody looks at.
func TestAListingThatNobodyReadsLetsTheLogBeEmptied(t *testing.T) {
	t.Parallel()
	l, d := twoAccounts(t, Options{BusyTimeout: 10 * time.Millisecond})
	acme := d.Account("acme").ID
	mustList(t, l, "acme", numbered(2*page, "acme.example"))
	count(t, l, "acme", noon, 2*page, 10)
	emptied := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		mustAdd(t, l, Account{Name: what, Mode: Backup})
		file, err := fileOf(t, l).current(t.Context())
		if err == nil {
			err = file.settle(t.Context())
		}
		if err != nil {
			t.Errorf("while the %s is listed: %v", what, err)
		}
	}
	for _, err := range l.Evidence(t.Context(), acme, Month{2026, 2}) {
		emptied("evidence", err)
		break
	}
	for _, err := range l.Recipients(t.Context(), acme) {
		emptied("list", err)
		break
	}
}
