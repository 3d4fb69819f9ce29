package meter

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestAccountOfEachModeIsKeptWhole(t *testing.T) {
	t.Parallel()
	created := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	l := newTestLedger(t, Options{Now: func() time.Time { return created }})
	network := netip.MustParsePrefix("192.0.2.0/24")
	accounts := []Account{
		{Name: "acme", Mode: Backup, Domains: []string{"acme.example", "acme.test"}, Host: "mx.acme.example:2525",
			Recipients: VerifiedRecipient, Terms: Terms{Messages: 5, Bytes: 6, OnLimit: Defer, MaxTiers: 7}, Hold: time.Hour,
			Contact: "boss@elsewhere.example", Copies: PerRecipient, TLS: TLSVerify, Created: created},
		{Name: "globex", Mode: ATRN, Domains: []string{"globex.example"}, Recipients: AnyRecipient, Copies: PerRecipient, CRAMMD5: true, TLS: TLSOpportunistic, Created: created},
		{Name: "hooli", Mode: ETRN, Domains: []string{"hooli.example"}, Host: "192.0.2.1", Networks: []netip.Prefix{network},
			Recipients: ListedRecipient, Copies: PerRecipient, TLS: TLSRequire, Suspended: true, Created: created},
		{Name: "initech", Mode: POP3, Domains: []string{"initech.example"}, Recipients: AnyRecipient, Copies: SingleCopy, CatchAll: true, Quota: 8, TLS: TLSOpportunistic, Created: created},
	}
	for _, a := range accounts {
		if err := l.AddAccount(t.Context(), a, nil); err != nil {
			t.Fatal(err)
		}
	}
	var got []Account
	for a := range mustLoad(t, l).Accounts() {
		got = append(got, *a)
	}
	compare := cmp.Options{cmpopts.IgnoreFields(Account{}, "ID"), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })}
	if diff := cmp.Diff(accounts, got, compare); diff != "" {
		t.Error(diff)
	}
}

func TestInvalidAccountsAreRefused(t *testing.T) {
	t.Parallel()
	l := newTestLedger(t, Options{})
	for name, a := range map[string]Account{
		"upper case name":     {Name: "Acme", Mode: Backup},
		"long name":           {Name: strings.Repeat("a", 33), Mode: Backup},
		"name with hyphen":    {Name: "-a", Mode: Backup},
		"path in name":        {Name: "../a", Mode: Backup},
		"unknown mode":        {Name: "a", Mode: "imap"},
		"etrn without host":   {Name: "a", Mode: ETRN, Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}},
		"etrn without nets":   {Name: "a", Mode: ETRN, Host: "192.0.2.1"},
		"verify on pop3":      {Name: "a", Mode: POP3, Recipients: VerifiedRecipient},
		"negative limit":      {Name: "a", Mode: Backup, Terms: Terms{Messages: -1}},
		"messages over 2^53":  {Name: "a", Mode: Backup, Terms: Terms{Messages: MaxLimit + 1}},
		"bytes over 2^53":     {Name: "a", Mode: Backup, Terms: Terms{Bytes: MaxLimit + 1}},
		"tiers over 2^53":     {Name: "a", Mode: Backup, Terms: Terms{MaxTiers: MaxLimit + 1}},
		"quota over 2^53":     {Name: "a", Mode: POP3, Quota: MaxLimit + 1},
		"hold over 100 days":  {Name: "a", Mode: Backup, Hold: 101 * 24 * time.Hour},
		"host with a slash":   {Name: "a", Mode: Backup, Host: "mx/acme"},
		"contact of no one":   {Name: "a", Mode: Backup, Contact: "boss"},
		"unknown on-limit":    {Name: "a", Mode: Backup, Terms: Terms{OnLimit: "shrug"}},
		"unknown recipients":  {Name: "a", Mode: Backup, Recipients: "some"},
		"domain given twice":  {Name: "a", Mode: Backup, Domains: []string{"a.example", "a.example"}},
		"port out of range":   {Name: "a", Mode: Backup, Host: "mx.example:65536"},
		"unknown tls":         {Name: "a", Mode: Backup, TLS: "always"},
		"tls of the caller":   {Name: "a", Mode: ATRN, TLS: TLSRequire},
		"verified address":    {Name: "a", Mode: Backup, Host: "[2001:db8::1]:25", TLS: TLSVerify},
		"unspecified address": {Name: "a", Mode: Backup, Host: "0.0.0.0"},
	} {
		if err := l.AddAccount(t.Context(), withDefaults(a), nil); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: AddAccount = %v, want ErrInvalid", name, err)
		}
	}
	if d := mustLoad(t, l); len(d.accounts) > 0 {
		t.Errorf("the ledger has %d accounts", len(d.accounts))
	}
}

