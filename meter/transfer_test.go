package meter

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// outfit is a ledger with accounts that have everything that can be transferred.
func outfit(t *testing.T) *Ledger {
	t.Helper()
	l := newTestLedger(t, Options{})
	v := newVerifier(true)
	acme := withDefaults(Account{Name: "acme", Mode: ATRN, Domains: []string{"acme.example", "acme.test"}, Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")},
		Recipients: ListedRecipient, Terms: Terms{Messages: 5, Bytes: 6, OnLimit: Defer, MaxTiers: 7, BasePrice: Price{Set: true}, TierPrice: Price{true, 8}}, Hold: 9e9,
		Contact: "boss@elsewhere.example", CRAMMD5: true, Suspended: true})
	if err := l.AddAccount(t.Context(), acme, v); err != nil {
		t.Fatal(err)
	}
	if err := l.AddRecipients(t.Context(), "acme", Address{"a b", "acme.example"}, Address{"info", "acme.test"}); err != nil {
		t.Fatal(err)
	}
	mustAdd(t, l, Account{Name: "dent", Mode: POP3, Domains: []string{"dent.example"}, Quota: 10, Copies: SingleCopy})
	mustAdd(t, l, Account{Name: "ford", Mode: Backup, Domains: []string{"ford.example"}, TLS: TLSRequire})
	if err := l.AddMailbox(t.Context(), "dent", Address{"arthur", "dent.example"}, newVerifier(false)); err != nil {
		t.Fatal(err)
	}
	return l
}

func TestTransfersArriveWhole(t *testing.T) {
	t.Parallel()
	l := outfit(t)
	all, _, err := l.Transfers(t.Context())
	if err != nil || len(all) != 3 {
		t.Fatalf("%d transfers, %v", len(all), err)
	}
	other := newTestLedger(t, Options{})
	if err := other.Import(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	got, _, err := other.Transfers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(all, got, cmpopts.IgnoreFields(Account{}, "ID", "Created"), cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
		t.Errorf("what arrived (-sent +got):\n%s", diff)
	}
	history, err := other.History(t.Context(), "dent")
	if err != nil || len(history) != 1 || history[0].Action != "account import" {
		t.Errorf("the history is %+v, %v", history, err)
	}
}

func TestImportIsRefusedWhole(t *testing.T) {
	t.Parallel()
	all, _, err := outfit(t).Transfers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	short := *all[1].Verifiers["arthur@dent.example"]
	short.StoredKey = short.StoredKey[1:]
	for _, test := range []struct {
		name   string
		spoil  func(t *Transfer)
		before func(*Ledger)
		want   error
	}{
		{"name taken", nil, func(l *Ledger) { mustAdd(t, l, Account{Name: "dent", Mode: Backup}) }, ErrNameTaken},
		{"name of a deleted account", nil, func(l *Ledger) {
			mustAdd(t, l, Account{Name: "dent", Mode: Backup})
			if err := l.DeleteAccount(t.Context(), "dent"); err != nil {
				t.Fatal(err)
			}
		}, ErrNameTaken},
		{"domain taken", nil, func(l *Ledger) { mustAdd(t, l, Account{Name: "x", Mode: Backup, Domains: []string{"dent.example"}}) }, ErrDomainTaken},
		{"twice", func(t *Transfer) { t.Name = "acme" }, nil, ErrNameTaken},
		{"bad account", func(t *Transfer) { t.Mode = "smtp" }, nil, ErrInvalid},
		{"mailbox elsewhere", func(t *Transfer) { t.Mailboxes = append(t.Mailboxes, "a@acme.example") }, nil, ErrInvalid},
		{"mailbox in capitals", func(t *Transfer) { t.Mailboxes = append(t.Mailboxes, "A@dent.example") }, nil, ErrInvalid},
		{"mailbox with a tab", func(t *Transfer) { t.Mailboxes = append(t.Mailboxes, "a\tb@dent.example") }, nil, ErrInvalid},
		{"listed are two lines", func(t *Transfer) { t.Listed = []string{"a\nb@dent.example"} }, nil, ErrInvalid},
		{"foreign verifier", func(t *Transfer) { t.Verifiers = map[string]*Verifier{"acme": all[0].Verifiers["acme"]} }, nil, ErrInvalid},
		{"short key", func(t *Transfer) { t.Verifiers = map[string]*Verifier{"dent": &short} }, nil, ErrInvalid},
		{"listed elsewhere", func(t *Transfer) { t.Listed = []string{"a@acme.example"} }, nil, ErrInvalid},
		{"listed is no address", func(t *Transfer) { t.Listed = []string{"dent.example"} }, nil, ErrInvalid},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := newTestLedger(t, Options{})
			if test.before != nil {
				test.before(l)
			}
			spoiled := all[1]
			if test.spoil != nil {
				test.spoil(&spoiled)
			}
			if err := l.Import(t.Context(), []Transfer{all[0], spoiled}); !errors.Is(err, test.want) {
				t.Errorf("Import = %v, want %v", err, test.want)
			}
			if mustLoad(t, l).Account("acme") != nil {
				t.Error("half of it was imported")
			}
		})
	}
}

func TestClashesNameAllThatIsInTheWay(t *testing.T) {
	t.Parallel()
	all, _, err := outfit(t).Transfers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	l := newTestLedger(t, Options{})
	if clashes, err := l.Clashes(t.Context(), all); err != nil || len(clashes) > 0 {
		t.Errorf("in an empty ledger: %v, %v", clashes, err)
	}
	mustAdd(t, l, Account{Name: "acme", Mode: Backup, Domains: []string{"acme.example"}})
	mustAdd(t, l, Account{Name: "dent", Mode: Backup})
	if err := l.DeleteAccount(t.Context(), "dent"); err != nil {
		t.Fatal(err)
	}
	mustAdd(t, l, Account{Name: "prefect", Mode: Backup, Domains: []string{"ford.example"}})
	clashes, err := l.Clashes(t.Context(), all)
	if err != nil {
		t.Fatal(err)
	}
	want := []struct {
		err  error
		text string
	}{
		{ErrNameTaken, "acme: the name is taken"},
		{ErrNameTaken, "dent: the name is taken by a deleted account"},
		{ErrDomainTaken, "ford.example: the domain belongs to an account already: prefect"},
	}
	if len(clashes) != len(want) {
		t.Fatalf("the clashes are %v", clashes)
	}
	for i, w := range want {
		if !errors.Is(clashes[i], w.err) || clashes[i].Error() != w.text {
			t.Errorf("clash %d is %v, want %s", i, clashes[i], w.text)
		}
	}
}
