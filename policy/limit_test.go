package policy

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"mailbag/meter"
)

// ended is what the tap says at the end of a message of so many octets: "c" where it is accepted.
func (d *desk) ended(t testing.TB, sequence int, size int64, recipients ...string) (answer string) {
	t.Helper()
	tap := newTap(d.Policy)
	tap.connect("203.0.113.9")
	tap.mail("<sender@client.example>")
	for _, r := range recipients {
		tap.rcpt("<"+r+">", r)
	}
	tap.body(make([]byte, size-2))
	_, refused, err := d.record(tap.arrived(fmt.Sprint("Q", sequence)), func() error {
		answer = "c"
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if refused != dunno {
		answer = refused.action
	}
	return answer
}

func (d *desk) mayCome(t testing.TB, recipient string) string {
	t.Helper()
	return d.answer(t, "protocol_state=RCPT", "recipient="+recipient)
}

// TestMessagesThatComeTogetherDoNotPassALimitTogether has many senders past RCPT, all of them below the limit,
// before the first of them ends its message.
func TestMessagesThatComeTogetherDoNotPassALimitTogether(t *testing.T) {
	t.Parallel()
	const senders = 60
	for _, test := range []struct {
		name    string
		set     func(*meter.Account)
		size    int64
		let     int64
		refused string
	}{
		{"defer", func(a *meter.Account) { a.OnLimit, a.Messages = meter.Defer, 3 }, 10, 3, "452 4.2.2 "},
		{"reject", func(a *meter.Account) { a.OnLimit, a.Messages = meter.Reject, 7 }, 10, 7, "552 5.2.2 "},
		{"the message that crosses the size passes", func(a *meter.Account) { a.OnLimit, a.Bytes = meter.Defer, 95 }, 10, 10, "452 4.2.2 "},
		{"tiers", func(a *meter.Account) { a.OnLimit, a.Messages, a.MaxTiers = meter.Bill, 5, 4 }, 10, 20, "452 4.2.2 "},
		{"billed", func(a *meter.Account) { a.OnLimit, a.Messages = meter.Bill, 3 }, 10, senders, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			a := account("acme", meter.ATRN, "acme.example")
			test.set(&a)
			d := openDesk(t, []meter.Account{a}, nil)
			if got := d.mayCome(t, "a@acme.example"); got != "DUNNO" {
				t.Fatalf("RCPT is answered %q", got)
			}
			var group sync.WaitGroup
			answers := make([]string, senders)
			for i := range senders {
				group.Go(func() { answers[i] = d.ended(t, i, test.size, "a@acme.example") })
			}
			group.Wait()
			let := int64(0)
			for _, answer := range answers {
				if answer == "c" {
					let++
				} else if test.refused == "" || !strings.HasPrefix(answer, test.refused) {
					t.Errorf("a message is answered %q, want %q", answer, test.refused)
				}
			}
			if used := d.used(t, "acme"); let != test.let || used.Messages != let || used.Bytes != let*test.size {
				t.Errorf("%d messages were let in and %+v counted, want %d", let, used, test.let)
			}
			want := test.refused
			if want == "" {
				want = "DUNNO"
			}
			if got := d.mayCome(t, "a@acme.example"); !strings.HasPrefix(got, want) {
				t.Errorf("the next message is answered %q, want %q", got, want)
			}
		})
	}
}

// What is for others too must not be lost to them: its sender comes again, and hears about each recipient.
func TestMessageIsRefusedForGoodOnlyWhereThatIsTrueForAll(t *testing.T) {
	t.Parallel()
	full := account("full", meter.ATRN, "full.example")
	full.OnLimit, full.Messages = meter.Reject, 1
	shut := full
	shut.Name, shut.Domains = "shut", []string{"shut.example"}
	late := account("late", meter.ATRN, "late.example")
	late.OnLimit, late.Messages = meter.Defer, 1
	d := openDesk(t, []meter.Account{full, shut, late, account("acme", meter.ATRN, "acme.example")}, nil)
	for i, domain := range []string{"full", "shut", "late"} {
		if got := d.ended(t, i, 10, "a@"+domain+".example"); got != "c" {
			t.Fatalf("the first message for %s is answered %q", domain, got)
		}
	}
	for i, test := range []struct {
		recipients []string
		want       string
	}{
		{[]string{"a@full.example"}, "552 5.2.2 "},
		{[]string{"a@full.example", "b@full.example", "a@shut.example"}, "552 5.2.2 "},
		{[]string{"a@late.example"}, "452 4.2.2 "},
		{[]string{"a@full.example", "a@late.example"}, "452 4.2.2 "},
		{[]string{"a@full.example", "a@acme.example"}, "452 4.2.2 "},
		{[]string{"a@full.example", "x@elsewhere.example"}, "452 4.2.2 "},
	} {
		if got := d.ended(t, 10+i, 10, test.recipients...); !strings.HasPrefix(got, test.want) {
			t.Errorf("a message for %v is answered %q, want %q", test.recipients, got, test.want)
		}
	}
	if used := d.used(t, "acme"); used.Messages != 0 {
		t.Errorf("acme is billed for a message that was not accepted: %+v", used)
	}
}

func TestWhatCannotBeRecordedTakesNoPlaceBelowTheLimit(t *testing.T) {
	t.Parallel()
	a := account("acme", meter.ATRN, "acme.example")
	a.OnLimit, a.Messages = meter.Defer, 1
	d := openDesk(t, []meter.Account{a}, nil)
	d.faults.unavailable.Store(true)
	if got := d.ended(t, 0, 10, "a@acme.example"); !strings.HasPrefix(got, "451 4.3.0 ") {
		t.Errorf("without a ledger it is answered %q", got)
	}
	d.faults.unavailable.Store(false)
	if got := d.ended(t, 1, 10, "a@acme.example"); got != "c" {
		t.Errorf("the message below the limit is answered %q", got)
	}
}

// Of a plan that is changed while mail comes, the new limit is in force for all its accounts that have none of their own.
func TestALimitFollowsItsPlan(t *testing.T) {
	t.Parallel()
	d := openDesk(t, []meter.Account{account("acme", meter.ATRN, "acme.example"), account("bolt", meter.ATRN, "bolt.example")}, nil)
	if err := d.ledger.AddPlan(t.Context(), meter.Plan{Name: "gold", Terms: meter.Terms{Messages: 1, OnLimit: meter.Defer}}); err != nil {
		t.Fatal(err)
	}
	for name, own := range map[string]int64{"acme": 0, "bolt": 5} {
		_, _, err := d.ledger.EditAccount(t.Context(), name, "account set", func(a *meter.Account) error {
			a.Plan, a.Messages = "gold", own
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	answered := func(want string) {
		t.Helper()
		waitFor(t, "the answer "+want, func() bool { return strings.HasPrefix(d.mayCome(t, "a@acme.example"), want) })
	}
	if got := d.ended(t, 1, 10, "a@acme.example", "a@bolt.example"); got != "c" {
		t.Fatalf("the first message is answered %q", got)
	}
	answered("452 4.2.2 ")
	for _, change := range []struct {
		set  func(*meter.Terms)
		want string
	}{
		{func(t *meter.Terms) { t.OnLimit = meter.Reject }, "552 5.2.2 "},
		{func(t *meter.Terms) { t.Messages = 2 }, "DUNNO"},
	} {
		_, _, err := d.ledger.EditPlan(t.Context(), "gold", func(terms *meter.Terms) error { change.set(terms); return nil })
		if err != nil {
			t.Fatal(err)
		}
		answered(change.want)
	}
	if got := d.mayCome(t, "a@bolt.example"); got != "DUNNO" {
		t.Errorf("an account below its own limit is answered %q", got)
	}
}

// TestWhatIsNearLetsInAndRefusesNothing has another machine count what brings accounts to their limits.
func TestWhatIsNearLetsInAndRefusesNothing(t *testing.T) {
	t.Parallel()
	for on, refused := range map[meter.OnLimit]string{meter.Defer: "452 4.2.2 ", meter.Reject: "552 5.2.2 "} {
		t.Run(string(on), func(t *testing.T) {
			t.Parallel()
			a := account("acme", meter.ATRN, "acme.example")
			a.OnLimit, a.Messages = on, 1
			d := openDesk(t, []meter.Account{a}, nil)
			if got := d.ended(t, 1, 10, "a@acme.example"); got != "c" {
				t.Fatalf("below the limit: %s", got)
			}
			d.faults.behind.Store(true)
			if got := d.mayCome(t, "a@acme.example"); got != "DUNNO" {
				t.Errorf("RCPT where the usage is not near yet: %s", got)
			}
			if got := d.ended(t, 2, 10, "a@acme.example"); !strings.HasPrefix(got, refused) {
				t.Errorf("at its end: %s; want %s", got, refused)
			}
			d.faults.behind.Store(false)
			if got := d.mayCome(t, "a@acme.example"); !strings.HasPrefix(got, refused) {
				t.Errorf("RCPT where it is: %s; want %s", got, refused)
			}
		})
	}
}
