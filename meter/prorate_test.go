package meter

import (
	"math"
	"math/big"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var prorated = func() Tariff {
	t := standard
	t.Prorate = true
	return t
}()

func TestTheFirstMonthIsBilledByDays(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		zone    string
		created string // UTC
		month   Month
		days    int
		base    string
	}{
		"in the middle":                       {"UTC", "2026-03-14 12:00:00", Month{2026, 3}, 18, "5.81"},
		"on the first day":                    {"UTC", "2026-03-01 23:59:59", Month{2026, 3}, 31, "10.00"},
		"at the first moment of the second":   {"UTC", "2026-03-02 00:00:00", Month{2026, 3}, 30, "9.68"},
		"on the last day":                     {"UTC", "2026-03-31 00:00:00", Month{2026, 3}, 1, "0.32"},
		"in the next month":                   {"UTC", "2026-03-14 12:00:00", Month{2026, 4}, 30, "10.00"},
		"in a short February":                 {"UTC", "2026-02-15 08:00:00", Month{2026, 2}, 14, "5.00"},
		"in a leap February":                  {"UTC", "2028-02-15 08:00:00", Month{2028, 2}, 15, "5.17"},
		"in a leap February's last second":    {"UTC", "2028-02-29 23:59:59", Month{2028, 2}, 1, "0.34"},
		"in Berlin's last second":             {"Europe/Berlin", "2026-03-31 21:59:59", Month{2026, 3}, 1, "0.32"},
		"in Berlin's next month":              {"Europe/Berlin", "2026-03-31 22:00:00", Month{2026, 4}, 30, "10.00"},
		"in Auckland, a day ahead":            {"Pacific/Auckland", "2026-01-30 11:00:00", Month{2026, 1}, 1, "0.32"},
		"on the day that the clock is put on": {"America/Santiago", "2026-09-06 04:00:00", Month{2026, 9}, 25, "8.33"}, // which has no midnight
		"before a day that is left out":       {"Pacific/Apia", "2011-12-30 09:59:59", Month{2011, 12}, 3, "0.97"},
		"behind a day that is left out":       {"Pacific/Apia", "2011-12-30 10:00:00", Month{2011, 12}, 1, "0.32"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			zone, err := time.LoadLocation(c.zone)
			if err != nil {
				t.Fatal(err)
			}
			l := newTestLedger(t, Options{Now: clockAt(c.created).Now, Location: zone})
			mustAdd(t, l, Account{Name: "acme", Mode: Backup})
			all, err := l.Invoices(t.Context(), c.month, prorated)
			if err != nil || len(all.Accounts) != 1 {
				t.Fatalf("%d bills, %v", len(all.Accounts), err)
			}
			i := all.Accounts[0]
			if i.Days != c.days || i.MonthDays != c.month.Days() || i.Base().String() != c.base || i.Total() != i.Base() {
				t.Errorf("%d of %d days are billed, %s of %s; want %d, %s", i.Days, i.MonthDays, i.Base(), i.Total(), c.days, c.base)
			}
			all, err = l.Invoices(t.Context(), c.month, standard)
			if i := all.Accounts[0]; err != nil || i.Prorated() || i.Total() != 1000 {
				t.Errorf("without proration %d days are billed, %s, %v", i.Days, i.Total(), err)
			}
		})
	}
}

func TestFurtherTiersAreNotProrated(t *testing.T) {
	t.Parallel()
	c := clockAt("2026-02-15 12:00:00")
	l := newTestLedger(t, Options{Now: c.Now})
	mustAdd(t, l, Account{Name: "acme", Mode: Backup, Terms: Terms{Messages: 2, TierPrice: Price{true, 300}}})
	count(t, l, "acme", c.now, 5, 10)
	all, err := l.Invoices(t.Context(), Month{2026, 2}, prorated)
	if err != nil {
		t.Fatal(err)
	}
	if i := all.Accounts[0]; i.Base() != 500 || i.Additional() != 600 || i.Total() != 1100 || i.Tiers() != 3 {
		t.Errorf("the bill is %s and %s, %s", i.Base(), i.Additional(), i.Total())
	}
}

