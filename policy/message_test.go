package policy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"mailbag/meter"
)

// A step is one request about a message, and how its answer begins.
type step struct {
	state, recipient string
	count            int // recipient_count
	action           string
}

func TestMessageIsCountedForItsAccounts(t *testing.T) {
	t.Parallel()
	now := started.Add(30 * time.Second)
	for _, test := range []struct {
		name         string
		began        time.Time
		steps        []step
		counted      []string // accounts, each with one message of 1,000 octets
		unattributed bool
		log          string // what is logged
	}{
		{"two accounts, three recipients each, one of another", now, []step{
			{"RCPT", "a@acme.example", 0, "DUNNO"},
			{"RCPT", "b@acme.example", 0, "DUNNO"},
			{"RCPT", "a@box.example", 0, "DUNNO"},
			{"RCPT", "x@other.example", 0, "DUNNO"},
			{"RCPT", "b@box.example", 0, "DUNNO"},
			{"RCPT", "nobody@listed.example", 0, "REJECT 5.1.1"},
			{"RCPT", "c@acme.example", 0, "DUNNO"},
			{"RCPT", "c@box.example", 0, "DUNNO"},
			{"END-OF-MESSAGE", "", 7, "DUNNO"},
		}, []string{"acme", "box"}, false, ""},
		{"Postfix asks twice", now, []step{
			{"RCPT", "a@acme.example", 0, "DUNNO"},
			{"END-OF-MESSAGE", "a@acme.example", 1, "DUNNO"},
			{"END-OF-MESSAGE", "a@acme.example", 1, "DUNNO"},
		}, []string{"acme"}, false, ""},
		{"to verify", now, []step{
			{"RCPT", "a@spare.example", 0, "reject_unverified_recipient"},
			{"END-OF-MESSAGE", "a@spare.example", 1, "DUNNO"},
		}, []string{"spare"}, false, ""},
		{"verified in VRFY alone", now, []step{
			{"VRFY", "a@acme.example", 0, "DUNNO"},
			{"END-OF-MESSAGE", "x@other.example", 1, "DUNNO"},
		}, nil, false, ""},
		{"aborted", now, []step{
			{"RCPT", "a@acme.example", 0, "DUNNO"},
		}, nil, false, ""},
		{"none of ours", now, []step{
			{"RCPT", "x@other.example", 0, "DUNNO"},
			{"END-OF-MESSAGE", "x@other.example", 1, "DUNNO"},
		}, nil, false, ""},
		{"all but one refused by a later restriction", now, []step{
			{"RCPT", "a@acme.example", 0, "DUNNO"},
			{"RCPT", "a@box.example", 0, "DUNNO"},
			{"END-OF-MESSAGE", "A@BOX.example", 1, "DUNNO"},
		}, []string{"box"}, false, ""},
		{"the one that is left is not ours", now, []step{
			{"RCPT", "a@acme.example", 0, "DUNNO"},
			{"RCPT", "x@other.example", 0, "DUNNO"},
			{"END-OF-MESSAGE", "x@other.example", 1, "DUNNO"},
		}, nil, false, ""},
		{"one refused later, surely not all of an account's", now, []step{
			{"RCPT", "a@acme.example", 0, "DUNNO"},
			{"RCPT", "b@acme.example", 0, "DUNNO"},
			{"RCPT", "a@box.example", 0, "DUNNO"},
			{"RCPT", "b@box.example", 0, "DUNNO"},
			{"END-OF-MESSAGE", "", 3, "DUNNO"},
		}, []string{"acme", "box"}, false, ""},
		{"one refused later, perhaps an account's only one", now, []step{
			{"RCPT", "a@acme.example", 0, "DUNNO"},
			{"RCPT", "b@acme.example", 0, "DUNNO"},
			{"RCPT", "a@box.example", 0, "DUNNO"},
			{"END-OF-MESSAGE", "", 2, "DUNNO"},
		}, []string{"acme", "box"}, false, "a restriction after mailbag's"},
		{"the customer's server refused the only one", now, []step{
			{"RCPT", "a@acme.example", 0, "DUNNO"},
			{"RCPT", "x@other.example", 0, "DUNNO"},
			{"RCPT", "unknown@spare.example", 0, "reject_unverified_recipient"},
			{"END-OF-MESSAGE", "", 2, "DUNNO"},
		}, []string{"acme"}, false, ""},
		{"the customer's server refused one of two", now, []step{
			{"RCPT", "a@acme.example", 0, "DUNNO"},
			{"RCPT", "unknown@spare.example", 0, "reject_unverified_recipient"},
			{"RCPT", "known@spare.example", 0, "reject_unverified_recipient"},
			{"END-OF-MESSAGE", "", 2, "DUNNO"},
		}, []string{"acme", "spare"}, false, ""},
		{"two accounts to verify are asked to come apart", now, []step{
			{"RCPT", "a@spare.example", 0, "reject_unverified_recipient"},
			{"RCPT", "b@spare.example", 0, "reject_unverified_recipient"},
			{"RCPT", "a@reserve.example", 0, "452 4.5.3"},
			{"END-OF-MESSAGE", "", 2, "DUNNO"},
		}, []string{"spare"}, false, ""},
		{"the recipient that is left was never asked about", now, []step{
			{"RCPT", "a@acme.example", 0, "DUNNO"},
			{"END-OF-MESSAGE", "a@box.example", 1, "DUNNO"},
		}, nil, true, "a message was not counted"},
		{"sent in again by a content filter", now, []step{
			{"END-OF-MESSAGE", "a@acme.example", 1, "DUNNO"},
		}, nil, true, "a message was not counted"},
		{"sent in again, several recipients", now, []step{
			{"END-OF-MESSAGE", "", 2, "DUNNO"},
		}, nil, false, ""},
		{"restarted, one recipient", started.Add(-time.Second), []step{
			{"END-OF-MESSAGE", "a@acme.example", 1, "DUNNO"},
			{"END-OF-MESSAGE", "a@acme.example", 1, "DUNNO"},
		}, []string{"acme"}, false, ""},
		{"restarted, one recipient of another", started.Add(-time.Second), []step{
			{"END-OF-MESSAGE", "x@other.example", 1, "DUNNO"},
		}, nil, false, ""},
		{"restarted, several recipients", started.Add(-time.Second), []step{
			{"END-OF-MESSAGE", "", 2, "DEFER 4.3.0"},
		}, nil, false, ""},
		{"restarted between two RCPT", started.Add(-time.Second), []step{
			{"RCPT", "a@acme.example", 0, "DUNNO"},
			{"END-OF-MESSAGE", "", 2, "DEFER 4.3.0"},
		}, nil, false, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := openDesk(t, customers(), nil)
			for i, s := range test.steps {
				got := d.answer(t, "protocol_state="+s.state, "recipient="+s.recipient, fmt.Sprintf("recipient_count=%d", s.count),
					"instance="+instance(test.began, 1), "queue_id=QUEUE", "size=1000", "client_address=203.0.113.9")
				if !strings.HasPrefix(got, s.action) {
					t.Errorf("step %d is answered %q, want %q", i+1, got, s.action)
				}
			}
			want := map[string]meter.Usage{}
			for _, name := range test.counted {
				want[name] = meter.Usage{Messages: 1, Bytes: 1000}
			}
			for a := range d.follower.Directory().Accounts() {
				if got := d.used(t, a.Name); got != want[a.Name] {
					t.Errorf("%s used %+v, want %+v", a.Name, got, want[a.Name])
				}
			}
			if got := metric(t, d, "mailbag_policy_unattributed_messages_total"); (got == 1) != test.unattributed {
				t.Errorf("unattributed: %v", got)
			}
			if got := d.log.String(); strings.Contains(got, "level=WARN") != (test.log != "") || !strings.Contains(got, test.log) {
				t.Errorf("log %q, want %q", got, test.log)
			}
		})
	}
}