func TestNamesAndDomainsAreGivenOnce(t *testing.T) {
	t.Parallel()
	l := newTestLedger(t, Options{})
	mustAdd(t, l, Account{Name: "acme", Mode: Backup, Domains: []string{"acme.example"}})
	taken := withDefaults(Account{Name: "acme", Mode: Backup, Domains: []string{"other.example"}})
	if err := l.AddAccount(t.Context(), taken, nil); !errors.Is(err, ErrNameTaken) {
		t.Errorf("the same name: %v, want ErrNameTaken", err)
	}
	taken.Name, taken.Domains = "globex", []string{"globex.example", "acme.example"}
	if err := l.AddAccount(t.Context(), taken, nil); !errors.Is(err, ErrDomainTaken) || !strings.Contains(err.Error(), "acme.example") {
		t.Errorf("the same domain: %v, want ErrDomainTaken of acme.example", err)
	}
	if d := mustLoad(t, l); d.Account("globex") != nil || d.Domain("globex.example") != nil {
		t.Error("a refused account left something behind")
	}
	mustAdd(t, l, Account{Name: "globex", Mode: Backup})
	if err := l.AddDomain(t.Context(), "globex", "acme.example"); !errors.Is(err, ErrDomainTaken) {
		t.Errorf("AddDomain = %v, want ErrDomainTaken", err)
	}
	if err := l.DeleteAccount(t.Context(), "acme"); err != nil {
		t.Fatal(err)
	}
	if err := l.AddDomain(t.Context(), "globex", "acme.example"); err != nil {
		t.Errorf("the domain of a deleted account is not free: %v", err)
	}
	taken.Name, taken.Domains = "acme", nil
	if err := l.AddAccount(t.Context(), taken, nil); !errors.Is(err, ErrNameTaken) {
		t.Errorf("the name of a deleted account: %v, want ErrNameTaken", err)
	}
}

func TestDomainsAreThoseOfAllAccounts(t *testing.T) {
	t.Parallel()
	l := newTestLedger(t, Options{})
	mustAdd(t, l, Account{Name: "hooli", Mode: POP3, Domains: []string{"hooli.example", "b.hooli.example"}})
	mustAdd(t, l, Account{Name: "acme", Mode: POP3, Domains: []string{"acme.example"}})
	if err := l.DeleteAccount(t.Context(), "acme"); err != nil {
		t.Fatal(err)
	}
	if got, err := l.Domains(t.Context()); err != nil || !slices.Equal(got, []string{"b.hooli.example", "hooli.example"}) {
		t.Errorf("Domains = %q, %v", got, err)
	}
}