// An account that is gone at the month's end owes something where it was used, and then from its first day on.
func TestAnAccountOfPartOfAMonth(t *testing.T) {
	t.Parallel()
	c := clockAt("2026-02-15 12:00:00")
	l := newTestLedger(t, Options{Now: c.Now})
	mustAdd(t, l, Account{Name: "idle", Mode: Backup})
	mustAdd(t, l, Account{Name: "used", Mode: Backup})
	count(t, l, "used", c.now, 1, 10)
	c.set("2026-02-20 12:00:00")
	for _, name := range []string{"idle", "used"} {
		if err := l.DeleteAccount(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	all, err := l.Invoices(t.Context(), Month{2026, 2}, prorated)
	if err != nil || len(all.Accounts) != 1 || all.Accounts[0].Account != "used" || all.Accounts[0].Days != 14 {
		t.Errorf("the bills are %+v, %v", all, err)
	}
}

func TestAClosedMonthKeepsItsProration(t *testing.T) {
	t.Parallel()
	c := clockAt("2026-02-15 12:00:00")
	l := newTestLedger(t, Options{Now: c.Now})
	mustAddPlan(t, l, gold)
	mustAdd(t, l, Account{Name: "acme", Mode: Backup, Customer: "K-4711", Plan: "gold"})
	c.set("2026-03-15 12:00:00")
	closing := func(month Month, tariff Tariff) {
		t.Helper()
		if err := l.CloseMonth(t.Context(), month, tariff); err != nil {
			t.Fatal(err)
		}
	}
	closing(Month{2026, 2}, prorated)
	mustAdd(t, l, Account{Name: "late", Mode: Backup})
	c.set("2026-04-15 12:00:00")
	closing(Month{2026, 3}, standard)
	_, _, err := l.EditAccount(t.Context(), "acme", "account set", func(a *Account) error { a.Customer, a.Plan = "K-1", ""; return nil })
	if err != nil {
		t.Fatal(err)
	}
	for _, tariff := range []Tariff{standard, prorated} {
		february, err := l.Invoices(t.Context(), Month{2026, 2}, tariff)
		if err != nil {
			t.Fatal(err)
		}
		if i := february.Accounts[0]; i.Days != 14 || i.Total() != 1000 || i.Customer != "K-4711" || i.Plan != "gold" {
			t.Errorf("with proration %t the closed month is %+v", tariff.Prorate, i)
		}
		march, err := l.Invoices(t.Context(), Month{2026, 3}, tariff)
		if err != nil {
			t.Fatal(err)
		}
		if i := march.Accounts[1]; i.Prorated() || i.Total() != 1000 {
			t.Errorf("with proration %t the month that was closed without is %+v", tariff.Prorate, i)
		}
	}
}

func TestBasePriceOfDaysProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		price := Cents(rapid.Int64Range(0, math.MaxInt64).Draw(t, "price"))
		all := rapid.IntRange(28, 31).Draw(t, "days of the month")
		of := func(days int) Cents {
			i := Invoice{Days: days, MonthDays: all, Tariff: Tariff{BasePrice: price}}
			return i.Base()
		}
		days := rapid.IntRange(1, all).Draw(t, "days")
		exact := new(big.Rat).Mul(new(big.Rat).SetInt64(int64(price)), big.NewRat(int64(days), int64(all)))
		above := new(big.Rat).Sub(new(big.Rat).SetInt64(int64(of(days))), exact)
		if above.Cmp(big.NewRat(1, 2)) > 0 || above.Cmp(big.NewRat(-1, 2)) <= 0 {
			t.Errorf("%d of %d days of %d cost %d", days, all, price, of(days))
		}
		if of(all) != price {
			t.Errorf("all days of %d cost %d", price, of(all))
		}
		if days < all {
			if of(days) > of(days+1) {
				t.Errorf("%d days of %d cost more than one more", days, price)
			}
			if rest := price - of(days); of(all-days)-rest < 0 || of(all-days)-rest > 1 {
				t.Errorf("%d and %d days of %d cost %d and %d", days, all-days, price, of(days), of(all-days))
			}
		}
	})
}

func TestBilledDaysAreThoseOfTheCalendar(t *testing.T) {
	t.Parallel()
	now := new(clock)
	zones := []string{"UTC", "Europe/Berlin", "America/St_Johns", "Pacific/Kiritimati", "Pacific/Pago_Pago", "Africa/Cairo", "America/Asuncion", "Asia/Beirut"}
	ledgers := map[string]*Ledger{}
	for _, name := range zones {
		zone, err := time.LoadLocation(name)
		if err != nil {
			t.Fatal(err)
		}
		ledgers[name] = newTestLedger(t, Options{Now: now.Now, Location: zone})
		mustAdd(t, ledgers[name], Account{Name: "acme", Mode: Backup})
	}
	rapid.Check(t, func(r *rapid.T) {
		l := ledgers[rapid.SampledFrom(zones).Draw(r, "zone")]
		created := time.Unix(rapid.Int64Range(1_600_000_000, 1_900_000_000).Draw(r, "created"), 0)
		if err := l.batch(t.Context(), statement{"UPDATE account SET created = ?", []any{created.UnixMilli()}}); err != nil {
			r.Fatal(err)
		}
		month := MonthOf(created, l.opt.Location)
		want := month.Days() - created.In(l.opt.Location).Day() + 1
		all, err := l.Invoices(t.Context(), month, prorated)
		if err != nil || len(all.Accounts) != 1 || all.Accounts[0].Days != want {
			r.Fatalf("%v is billed %+v, %v; want %d days", created.In(l.opt.Location), all.Accounts, err, want)
		}
	})
}
