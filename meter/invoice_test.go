package meter

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// clockAt is a clock that stands at a time in UTC, written as 2026-02-10 12:00:00.
func clockAt(text string) *clock {
	c := new(clock)
	c.set(text)
	return c
}

func (c *clock) set(text string) {
	t, err := time.Parse(time.DateTime, text)
	if err != nil {
		panic(err)
	}
	c.now = t
}

// count adds so many messages of a size to an account's day.
func count(t testing.TB, l *Ledger, name string, at time.Time, n int, size int64) {
	t.Helper()
	a := mustLoad(t, l).Account(name)
	rows := [][]any{}
	for i := range n {
		rows = append(rows, []any{fmt.Sprintf("%s.%d.%d", name, at.UnixNano(), i), a.ID, at.UnixMilli(), day(at, l.opt.Location), "Q", size, "192.0.2.1"})
	}
	err := l.batch(t.Context(), statement{`
		INSERT INTO message (instance, account, at, day, queue_id, size, client)
		SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6 FROM json_each(?)`,
		[]any{asJSON(rows)}})
	if err != nil {
		t.Fatal(err)
	}
}

// invoices are the bills of a month as one line each.
func invoices(t testing.TB, l *Ledger, month string, tariff Tariff) string {
	t.Helper()
	m, err := ParseMonth(month)
	if err != nil {
		t.Fatal(err)
	}
	all, err := l.Invoices(t.Context(), m, tariff)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	if !all.Closed.IsZero() {
		lines = append(lines, "closed by "+all.ClosedBy)
	}
	for _, i := range all.Accounts {
		u := i.Usage()
		line := fmt.Sprintf("%s %v %d messages %d bytes %d tiers [%s] %s+%s=%s %s",
			i.Account, i.Domains, u.Messages, u.Bytes, i.Tiers(), i.Decided(), i.Tariff.BasePrice, i.Additional(), i.Total(), i.Tariff.Currency)
		if i.Deleted {
			line += " deleted"
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

func TestABillOfOneAccountAlone(t *testing.T) {
	t.Parallel()
	l := newTestLedger(t, Options{Now: clockAt("2026-02-10 12:00:00").Now})
	mustAdd(t, l, Account{Name: "acme", Mode: Backup})
	mustAdd(t, l, Account{Name: "bolt", Mode: Backup})
	for name, want := range map[string]int{"bolt": 1, "nobody": 0} {
		all, err := l.Invoices(t.Context(), Month{2026, 2}, standard, name)
		if err != nil || len(all.Accounts) != want || want > 0 && all.Accounts[0].Account != name {
			t.Errorf("the bills of %s are %+v, %v", name, all, err)
		}
	}
}

func wantInvoices(t testing.TB, l *Ledger, month string, tariff Tariff, want ...string) {
	t.Helper()
	if diff := cmp.Diff(strings.Join(want, "\n"), invoices(t, l, month, tariff)); diff != "" {
		t.Errorf("the invoices of %s (-want +got):\n%s", month, diff)
	}
}

func TestAnAccountIsBilledForMonthsAtWhoseEndItExistedOrThatItUsed(t *testing.T) {
	t.Parallel()
	c := clockAt("2026-01-15 12:00:00")
	l := newTestLedger(t, Options{Now: c.Now})
	mustAdd(t, l, Account{Name: "acme", Mode: Backup, Domains: []string{"acme.example", "a.example"}})
	mustAdd(t, l, Account{Name: "idle", Mode: Backup, Domains: []string{"idle.example"}})
	c.set("2026-02-10 12:00:00")
	mustAdd(t, l, Account{Name: "late", Mode: Backup, Domains: []string{"late.example"}})
	count(t, l, "acme", c.now, 3, 10)
	c.set("2026-03-05 12:00:00")
	for _, name := range []string{"acme", "idle"} {
		if err := l.DeleteAccount(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.CloseMonth(t.Context(), Month{2025, 12}, standard); !errors.Is(err, ErrInvalid) {
		t.Errorf("closing a month before the first account: %v, want ErrInvalid", err)
	}
	const none = " messages 0 bytes 1 tiers [] 10.00+0.00=10.00 USD"
	wantInvoices(t, l, "2025-12", standard)
	wantInvoices(t, l, "2026-01", standard,
		"acme [a.example acme.example] 0"+none+" deleted", "idle [idle.example] 0"+none+" deleted")
	wantInvoices(t, l, "2026-02", standard,
		"acme [a.example acme.example] 3 messages 30 bytes 1 tiers [] 10.00+0.00=10.00 USD deleted",
		"idle [idle.example] 0"+none+" deleted", "late [late.example] 0"+none)
	wantInvoices(t, l, "2026-03", standard, "late [late.example] 0"+none)
}

func TestOwnLimitsAndPricesOverrideTheDefaults(t *testing.T) {
	t.Parallel()
	c := clockAt("2026-02-10 12:00:00")
	l := newTestLedger(t, Options{Now: c.Now})
	mustAdd(t, l, Account{Name: "acme", Mode: Backup, Terms: Terms{Messages: 2, TierPrice: Price{true, 250}}})
	mustAdd(t, l, Account{Name: "free", Mode: Backup, Terms: Terms{Bytes: 100, BasePrice: Price{Set: true}, TierPrice: Price{Set: true}}})
	mustAdd(t, l, Account{Name: "rest", Mode: Backup})
	for _, name := range []string{"acme", "free", "rest"} {
		count(t, l, name, c.now, 5, 50)
	}
	wantInvoices(t, l, "2026-02", standard,
		"acme [] 5 messages 250 bytes 3 tiers [messages] 10.00+5.00=15.00 USD",
		"free [] 5 messages 250 bytes 3 tiers [bytes] 0.00+0.00=0.00 USD",
		"rest [] 5 messages 250 bytes 1 tiers [] 10.00+0.00=10.00 USD")
}

func TestAClosedMonthStaysAsItWas(t *testing.T) {
	t.Parallel()
	c := clockAt("2026-02-10 12:00:00")
	l := newTestLedger(t, Options{Now: c.Now, Actor: "operator"})
	mustAdd(t, l, Account{Name: "acme", Mode: Backup, Domains: []string{"acme.example"}, Terms: Terms{Messages: 2}})
	mustAdd(t, l, Account{Name: "gone", Mode: Backup, Domains: []string{"gone.example"}})
	count(t, l, "acme", c.now, 5, 50)
	if err := l.AdjustUsage(t.Context(), "acme", Month{2026, 2}, Usage{-1, 0}, "counted twice"); err != nil {
		t.Fatal(err)
	}
	february := Month{2026, 2}
	for _, early := range []string{"2026-02-28 23:59:59", "2026-03-01 00:01:59"} {
		c.set(early)
		if err := l.CloseMonth(t.Context(), february, standard); !errors.Is(err, ErrMonthOpen) {
			t.Errorf("closing at %s: %v, want ErrMonthOpen", early, err)
		}
	}
	c.set("2026-03-01 00:02:00")
	before := invoices(t, l, "2026-02", standard)
	if err := l.CloseMonth(t.Context(), february, standard); err != nil {
		t.Fatal(err)
	}
	closed := "closed by operator\n" + before

	dear := Tariff{Messages: 1, Bytes: 1, BasePrice: 99, TierPrice: 99, Currency: "EUR"}
	mustAdd(t, l, Account{Name: "new", Mode: Backup})
	count(t, l, "acme", noon.Add(time.Hour), 100, 1)
	if err := l.DeleteAccount(t.Context(), "gone"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.EditAccount(t.Context(), "acme", "account set", func(a *Account) error {
		a.Messages, a.BasePrice = 1, Price{true, 1}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := l.RemoveDomain(t.Context(), "acme", "acme.example"); err != nil {
		t.Fatal(err)
	}
	if got := invoices(t, l, "2026-02", dear); got != closed {
		t.Errorf("the closed month is now\n%s\nand was\n%s", got, closed)
	}
	if err := l.CloseMonth(t.Context(), february, dear); !errors.Is(err, ErrMonthClosed) {
		t.Errorf("closing again: %v, want ErrMonthClosed", err)
	}
	if err := l.AdjustUsage(t.Context(), "acme", february, Usage{-1, 0}, "late"); !errors.Is(err, ErrMonthClosed) {
		t.Errorf("adjusting a closed month: %v, want ErrMonthClosed", err)
	}
	for _, change := range []string{"UPDATE invoice SET messages = 0", "DELETE FROM invoice"} {
		if err := l.batch(t.Context(), statement{sql: change}); err == nil {
			t.Errorf("%s succeeded", change)
		}
	}
	if got := invoices(t, l, "2026-02", dear); got != closed {
		t.Errorf("the closed month is now\n%s", got)
	}
}

func TestABoundedBillKeepsItsBound(t *testing.T) {
	t.Parallel()
	c := clockAt("2026-02-10 12:00:00")
	l := newTestLedger(t, Options{Now: c.Now, Actor: "operator"})
	mustAdd(t, l, Account{Name: "deferred", Mode: Backup, Terms: Terms{Bytes: 100}})
	mustAdd(t, l, Account{Name: "own", Mode: Backup, Terms: Terms{Bytes: 100, OnLimit: Bill, MaxTiers: 2}})
	mustAdd(t, l, Account{Name: "was-billed", Mode: Backup, Terms: Terms{Bytes: 100, OnLimit: Reject}})
	for _, name := range []string{"deferred", "own", "was-billed"} {
		count(t, l, name, c.now, 9, 10)
	}
	count(t, l, "own", c.now.Add(time.Minute), 10, 10)
	count(t, l, "was-billed", c.now.Add(time.Minute), 5, 70) // under another setting
	for _, name := range []string{"deferred", "own", "was-billed"} {
		count(t, l, name, c.now.Add(24*time.Hour), 1, 70)
	}
	defers := standard
	defers.OnLimit = Defer
	want := []string{
		"deferred [] 10 messages 160 bytes 1 tiers [] 10.00+0.00=10.00 USD",
		"own [] 20 messages 260 bytes 2 tiers [bytes] 10.00+10.00=20.00 USD",
		"was-billed [] 15 messages 510 bytes 6 tiers [bytes] 10.00+50.00=60.00 USD"}
	wantInvoices(t, l, "2026-02", defers, want...)
	c.set("2026-03-02 00:00:00")
	february := Month{2026, 2}
	if err := l.AdjustUsage(t.Context(), "deferred", february, Usage{0, +9}, "below the limit without the last one"); err != nil {
		t.Fatal(err)
	}
	want[0] = "deferred [] 10 messages 169 bytes 1 tiers [] 10.00+0.00=10.00 USD"
	wantInvoices(t, l, "2026-02", defers, want...)
	if err := l.AdjustUsage(t.Context(), "deferred", february, Usage{0, +1}, "full without it"); err != nil {
		t.Fatal(err)
	}
	want[0] = "deferred [] 10 messages 170 bytes 2 tiers [bytes] 10.00+10.00=20.00 USD"
	wantInvoices(t, l, "2026-02", defers, want...)
	if err := l.CloseMonth(t.Context(), february, defers); err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.EditAccount(t.Context(), "own", "account set", func(a *Account) error { a.MaxTiers = 0; return nil }); err != nil {
		t.Fatal(err)
	}
	wantInvoices(t, l, "2026-02", standard, append([]string{"closed by operator"}, want...)...)
}

func TestWhatIsLateForAClosedMonthIsBilledInTheNext(t *testing.T) {
	t.Parallel()
	newYork, err := time.LoadLocation("America/New_York")
	if err != nil {
		t.Fatal(err)
	}
	c := clockAt("2026-01-10 12:00:00")
	utc := newTestLedger(t, Options{Now: c.Now})
	mustAdd(t, utc, Account{Name: "acme", Mode: Backup})
	record := func(l *Ledger, at string) {
		t.Helper()
		c.set(at)
		r := NewRecorder(l, nil)
		defer r.Close()
		m := Message{Instance: at, Size: 10, At: c.now, Accounts: []*Account{mustLoad(t, l).Account("acme")}}
		if err := r.Record(m, nil); err != nil {
			t.Fatal(err)
		}
	}
	record(utc, "2026-01-31 12:00:00")
	c.set("2026-03-01 00:02:00")
	for _, m := range []Month{{2026, 1}, {2026, 2}} {
		if err := utc.CloseMonth(t.Context(), m, standard); err != nil {
			t.Fatal(err)
		}
	}
	moved, err := Open(t.Context(), utc.path, Options{Now: c.Now, Location: newYork})
	if err != nil {
		t.Fatal(err)
	}
	defer moved.Close()
	record(moved, "2026-03-01 03:00:00") // 28 February there
	record(moved, "2026-01-20 12:00:00") // by a clock that was set back
	record(moved, "2025-12-31 12:00:00") // of a month that is open
	c.set("2026-03-02 12:00:00")
	for month, want := range map[string]int64{"2025-12": 1, "2026-01": 1, "2026-02": 0, "2026-03": 2} {
		m, err := ParseMonth(month)
		if err != nil {
			t.Fatal(err)
		}
		all, err := moved.Invoices(t.Context(), m, standard)
		if err != nil || all.Accounts[0].Usage() != (Usage{want, 10 * want}) {
			t.Errorf("%s is billed %+v, %v; want %d messages", month, all.Accounts, err, want)
		}
		n := int64(0)
		for _, err := range moved.Evidence(t.Context(), all.Accounts[0].ID, m) {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		if n != want {
			t.Errorf("%s has %d pieces of evidence, want %d", month, n, want)
		}
	}
	days, err := moved.DailyUsage(t.Context(), mustLoad(t, moved).Account("acme").ID, Month{2026, 3})
	if err != nil || len(days) != 1 || days[0].Day != "2026-03-01" {
		t.Errorf("the days are %+v, %v", days, err)
	}
}

func TestAdjustmentsCountAtOnceAndAreInTheHistory(t *testing.T) {
	t.Parallel()
	c := clockAt("2026-02-10 12:00:00")
	l := newTestLedger(t, Options{Now: c.Now, Actor: "operator"})
	mustAdd(t, l, Account{Name: "acme", Mode: Backup})
	count(t, l, "acme", c.now, 5, 100)
	if err := l.AdjustUsage(t.Context(), "acme", Month{2026, 2}, Usage{-2, +50}, "a loop on our side"); err != nil {
		t.Fatal(err)
	}
	if got, want := usageOf(t, l, mustLoad(t, l).Account("acme"), "2026-02"), (Usage{3, 550}); got != want {
		t.Errorf("the usage is %+v, want %+v", got, want)
	}
	wantInvoices(t, l, "2026-02", standard, "acme [] 3 messages 550 bytes 1 tiers [] 10.00+0.00=10.00 USD")
	history, err := l.History(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	if last := history[len(history)-1]; last.Who != "operator" || last.Action != "usage adjust 2026-02 by -2 messages, +50 octets: a loop on our side" {
		t.Errorf("the history says %+v", last)
	}
	if faults, err := l.Check(t.Context()); err != nil || len(faults) > 0 {
		t.Errorf("Check = %q, %v", faults, err)
	}
	if err := l.DeleteAccount(t.Context(), "acme"); err != nil {
		t.Fatal(err)
	}
	if err := l.AdjustUsage(t.Context(), "acme", Month{2026, 2}, Usage{-3, 0}, "it left in anger"); err != nil {
		t.Errorf("a deleted account cannot be adjusted: %v", err)
	}
}

func TestBadAdjustmentsAreRefused(t *testing.T) {
	t.Parallel()
	c := clockAt("2026-02-10 12:00:00")
	l := newTestLedger(t, Options{Now: c.Now})
	mustAdd(t, l, Account{Name: "acme", Mode: Backup})
	count(t, l, "acme", c.now, 5, 100)
	for _, test := range []struct {
		name   string
		month  Month
		by     Usage
		reason string
		want   error
	}{
		{"nobody", Month{2026, 2}, Usage{1, 1}, "why not", ErrNoAccount},
		{"nobody", Month{2026, 2}, Usage{-1, -1}, "why not", ErrNoAccount},
		{"acme", Month{2026, 3}, Usage{1, 1}, "the future", ErrInvalid},
		{"acme", Month{2026, 1}, Usage{1, 1}, "before it was added", ErrInvalid},
		{"acme", Month{2026, 2}, Usage{}, "nothing", ErrInvalid},
		{"acme", Month{2026, 2}, Usage{-6, 0}, "more than there is", ErrInvalid},
		{"acme", Month{2026, 2}, Usage{0, -501}, "more than there is", ErrInvalid},
		{"acme", Month{2026, 2}, Usage{1e15 + 1, 0}, "absurd", ErrInvalid},
		{"acme", Month{2026, 2}, Usage{0, -1 << 63}, "absurd", ErrInvalid},
		{"acme", Month{2026, 2}, Usage{1, 0}, " ", ErrInvalid},
		{"acme", Month{2026, 2}, Usage{1, 0}, "two\nlines", ErrInvalid},
		{"acme", Month{2026, 2}, Usage{1, 0}, strings.Repeat("x", 501), ErrInvalid},
	} {
		if err := l.AdjustUsage(t.Context(), test.name, test.month, test.by, test.reason); !errors.Is(err, test.want) {
			t.Errorf("adjusting %s %s by %+v for %q: %v, want %v", test.name, test.month, test.by, test.reason, err, test.want)
		}
	}
	if got, want := usageOf(t, l, mustLoad(t, l).Account("acme"), "2026-02"), (Usage{5, 500}); got != want {
		t.Errorf("the usage is %+v, want %+v", got, want)
	}
}

// TestSimulatedMonths lets a year pass in several time zones, among them one without a midnight on the
// day that its clocks change, and finds every message in exactly one month, that of its local time.
func TestSimulatedMonths(t *testing.T) {
	t.Parallel()
	for _, zone := range []string{"UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Asuncion", "Pacific/Apia"} {
		t.Run(zone, func(t *testing.T) {
			t.Parallel()
			loc, err := time.LoadLocation(zone)
			if err != nil {
				t.Fatal(err)
			}
			l := newTestLedger(t, Options{Location: loc, Now: func() time.Time { return time.Date(2011, 1, 1, 0, 0, 0, 0, time.UTC) }})
			mustAdd(t, l, Account{Name: "acme", Mode: Backup})
			want := map[string]int64{}
			total := 0
			// Two leap days, and Apia's 30 December 2011, which it skipped.
			for at := time.Date(2011, 12, 20, 0, 0, 0, 0, loc); at.Year() < 2013; at = at.Add(17*time.Hour + 59*time.Minute + 59*time.Second) {
				count(t, l, "acme", at, 1, 7)
				want[at.In(loc).Format("2006-01")]++
				total++
			}
			acme, sum := mustLoad(t, l).Account("acme"), int64(0)
			for month := (Month{2011, 11}); month.Year < 2014; month = month.Next() {
				got := usageOf(t, l, acme, month.String())
				if got.Messages != want[month.String()] || got.Bytes != 7*got.Messages {
					t.Errorf("%s has %+v, want %d messages", month, got, want[month.String()])
				}
				n := int64(0)
				for m, err := range l.Evidence(t.Context(), acme.ID, month) {
					if err != nil {
						t.Fatal(err)
					}
					if MonthOf(m.At, loc) != month {
						t.Errorf("the evidence of %s has a message of %s", month, m.At.In(loc))
					}
					n++
				}
				if n != got.Messages {
					t.Errorf("%s has %d pieces of evidence for %d messages", month, n, got.Messages)
				}
				sum += got.Messages
			}
			if sum != int64(total) {
				t.Errorf("%d messages were counted, the months have %d", total, sum)
			}
		})
	}
}

func TestEveryMomentIsInTheMonthThatItsStartAndTheNextsEnclose(t *testing.T) {
	t.Parallel()
	var zones []*time.Location
	for _, name := range []string{"UTC", "Europe/Berlin", "America/Asuncion", "Asia/Amman", "Africa/Cairo", "Pacific/Apia", "Asia/Kathmandu", "America/St_Johns"} {
		loc, err := time.LoadLocation(name)
		if err != nil {
			t.Fatal(err)
		}
		zones = append(zones, loc)
	}
	rapid.Check(t, func(t *rapid.T) {
		loc := rapid.SampledFrom(zones).Draw(t, "zone")
		at := time.Unix(rapid.Int64Range(0, 2_500_000_000).Draw(t, "at"), 0)
		m := MonthOf(at, loc)
		if start, end := m.Start(loc), m.Next().Start(loc); at.Before(start) || !at.Before(end) {
			t.Fatalf("%s is in %s, which goes from %s to %s", at.In(loc), m, start, end)
		}
		if start := m.Start(loc); MonthOf(start, loc) != m || MonthOf(start.Add(-time.Second), loc) == m {
			t.Fatalf("%s does not begin at %s in %s", m, start, loc)
		}
		if m.Next().Previous() != m {
			t.Fatalf("before the month after %s is %s", m, m.Next().Previous())
		}
		if !m.Before(m.Next()) || m.Next().Before(m) || m.Before(m) {
			t.Fatalf("%s and %s are out of order", m, m.Next())
		}
	})
}

func TestBillsNeverOverflow(t *testing.T) {
	t.Parallel()
	i := Invoice{Counted: Usage{1e15, 1e15}, Tariff: Tariff{Messages: 1, Bytes: 1, BasePrice: 99999999999999, TierPrice: 99999999999999}}
	if i.Total() < i.Tariff.BasePrice || i.Additional() < 0 {
		t.Errorf("the total is %s", i.Total())
	}
	rapid.Check(t, func(t *rapid.T) {
		u := Usage{rapid.Int64Range(0, 1e15).Draw(t, "messages"), rapid.Int64Range(0, 1e15).Draw(t, "bytes")}
		i := Invoice{Counted: u, Tariff: standard}
		if want := 1000 * Cents(i.Tiers()); i.Total() != want || i.Tariff.BasePrice+i.Additional() != want {
			t.Fatalf("%+v costs %s, want %s", u, i.Total(), want)
		}
		switch m, b := begun(u.Messages, standard.Messages), begun(u.Bytes, standard.Bytes); i.Decided() {
		case "":
			if i.Tiers() != 1 {
				t.Fatalf("%+v is in tier %d, and no limit decided that", u, i.Tiers())
			}
		case "messages":
			if m <= b {
				t.Fatalf("%+v: messages decided", u)
			}
		case "bytes":
			if b <= m {
				t.Fatalf("%+v: bytes decided", u)
			}
		case "both":
			if m != b {
				t.Fatalf("%+v: both decided", u)
			}
		}
	})
}