// metric returns the sum of a metric over its labels.
func metric(t testing.TB, d *desk, name string) (sum float64) {
	t.Helper()
	families, err := d.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

func TestMessageIsDeferredWhileTheLedgerIsUnavailable(t *testing.T) {
	t.Parallel()
	d := openDesk(t, customers(), nil)
	attributes := []string{"instance=" + instance(started.Add(time.Second), 1), "queue_id=Q", "size=5", "recipient=a@acme.example"}
	ask := func(state string, more ...string) string {
		return d.answer(t, append(append([]string{"protocol_state=" + state}, attributes...), more...)...)
	}
	if got := ask("RCPT"); got != "DUNNO" {
		t.Fatal(got)
	}
	d.faults.unavailable.Store(true)
	if got := ask("END-OF-MESSAGE", "recipient_count=1"); !strings.HasPrefix(got, "DEFER 4.3.0 ") {
		t.Errorf("answered %q", got)
	}
	if !strings.Contains(d.log.String(), "cannot be recorded") {
		t.Errorf("log %q", d.log)
	}
	d.faults.unavailable.Store(false)
	if got := ask("END-OF-MESSAGE", "recipient_count=1"); got != "DUNNO" {
		t.Errorf("answered %q", got)
	}
	if got := d.used(t, "acme"); got.Messages != 1 {
		t.Errorf("used %+v", got)
	}
}

func TestUnknownMessageIsDeferredWhileTheLedgerIsUnavailable(t *testing.T) {
	t.Parallel()
	d := openDesk(t, customers(), nil)
	d.faults.unavailable.Store(true)
	for recipient, want := range map[string]string{"a@acme.example": "DEFER 4.3.0 ", "x@other.example": "DUNNO"} {
		got := d.answer(t, "protocol_state=END-OF-MESSAGE", "recipient="+recipient, "recipient_count=1", "size=1",
			"instance="+instance(started.Add(-time.Second), 1))
		if !strings.HasPrefix(got, want) {
			t.Errorf("%s is answered %q", recipient, got)
		}
	}
}

func TestDeletedAccountIsBilledForWhatItTook(t *testing.T) {
	t.Parallel()
	d := openDesk(t, customers(), nil)
	id := d.follower.Directory().Account("box").ID
	about := []string{"instance=" + instance(started.Add(time.Second), 1), "size=7", "recipient=a@box.example"}
	d.answer(t, append(about, "protocol_state=RCPT")...)
	d.answer(t, "instance="+instance(started.Add(time.Second), 1), "protocol_state=RCPT", "recipient=a@acme.example")
	if err := d.ledger.DeleteAccount(t.Context(), "box"); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the account's end", func() bool { return d.follower.Directory().Account("box") == nil })
	got := d.answer(t, "instance="+instance(started.Add(time.Second), 1), "size=7", "recipient_count=2", "protocol_state=END-OF-MESSAGE")
	if got != "DUNNO" {
		t.Errorf("answered %q", got)
	}
	used, err := d.ledger.Usage(t.Context(), id, meter.MonthOf(started, time.UTC))
	if err != nil || used.Messages != 1 {
		t.Errorf("used %+v, %v", used, err)
	}
}

func TestMessageCountsForWhomItWasAcceptedAlthoughTheDomainIsGone(t *testing.T) {
	t.Parallel()
	d := openDesk(t, customers(), nil)
	about := []string{"instance=" + instance(started.Add(time.Second), 1), "size=7", "recipient=a@acme.example", "recipient_count=1"}
	if got := d.answer(t, append(about, "protocol_state=RCPT")...); got != "DUNNO" {
		t.Fatalf("RCPT is answered %q", got)
	}
	if err := d.ledger.RemoveDomain(t.Context(), "acme", "acme.example"); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the domain is gone", func() bool { return d.follower.Directory().Domain("acme.example") == nil })
	if got := d.answer(t, append(about, "protocol_state=END-OF-MESSAGE")...); got != "DUNNO" {
		t.Errorf("END-OF-MESSAGE is answered %q", got)
	}
	if got := d.used(t, "acme"); got.Messages != 1 {
		t.Errorf("used %+v", got)
	}
}
