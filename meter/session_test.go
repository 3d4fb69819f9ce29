package meter

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestPopSessionsAreListedNewestFirstAndForgotten(t *testing.T) {
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
	if err := l.ForgetPopSessions(t.Context(), noon.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	check("", 10, second)
}

func TestMailGoesToTheMailboxOfItsAddress(t *testing.T) {
	t.Parallel()
	l := newTestLedger(t, Options{})
	mustAdd(t, l, Account{Name: "dent", Mode: POP3, Domains: []string{"dent.example"}, CatchAll: true})
	v, err := NewVerifier("secret", false)
	if err != nil {
		t.Fatal(err)
	}
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
