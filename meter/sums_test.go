package meter

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSumsAreThoseOfBillsAndOfWhatWaits(t *testing.T) {
	t.Parallel()
	l := customers(t)
	mustInsert(t, l, "UPDATE plan SET on_limit = 'defer', base_price = 300")
	mustInsert(t, l, "INSERT INTO usage (account, day, messages, bytes, last) VALUES (2, '2026-02-03', 1, 500, 500), (6, '2026-02-03', 3, 500, 450)")
	mustInsert(t, l, "INSERT INTO usage (account, day, messages, bytes) VALUES (5, '2026-02-03', 45, 5)") // of a deleted account
	mustInsert(t, l, "INSERT INTO adjustment (account, month, messages, bytes, reason, at, who) VALUES (1, '2026-02', 30, 0, '', 0, '')")
	mustInsert(t, l, "UPDATE account SET created = ? WHERE name IN ('corp', 'dent')", clockAt("2026-02-12 12:00:00").now.UnixMilli())
	for _, tariff := range []Tariff{
		standard,
		{Messages: 10, Bytes: 200, BasePrice: 1000, TierPrice: 100, OnLimit: Bill},
		{Messages: 10, Bytes: 200, BasePrice: 1000, TierPrice: 100, OnLimit: Defer},
		{Messages: 1, BasePrice: 1000, TierPrice: 100, OnLimit: Bill},
		{Messages: 10, Bytes: 200, BasePrice: 999, TierPrice: 100, OnLimit: Bill, Prorate: true},
	} {
		month := Month{2026, 2}
		bills, err := l.Invoices(t.Context(), month, tariff)
		if err != nil {
			t.Fatal(err)
		}
		var want Cents
		var used Usage
		for _, b := range bills.Accounts {
			want = want.Plus(b.Total())
			used.Messages += b.Usage().Messages
			used.Bytes += b.Usage().Bytes
		}
		s, err := l.Sums(t.Context(), month, tariff)
		if err != nil || s.Charge != want || s.Usage != used {
			t.Errorf("with %+v the month sums up to %v and %v, %v; the bills to %v and %v", tariff, s.Usage, s.Charge, err, used, want)
		}
		at := func(text string) time.Time { return clockAt(text).now }
		if diff := cmp.Diff(map[Mode]Waiting{
			ETRN: {7, 700, at("2026-02-10 00:00:00")}, ATRN: {1, 100, at("2026-02-01 00:00:00")},
			Backup: {3, 900, at("2026-02-05 12:00:00")}, POP3: {2, 20, at("2026-02-19 12:00:00")},
		}, s.Waiting); diff != "" || s.Accounts != 5 || s.Suspended != 1 {
			t.Errorf("%d accounts, %d of them suspended, wait for (-want +got):\n%s", s.Accounts, s.Suspended, diff)
		}
	}
}
