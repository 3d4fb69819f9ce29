package meter

import (
	"errors"
	"strings"
	"testing"
)

func TestNextMailboxOfAnAddressHasAnotherMaildir(t *testing.T) {
	t.Parallel()
	l := newTestLedger(t, Options{})
	v := newVerifier(false)
	mustAdd(t, l, Account{Name: "dent", Mode: POP3, Domains: []string{"dent.example"}})
	mustAdd(t, l, Account{Name: "ford", Mode: POP3, Domains: []string{"ford.example"}})
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	seen := map[string]bool{}
	for i, local := range []string{"two words", "Two Words", "two words"} {
		address := Address{local, "dent.example"}
		key := address.Key()
		if had, err := l.HadMailbox(t.Context(), "dent", address); err != nil || had != (i > 0) {
			t.Errorf("before the mailbox is made for the %dth time, HadMailbox = %v, %v", i+1, had, err)
		}
		must(l.AddMailbox(t.Context(), "dent", address, v))
		place := mustLoad(t, l).Maildir(key)
		if seen[place] || i == 0 && place != key || !strings.HasPrefix(place, key) {
			t.Errorf("the %dth mailbox %s has its mail in %s", i+1, key, place)
		}
		seen[place] = true
		must(l.RemoveMailbox(t.Context(), "dent", address))
	}
	// An address in another account's domain had none.
	must(l.AddMailbox(t.Context(), "ford", Address{"two words", "ford.example"}, v))
	if place := mustLoad(t, l).Maildir("two words@ford.example"); place != "two words@ford.example" {
		t.Errorf("the first mailbox has its mail in %s", place)
	}
}

// The histories of older ledgers name mailboxes without quotes.
func TestMailboxThatAnOlderMailbagRemovedKeepsItsMaildir(t *testing.T) {
	t.Parallel()
	l := olderLedger(t, 10, `
		INSERT INTO account (name, mode, created) VALUES ('dent', 'pop3', 1767225600000);
		INSERT INTO domain (name, account) VALUES ('dent.example', 1);
		INSERT INTO change (at, who, account, action) VALUES (1767225600000, 'operator', 1, 'mailbox remove two words@dent.example')`)
	if err := l.AddMailbox(t.Context(), "dent", Address{"two words", "dent.example"}, newVerifier(false)); err != nil {
		t.Fatal(err)
	}
	if place := mustLoad(t, l).Maildir("two words@dent.example"); place == "two words@dent.example" {
		t.Error("the next one has the Maildir of the former")
	}
}

func TestMaildirsGoWithTheirMailboxesToAnotherLedger(t *testing.T) {
	t.Parallel()
	l := outfit(t)
	arthur := Address{"arthur", "dent.example"}
	if err := errors.Join(l.RemoveMailbox(t.Context(), "dent", arthur), l.AddMailbox(t.Context(), "dent", arthur, newVerifier(false))); err != nil {
		t.Fatal(err)
	}
	all, _, err := l.Transfers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	other := newTestLedger(t, Options{})
	if err := other.Import(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	place := mustLoad(t, l).Maildir(arthur.Key())
	if got := mustLoad(t, other).Maildir(arthur.Key()); got != place || place == arthur.Key() {
		t.Errorf("the mail of the mailbox is in %s, and there in %s", place, got)
	}

	for what, wrong := range map[string]map[string]string{
		"another mailbox's":  {"arthur@dent.example": "zaphod@dent.example"},
		"outside the domain": {"arthur@dent.example": "arthur@dent.example/../..,x"},
		"no mailbox":         {"arthur@dent.example": place, "zaphod@dent.example": "zaphod@dent.example,x"},
		"nothing":            {"arthur@dent.example": "arthur"},
		"elsewhere":          {"arthur@dent.example": "arthur@dent.example,../../x"},
	} {
		for i := range all {
			if all[i].Name == "dent" {
				all[i].Maildirs = wrong
			}
		}
		if err := newTestLedger(t, Options{}).Import(t.Context(), all); !errors.Is(err, ErrInvalid) {
			t.Errorf("a Maildir that is %s: %v", what, err)
		}
	}
}
