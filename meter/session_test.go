package meter

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestPopSessionsAreListedNewestFirst(t *testing.T) {
	t.Parallel()
	l, _ := twoAccounts(t, Options{})
	first := PopSession{Account: "acme", Client: "192.0.2.1", TLS: "TLS 1.3", Began: noon, Ended: noon.Add(time.Second),
		Fetched: 3, Bytes: 4000, Deleted: 2, Outcome: "done"}
	second := PopSession{Account: "globex", Mailbox: "a@globex.example", Client: "2001:db8::1", Began: noon.Add(time.Minute),
		Ended: noon.Add(time.Hour), Outcome: "the client went away"}
	if err := l.RecordPopSessions(t.Context(), []PopSession{first, second, {Account: "nobody"}}); err != nil {
		t.Fatal(err)
	}
	check := func(account string, limit int, want ...PopSession) {
		t.Helper()
		got, err := l.PopSessions(t.Context(), account, limit)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(append([]PopSession{}, want...), got); diff != "" {
			t.Errorf("the sessions of %q (-want +got):\n%s", account, diff)
		}
	}
	check("", 10, second, first)
	check("acme", 10, first)
	check("", 1, second)
}

func TestMailGoesToTheMailboxOfItsAddress(t *testing.T) {
	t.Parallel()
	l := newTestLedger(t, Options{})
	mustAdd(t, l, Account{Name: "dent", Mode: POP3, Domains: []string{"dent.example"}, CatchAll: true})
	v := newVerifier(false)
	for _, local := range []string{"arthur", "a+b"} {
		if err := l.AddMailbox(t.Context(), "dent", Address{Local: local, Domain: "dent.example"}, v); err != nil {
			t.Fatal(err)
		}
	}
	d := mustLoad(t, l)
	for local, want := range map[string]string{
		"arthur": "arthur@dent.example", "Arthur+x+y": "arthur@dent.example", "a+b": "a+b@dent.example",
		"a+b+c": "", "+x": "", "ford": "",
	} {
		if got := d.Delivery(d.Account("dent"), Address{Local: local, Domain: "dent.example"}); got != want {
			t.Errorf("mail for %s goes to %q, want %q", local, got, want)
		}
	}
}

func TestSessionsThatFetchedNothingAreOneCountADay(t *testing.T) {
	t.Parallel()
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	c := clockAt("2026-02-12 06:00:00")
	l := newTestLedger(t, Options{Location: berlin, Now: c.Now})
	mustAdd(t, l, Account{Name: "dent", Mode: POP3, Domains: []string{"dent.example"}, CatchAll: true})
	midnight := time.Date(2026, 2, 11, 23, 0, 0, 0, time.UTC) // the 12th begins
	at := func(ago time.Duration, mailbox, client string, fetched int64) PopSession {
		began := midnight.Add(-ago)
		return PopSession{Account: "dent", Mailbox: mailbox, Client: client, Began: began, Ended: began.Add(time.Second), Fetched: fetched, Outcome: "done"}
	}
	sessions := []PopSession{
		at(-time.Hour, "", "192.0.2.9", 0), // today
		at(time.Minute, "", "192.0.2.1", 0), at(time.Hour, "", "192.0.2.2", 0), at(2*time.Hour, "", "192.0.2.3", 5), at(23*time.Hour, "", "192.0.2.4", 0),
		at(3*time.Hour, "a@dent.example", "192.0.2.5", 0),
		at(25*time.Hour, "", "192.0.2.6", 0),
	}
	if err := l.RecordPopSessions(t.Context(), sessions); err != nil {
		t.Fatal(err)
	}
	keep := Keep{Messages: time.Hour, Turns: time.Hour, Sessions: 90 * 24 * time.Hour}
	for _, want := range []Pruned{{Idle: 5}, {}} {
		if got, err := l.Prune(t.Context(), keep); err != nil || got != want {
			t.Errorf("Prune = %+v, %v; want %+v", got, err, want)
		}
	}
	day := at(23*time.Hour, "", "192.0.2.1", 0)
	day.Ended, day.Sessions = midnight.Add(-time.Minute+time.Second), 3
	mailbox, before := sessions[5], sessions[6]
	mailbox.Sessions, before.Sessions = 1, 1
	got, err := l.PopSessions(t.Context(), "", 10)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]PopSession{sessions[0], sessions[3], mailbox, day, before}, got); diff != "" {
		t.Errorf("the sessions (-want +got):\n%s", diff)
	}
	c.now = c.now.Add(90 * 24 * time.Hour)
	if got, err := l.Prune(t.Context(), keep); err != nil || got.Sessions != 5 {
		t.Errorf("Prune = %+v, %v; want all sessions gone", got, err)
	}
}
