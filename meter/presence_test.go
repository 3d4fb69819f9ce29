package meter

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// presenceOf is what the ledger knows of when an account's customer was there, in milliseconds as far as they are not now.
func presenceOf(t *testing.T, l *Ledger, account string) string {
	t.Helper()
	var fetched, called int64
	err := l.row(t.Context(), "SELECT fetched, called FROM presence WHERE account = (SELECT id FROM account WHERE name = '"+account+"')").Scan(&fetched, &called)
	switch {
	case errors.Is(err, errNoRow):
		return ""
	case err != nil:
		t.Fatal(err)
	case time.Since(time.UnixMilli(called)) < time.Hour:
		return fmt.Sprintf("fetched %d, called now", fetched)
	}
	return fmt.Sprintf("fetched %d, called %d", fetched, called)
}

func wantPresence(t *testing.T, l *Ledger, account, want string) {
	t.Helper()
	if got := presenceOf(t, l, account); got != want {
		t.Errorf("presence of %s is %q, want %q", account, got, want)
	}
}

func at(ms int64) time.Time { return time.UnixMilli(ms) }

func TestTurnsTellWhenACustomerWasThere(t *testing.T) {
	t.Parallel()
	l, d := twoAccounts(t, Options{})
	globex := d.Account("globex").ID
	for _, turn := range []struct {
		ended, messages int64
		outcome, want   string
	}{
		{1000, 0, "unreachable: connection refused", ""},
		{2000, 0, "done", "fetched 0, called 2000"},
		{3000, 4, "lost", "fetched 3000, called 2000"},
		{4000, 4, "done", "fetched 4000, called 4000"},
		{3500, 1, "done", "fetched 4000, called 4000"}, // which took long to be recorded
		{5000, 0, "lost", "fetched 4000, called 4000"},
	} {
		record := Turn{Kind: TurnATRN, Began: at(turn.ended - 1), Ended: at(turn.ended), Messages: turn.messages, Outcome: turn.outcome}
		token := fmt.Sprint(turn.ended)
		err := l.RecordTurn(t.Context(), token, globex, record)
		if turn.ended > 2000 {
			err = errors.Join(err, l.BeginTurn(t.Context(), token+"-2", globex, record), l.EndTurn(t.Context(), token+"-2", record))
		}
		if err != nil {
			t.Fatal(err)
		}
		wantPresence(t, l, "globex", turn.want)
	}
	wantPresence(t, l, "acme", "")
}

func TestSessionsTellWhenACustomerWasThere(t *testing.T) {
	t.Parallel()
	l, _ := twoAccounts(t, Options{})
	session := func(account string, ended, fetched int64, outcome string) PopSession {
		return PopSession{Account: account, Began: at(ended - 1), Ended: at(ended), Fetched: fetched, Outcome: outcome}
	}
	for _, batch := range []struct {
		sessions     []PopSession
		acme, globex string
	}{
		{[]PopSession{session("acme", 1000, 0, "lost"), session("nobody", 1000, 1, "done")}, "", ""},
		{[]PopSession{session("acme", 3000, 0, "done"), session("acme", 2000, 1, "lost"), session("globex", 10_000, 2, "done")}, "fetched 2000, called 3000", "fetched 10000, called 10000"},
		{[]PopSession{session("acme", 2500, 1, "done"), session("globex", 9000, 2, "done")}, "fetched 2500, called 3000", "fetched 10000, called 10000"},
	} {
		if err := l.RecordPopSessions(t.Context(), batch.sessions); err != nil {
			t.Fatal(err)
		}
		wantPresence(t, l, "acme", batch.acme)
		wantPresence(t, l, "globex", batch.globex)
	}
	if err := l.DeleteAccount(t.Context(), "acme"); err != nil {
		t.Fatal(err)
	}
	if err := l.RecordPopSessions(t.Context(), []PopSession{session("acme", 20_000, 1, "done")}); err != nil {
		t.Fatal(err)
	}
	wantPresence(t, l, "acme", "fetched 2500, called 3000")
}

func TestWhoCallsInVainIsNotedOnceAnHour(t *testing.T) {
	t.Parallel()
	c := clockAt("2020-02-10 12:00:00")
	l, d := twoAccounts(t, Options{Now: c.Now})
	globex := d.Account("globex").ID
	call := func() {
		t.Helper()
		if err := l.Called(t.Context(), globex); err != nil {
			t.Fatal(err)
		}
	}
	begun := c.Now().UnixMilli()
	for _, minute := range []int64{0, 1, 59, 60, 61, 119, 120, 600} {
		c.now = at(begun).Add(time.Duration(minute) * time.Minute)
		call()
		noted := minute / 60 * 60
		wantPresence(t, l, "globex", fmt.Sprintf("fetched 0, called %d", begun+noted*60_000))
	}
	if err := l.Called(t.Context(), 4711); err != nil {
		t.Errorf("a call for an account that is gone: %v", err)
	}
}

func TestAnAccountIsSilentFromWhenItsCustomerWasThereLast(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	c := clockAt("2026-02-01 12:00:00")
	l := newTestLedger(t, Options{Now: c.Now})
	begun := c.Now()
	for _, a := range []Account{
		{Name: "relay", Mode: Backup}, {Name: "never", Mode: ATRN}, {Name: "asks", Mode: ATRN}, {Name: "fetched", Mode: ETRN, Host: "mail.example"},
		{Name: "paused", Mode: ATRN}, {Name: "rescued", Mode: Backup}, {Name: "gone", Mode: POP3, CatchAll: true}, {Name: "broken", Mode: POP3, CatchAll: true},
	} {
		a.Domains = []string{a.Name + ".example"}
		if a.Mode == ETRN {
			a.Networks = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
		}
		mustAdd(t, l, a)
	}
	d := mustLoad(t, l)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	edit := func(name string, edit func(*Account)) {
		t.Helper()
		_, _, err := l.EditAccount(t.Context(), name, "account set", func(a *Account) error { edit(a); return nil })
		must(err)
	}
	edit("paused", func(a *Account) { a.Suspended = true })
	must(l.DeleteAccount(t.Context(), "gone"))
	wantSilent := func(want ...string) {
		t.Helper()
		list, err := l.Select(t.Context(), Selection{Silent: 7 * day})
		must(err)
		var got []string
		for _, s := range list {
			got = append(got, s.Name)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("silent on %s are %v, want %v", c.Now().Format(time.DateOnly), got, want)
		}
	}
	c.now = begun.Add(6 * day)
	wantSilent()
	must(l.Called(t.Context(), d.Account("asks").ID))
	must(l.RecordTurn(t.Context(), "one", d.Account("fetched").ID, Turn{Kind: TurnETRN, Began: c.Now(), Ended: c.Now(), Messages: 1, Outcome: "lost"}))
	must(l.RecordPopSessions(t.Context(), []PopSession{{Account: "broken", Began: c.Now(), Ended: c.Now(), Outcome: "lost"}}))
	c.now = begun.Add(8 * day)
	wantSilent("broken", "never")
	edit("rescued", func(a *Account) { a.Mode, a.CatchAll = POP3, true })
	edit("paused", func(a *Account) { a.Suspended = false })
	wantSilent("broken", "never")
	c.now = begun.Add(14 * day)
	wantSilent("asks", "broken", "fetched", "never")
	c.now = begun.Add(16 * day)
	wantSilent("asks", "broken", "fetched", "never", "paused", "rescued")
}
