package meter

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var standard = Tariff{Messages: 100_000, Bytes: 1_000_000_000, BasePrice: 1000, TierPrice: 1000, Currency: "USD"}

func TestCharge(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		usage Usage
		tiers int64
		want  string
	}{
		{Usage{0, 0}, 1, "10.00"},
		{Usage{1, 1}, 1, "10.00"},
		{Usage{100_000, 0}, 1, "10.00"},
		{Usage{100_001, 0}, 2, "20.00"},
		{Usage{350_000, 0}, 4, "40.00"},
		{Usage{5, 1_000_000_000}, 1, "10.00"},
		{Usage{5, 1_000_000_001}, 2, "20.00"},
		{Usage{5, 3_200_000_000}, 4, "40.00"},
		{Usage{250_000, 3_200_000_000}, 4, "40.00"},
	} {
		if tiers, charge := standard.Tiers(c.usage), standard.Charge(c.usage); tiers != c.tiers || charge.String() != c.want {
			t.Errorf("%+v: %d tiers, %s; want %d, %s", c.usage, tiers, charge, c.tiers, c.want)
		}
	}
}

func TestAccountsOwnLimitsAreItsTierSize(t *testing.T) {
	t.Parallel()
	own := standard.For(&Account{Terms: Terms{Messages: 3}})
	if own.Messages != 3 || own.Bytes != standard.Bytes || own.Charge(Usage{4, 0}) != 2000 {
		t.Errorf("the tariff is %+v", own)
	}
}

func TestReachedIsTheMessageAfterTheLimit(t *testing.T) {
	t.Parallel()
	own := standard.For(&Account{Terms: Terms{Messages: 3, Bytes: 10}})
	for u, want := range map[Usage]bool{{2, 9}: false, {3, 0}: true, {0, 10}: true, {4, 0}: true} {
		if got := own.Reached(u, 1); got != want {
			t.Errorf("Reached(%+v, 1) = %v, want %v", u, got, want)
		}
	}
	if own.Reached(Usage{5, 0}, 2) || !own.Reached(Usage{6, 0}, 2) {
		t.Error("two tiers are reached at 6 messages")
	}
}

// A bound of so many tiers is never billed above them for the message that crosses it, whatever its size.
func TestTheMessageThatCrossesTheBoundBeginsNoTier(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		set   Account
		usage Usage
		last  int64
		want  int64
	}{
		{"deferred", Account{Terms: Terms{OnLimit: Defer}}, Usage{2, 160}, 70, 1},
		{"rejected, much larger than the limit", Account{Terms: Terms{OnLimit: Reject}}, Usage{2, 1_090}, 1_000, 1},
		{"the first message", Account{Terms: Terms{OnLimit: Reject}}, Usage{1, 1_000}, 1_000, 1},
		{"exactly full", Account{Terms: Terms{OnLimit: Defer}}, Usage{2, 100}, 10, 1},
		{"both limits at once", Account{Terms: Terms{OnLimit: Defer}}, Usage{10, 160}, 70, 1},
		{"full without it", Account{Terms: Terms{OnLimit: Defer}}, Usage{3, 160}, 60, 2},
		{"by messages", Account{Terms: Terms{OnLimit: Defer}}, Usage{11, 20}, 1, 2},
		{"by messages, and the size", Account{Terms: Terms{OnLimit: Defer}}, Usage{11, 101}, 10, 2},
		{"two tiers", Account{Terms: Terms{MaxTiers: 2}}, Usage{4, 260}, 70, 2},
		{"below two tiers", Account{Terms: Terms{MaxTiers: 2}}, Usage{4, 160}, 70, 2},
		{"more than two tiers", Account{Terms: Terms{MaxTiers: 2}}, Usage{4, 360}, 70, 4},
		{"no bound", Account{Terms: Terms{OnLimit: Bill}}, Usage{2, 160}, 70, 2},
		{"a bound for billing alone", Account{Terms: Terms{OnLimit: Reject, MaxTiers: 5}}, Usage{2, 160}, 70, 1},
		{"nothing but adjustments", Account{Terms: Terms{OnLimit: Defer}}, Usage{0, 160}, 0, 2},
	} {
		own := Tariff{Messages: 10, Bytes: 100}.For(&c.set)
		if got := own.Tiers(own.Billed(c.usage, c.last)); got != c.want {
			t.Errorf("%s: %d tiers are billed, want %d", c.name, got, c.want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		bounded := Tariff{
			Messages: rapid.Int64Range(1, math.MaxInt64).Draw(t, "messages"), Bytes: rapid.Int64Range(1, math.MaxInt64).Draw(t, "bytes"),
			MaxTiers: rapid.Int64Range(1, math.MaxInt64).Draw(t, "bound"),
		}
		var u Usage
		var last int64
		for !bounded.Reached(u, bounded.MaxTiers) && u.Messages < 20 {
			last = rapid.Int64Range(0, 1<<58).Draw(t, "size")
			u.Messages, u.Bytes = u.Messages+1, u.Bytes+last
		}
		if tiers := bounded.Tiers(bounded.Billed(u, last)); tiers > bounded.MaxTiers {
			t.Fatalf("%+v, of which %d at last, is billed as %d tiers", u, last, tiers)
		}
	})
}