func TestOneDomainWantedByManyGoesToOne(t *testing.T) {
	t.Parallel()
	l := newTestLedger(t, Options{BusyTimeout: time.Minute})
	var wait sync.WaitGroup
	won := make(chan string, 10)
	for i := range 10 {
		name := fmt.Sprint("a", i)
		mustAdd(t, l, Account{Name: name, Mode: Backup})
		wait.Go(func() {
			own, err := Open(t.Context(), l.path, Options{BusyTimeout: time.Minute})
			if err != nil {
				t.Error(err)
				return
			}
			defer own.Close()
			if err := own.AddDomain(t.Context(), name, "acme.example"); err == nil {
				won <- name
			} else if !errors.Is(err, ErrDomainTaken) {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if len(won) != 1 {
		t.Fatalf("%d accounts got the domain", len(won))
	}
	if winner := <-won; mustLoad(t, l).Domain("acme.example").Name != winner {
		t.Error("the domain is not the winner's")
	}
}

func TestEditsOfDifferentFieldsBothStay(t *testing.T) {
	t.Parallel()
	l := newTestLedger(t, Options{})
	mustAdd(t, l, Account{Name: "acme", Mode: Backup})
	_, _, err := l.EditAccount(t.Context(), "acme", "set", func(a *Account) error {
		// Another operator is faster.
		_, _, err := l.EditAccount(t.Context(), "acme", "set", func(a *Account) error { a.Messages = 5; return nil })
		a.Host = "mx.acme.example"
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if a := mustLoad(t, l).Account("acme"); a.Messages != 5 || a.Host != "mx.acme.example" {
		t.Errorf("messages %d, host %q; one of the edits was lost", a.Messages, a.Host)
	}
}

func TestHistoryTellsWhoChangedWhat(t *testing.T) {
	t.Parallel()
	l := newTestLedger(t, Options{Actor: "kim"})
	mustAdd(t, l, Account{Name: "acme", Mode: Backup, Domains: []string{"acme.example"}})
	if _, _, err := l.EditAccount(t.Context(), "acme", "account set", func(a *Account) error { a.Messages = 5; return nil }); err != nil {
		t.Fatal(err)
	}
	v := newVerifier(true)
	if err := l.SetPassword(t.Context(), "acme", "acme", v); err != nil {
		t.Fatal(err)
	}
	if err := l.DeleteAccount(t.Context(), "acme"); err != nil {
		t.Fatal(err)
	}
	history, err := l.History(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	var actions []string
	for _, c := range history {
		actions = append(actions, c.Action)
		if c.Who != "kim" || strings.Contains(string(c.Before)+string(c.After), "stored_key") {
			t.Errorf("%s: who is %q; verifiers must not be in %s", c.Action, c.Who, c.After)
		}
	}
	if diff := cmp.Diff([]string{"account add", "account set", "passwd acme", "account delete"}, actions); diff != "" {
		t.Error(diff)
	}
	if !strings.Contains(string(history[1].Before), `"messages":0`) || !strings.Contains(string(history[1].After), `"messages":5`) ||
		!strings.Contains(string(history[1].After), `"domains":["acme.example"]`) {
		t.Errorf("set is kept as %s → %s", history[1].Before, history[1].After)
	}
}

func TestChangesOfMissingThingsAreNamed(t *testing.T) {
	t.Parallel()
	l := newTestLedger(t, Options{})
	mustAdd(t, l, Account{Name: "acme", Mode: POP3, CatchAll: true, Domains: []string{"acme.example"}})
	mustAdd(t, l, Account{Name: "hooli", Mode: ETRN, Host: "192.0.2.1", Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}})
	v := newVerifier(false)
	box, foreign := Address{"box", "acme.example"}, Address{"box", "elsewhere.example"}
	if err := l.AddMailbox(t.Context(), "acme", box, v); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what string
		err  error
		want error
	}{
		{"domain of no account", l.AddDomain(t.Context(), "nobody", "x.example"), ErrNoAccount},
		{"delete no account", l.DeleteAccount(t.Context(), "nobody"), ErrNoAccount},
		{"password of no account", l.SetPassword(t.Context(), "nobody", "nobody", v), ErrNoAccount},
		{"remove no domain", l.RemoveDomain(t.Context(), "acme", "x.example"), ErrNoDomain},
		{"remove a domain with mailboxes", l.RemoveDomain(t.Context(), "acme", "acme.example"), ErrInvalid},
		{"mailbox in no domain", l.AddMailbox(t.Context(), "acme", foreign, v), ErrNoDomain},
		{"mailbox twice", l.AddMailbox(t.Context(), "acme", Address{"BOX", "acme.example"}, v), ErrMailboxTaken},
		{"mailbox of an etrn account", l.AddMailbox(t.Context(), "hooli", box, v), ErrInvalid},
		{"remove no mailbox", l.RemoveMailbox(t.Context(), "acme", foreign), ErrNoMailbox},
		{"recipient in no domain", l.AddRecipients(t.Context(), "acme", foreign), ErrNoDomain},
		{"remove no network", l.RemoveNetwork(t.Context(), "hooli", netip.MustParsePrefix("198.51.100.0/24")), ErrNoNetwork},
		{"remove the last network of etrn", l.RemoveNetwork(t.Context(), "hooli", netip.MustParsePrefix("192.0.2.0/24")), ErrInvalid},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("%s: %v, want %v", c.what, c.err, c.want)
		}
	}
}

func TestMailboxIsFoundByItsAddressInAnySpelling(t *testing.T) {
	t.Parallel()
	l := newTestLedger(t, Options{})
	v := newVerifier(false)
	mustAdd(t, l, Account{Name: "boxes", Mode: POP3, Domains: []string{"boxes.example"}})
	mustAdd(t, l, Account{Name: "other", Mode: POP3, CatchAll: true, Domains: []string{"other.example"}})
	if err := l.AddMailbox(t.Context(), "boxes", Address{"kim", "boxes.example"}, v); err != nil {
		t.Fatal(err)
	}
	d := mustLoad(t, l)
	for address, want := range map[string]*Account{
		"kim@boxes.example": d.Account("boxes"), "KIM@Boxes.Example.": d.Account("boxes"), `"kim"@boxes.example`: d.Account("boxes"),
		"kim+tag@boxes.example": nil, "lee@boxes.example": nil, "kim@other.example": nil, "kim@nobodys.example": nil,
	} {
		addr, err := ParseAddress(address)
		if err != nil {
			t.Fatal(err)
		}
		if got := d.Mailbox(addr); got != want {
			t.Errorf("the account of %s is %v, want %v", address, got, want)
		}
	}
}

func TestAnAccountAcceptsByListMailboxAndCatchAll(t *testing.T) {
	t.Parallel()
	l := newTestLedger(t, Options{})
	v := newVerifier(false)
	mustAdd(t, l, Account{Name: "any", Mode: Backup, Domains: []string{"any.example"}})
	mustAdd(t, l, Account{Name: "list", Mode: Backup, Recipients: ListedRecipient, Domains: []string{"list.example"}})
	mustAdd(t, l, Account{Name: "boxes", Mode: POP3, Domains: []string{"boxes.example"}})
	mustAdd(t, l, Account{Name: "all", Mode: POP3, CatchAll: true, Domains: []string{"all.example"}})
	if err := l.AddRecipients(t.Context(), "list", Address{"Info", "list.example"}, Address{"two words", "list.example"}, Address{"jo\u0308rg", "list.example"}); err != nil {
		t.Fatal(err)
	}
	if err := l.AddMailbox(t.Context(), "boxes", Address{"kim", "boxes.example"}, v); err != nil {
		t.Fatal(err)
	}
	d := mustLoad(t, l)
	wantAccepted(t, l, d, map[string]bool{
		"x@any.example": true, "x@all.example": true,
		"info@list.example": true, "INFO@List.Example": true, "info+tag@list.example": true, `"two words"@list.example`: true,
		"jörg@list.example": true, "JO\u0308RG+tag@list.example": true, "jorg@list.example": false,
		"inf@list.example": false, "+info@list.example": false, "x@list.example": false,
		"kim@boxes.example": true, "kim+a+b@boxes.example": true, "lee@boxes.example": false,
	})
}

func addresses(t testing.TB, list ...string) func(yield func(Address, error) bool) {
	return func(yield func(Address, error) bool) {
		for _, s := range list {
			a, err := ParseAddress(s)
			if !yield(a, err) {
				return
			}
		}
	}
}

func TestImportReplacesTheListAtOnceOrNotAtAll(t *testing.T) {
	t.Parallel()
	l := newTestLedger(t, Options{})
	mustAdd(t, l, Account{Name: "acme", Mode: Backup, Recipients: ListedRecipient, Domains: []string{"acme.example"}})
	id := mustLoad(t, l).Account("acme").ID
	list := func() (got []string) {
		for address, err := range l.Recipients(t.Context(), id) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, address)
		}
		return got
	}
	none := func(int) {}
	for _, step := range []struct {
		replace bool
		list    []string
		want    Imported
		err     error
		after   []string
	}{
		{false, []string{"b@acme.example", "a@acme.example", "A@acme.example"}, Imported{2, 2, 0}, nil, []string{"a@acme.example", "b@acme.example"}},
		{false, []string{"b@acme.example", "c@acme.example"}, Imported{2, 1, 0}, nil, []string{"a@acme.example", "b@acme.example", "c@acme.example"}},
		{true, []string{"c@acme.example", "d@acme.example"}, Imported{2, 1, 2}, nil, []string{"c@acme.example", "d@acme.example"}},
		{true, nil, Imported{}, ErrInvalid, []string{"c@acme.example", "d@acme.example"}},
		{true, []string{"e@acme.example", "x@elsewhere.example"}, Imported{2, 2, 2}, ErrNoDomain, []string{"c@acme.example", "d@acme.example"}},
	} {
		got, err := l.ImportRecipients(t.Context(), "acme", step.replace, addresses(t, step.list...), none)
		if !errors.Is(err, step.err) || (err == nil && got != step.want) {
			t.Errorf("import of %v = %+v, %v; want %+v, %v", step.list, got, err, step.want, step.err)
		}
		if diff := cmp.Diff(step.after, list()); diff != "" {
			t.Errorf("after %v: %s", step.list, diff)
		}
	}
	if _, err := l.ImportRecipients(t.Context(), "acme", true, addresses(t, "f@acme.example", "broken"), none); err == nil {
		t.Error("a list with an error was imported")
	}
	if diff := cmp.Diff([]string{"c@acme.example", "d@acme.example"}, list()); diff != "" {
		t.Error(diff)
	}
	if n, err := l.RemoveRecipients(t.Context(), "acme", Address{"c", "acme.example"}, Address{"z", "acme.example"}); n != 1 || err != nil {
		t.Errorf("RemoveRecipients = %d, %v; want 1", n, err)
	}
	var staged int
	err := l.row(t.Context(), "SELECT count(*) FROM recipient_list WHERE account IS NULL").Scan(&staged)
	if err != nil || staged > 0 {
		t.Errorf("%d staged rows are left, %v", staged, err)
	}
}

func TestWhatIsTakenFromAnAccountIsItsNoMore(t *testing.T) {
	t.Parallel()
	l := newTestLedger(t, Options{})
	one, other := netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")
	mustAdd(t, l, Account{Name: "acme", Mode: POP3, Domains: []string{"acme.example"}, Networks: []netip.Prefix{one, other}})
	v := newVerifier(false)
	for _, local := range []string{"kim", "lee"} {
		if err := l.AddMailbox(t.Context(), "acme", Address{local, "acme.example"}, v); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(l.RemoveNetwork(t.Context(), "acme", one), l.RemoveMailbox(t.Context(), "acme", Address{"Kim", "acme.example"})); err != nil {
		t.Fatal(err)
	}
	d := mustLoad(t, l)
	a := d.Account("acme")
	if diff := cmp.Diff([]string{"lee@acme.example"}, d.Mailboxes(a)); diff != "" {
		t.Errorf("the mailboxes (-want +got):\n%s", diff)
	}
	if len(a.Networks) != 1 || a.Networks[0] != other {
		t.Errorf("the networks are %v", a.Networks)
	}
	for login, want := range map[string]bool{"kim@acme.example": false, "lee@acme.example": true} {
		if v, err := l.Verifier(t.Context(), login); err != nil || (v != nil) != want {
			t.Errorf("the verifier of %s is %v, %v", login, v, err)
		}
	}
}
