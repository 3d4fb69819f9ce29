package meter

import (
	"strings"
	"testing"
	"time"
)

func TestChangesAreFoundAcrossAccounts(t *testing.T) {
	t.Parallel()
	c := clockAt("2026-02-01 12:00:00")
	l := newTestLedger(t, Options{Now: c.Now, Actor: "kim"})
	other, err := Open(t.Context(), l.path, Options{Now: c.Now, Actor: "lee"})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		c.now = c.now.Add(time.Hour)
	}
	mustAdd(t, l, Account{Name: "acme", Mode: Backup, Domains: []string{"acme.example"}, Host: "acme.test"})
	must(nil)
	mustAdd(t, other, Account{Name: "bolt", Mode: ATRN, Domains: []string{"bolt.example"}})
	must(nil)
	must(l.AddDomain(t.Context(), "bolt", "acme.test"))
	must(other.RemoveDomain(t.Context(), "bolt", "acme.test"))
	must(other.DeleteAccount(t.Context(), "bolt"))
	must(l.batch(t.Context(), statement{"INSERT INTO change (at, who, plan, action, before) VALUES (?, 'kim', 'gold', 'plan remove', '{}')", []any{c.Now().UnixMilli()}}))
	at := func(hour int) time.Time {
		return clockAt("2026-02-01 12:00:00").Now().Add(time.Duration(hour) * time.Hour)
	}
	for _, test := range []struct {
		which ChangeFilter
		want  string
	}{
		{ChangeFilter{}, "acme account add, bolt account add, bolt domain add acme.test, bolt domain remove acme.test, bolt account delete, gold plan remove"},
		{ChangeFilter{Limit: 2}, "bolt account delete, gold plan remove"},
		{ChangeFilter{Account: "bolt", Limit: 2}, "bolt domain remove acme.test, bolt account delete"},
		{ChangeFilter{Account: "bolt", Since: at(2), Until: at(4)}, "bolt domain add acme.test, bolt domain remove acme.test"},
		{ChangeFilter{Since: at(4)}, "bolt account delete, gold plan remove"},
		{ChangeFilter{Until: at(1)}, "acme account add"},
		{ChangeFilter{Who: "lee", Limit: 2}, "bolt domain remove acme.test, bolt account delete"},
		{ChangeFilter{Who: "le"}, ""},
		{ChangeFilter{Action: "ADD"}, "acme account add, bolt account add, bolt domain add acme.test"},
		{ChangeFilter{Domain: "acme.test"}, "bolt domain add acme.test, bolt domain remove acme.test"}, // acme has a host of this name
		{ChangeFilter{Domain: "bolt.example", Who: "kim"}, "bolt domain add acme.test"},
		{ChangeFilter{Account: "nobody"}, ""},
	} {
		list, err := l.Changes(t.Context(), test.which)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, c := range list {
			got = append(got, c.Account+c.Plan+" "+c.Action)
		}
		if strings.Join(got, ", ") != test.want {
			t.Errorf("%+v has %q, want %q", test.which, got, test.want)
		}
	}
}