func TestChargeNeverFallsAndNeverOverflows(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		const most = int64(1) << 60 // an exabyte
		count := rapid.Int64Range(0, most)
		tariff := Tariff{
			Messages:  rapid.Int64Range(1, math.MaxInt64).Draw(t, "messages"),
			Bytes:     rapid.Int64Range(1, math.MaxInt64).Draw(t, "bytes"),
			BasePrice: Cents(rapid.Int64Range(0, 1e12).Draw(t, "base")),
			TierPrice: Cents(rapid.Int64Range(0, 1e12).Draw(t, "tier")),
		}
		less := Usage{count.Draw(t, "less messages"), count.Draw(t, "less bytes")}
		more := Usage{rapid.Int64Range(less.Messages, most).Draw(t, "more messages"), rapid.Int64Range(less.Bytes, most).Draw(t, "more bytes")}
		if a, b := tariff.Charge(less), tariff.Charge(more); a < tariff.BasePrice || b < a {
			t.Fatalf("%+v costs %s, %+v costs %s", less, a, more, b)
		}
		tiers := tariff.Tiers(less)
		if tariff.Reached(less, tiers+1) {
			t.Fatalf("%+v is in tier %d and has reached the end of the next", less, tiers)
		}
	})
}

func TestEveryTierEdgeIsExact(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		tier := rapid.Int64Range(1, 1_000_000).Draw(t, "tier")
		for _, u := range []struct {
			usage Usage
			want  int64
		}{
			{Usage{tier * standard.Messages, 0}, tier},
			{Usage{tier*standard.Messages + 1, 0}, tier + 1},
			{Usage{0, tier * standard.Bytes}, tier},
			{Usage{0, tier*standard.Bytes + 1}, tier + 1},
		} {
			if got := standard.Tiers(u.usage); got != u.want {
				t.Fatalf("%+v is in tier %d, want %d", u.usage, got, u.want)
			}
		}
	})
}

func TestMonths(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]string{"2026-02": "2026-02-28", "2028-02": "2028-02-29", "2026-12": "2026-12-31"} {
		m, err := ParseMonth(s)
		if err != nil {
			t.Fatal(err)
		}
		if _, last := m.span(); last != want || m.String() != s {
			t.Errorf("%s is %s and ends on %s, want %s", s, m, last, want)
		}
	}
	for _, s := range []string{"", "2026", "2026-13", "2026-00", "2026-2", "February", "2026-02-01"} {
		if m, err := ParseMonth(s); err == nil {
			t.Errorf("ParseMonth(%q) = %v", s, m)
		}
	}
}

// Others of its day may have come before it.
func TestTheMessageThatCrossesABoundBeginsNoTier(t *testing.T) {
	t.Parallel()
	c := clockAt("2026-02-10 12:00:00")
	l := newTestLedger(t, Options{Now: c.Now})
	mustAdd(t, l, Account{Name: "acme", Mode: Backup, Terms: Terms{Bytes: 100, OnLimit: Reject}})
	for i, size := range []int64{10, 80, 40} {
		count(t, l, "acme", c.now.Add(time.Duration(i)*time.Minute), 1, size)
	}
	wantInvoices(t, l, "2026-02", standard, "acme [] 3 messages 130 bytes 1 tiers [] 10.00+0.00=10.00 USD")
	count(t, l, "acme", c.now.Add(time.Hour), 1, 20)
	wantInvoices(t, l, "2026-02", standard, "acme [] 4 messages 150 bytes 2 tiers [bytes] 10.00+10.00=20.00 USD")
}
