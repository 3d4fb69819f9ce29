package meter

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// ofLists is a ledger with an account that has two domains and accepts listed recipients only.
func ofLists(t *testing.T) (l *Ledger, id int64) {
	t.Helper()
	l = newTestLedger(t, Options{})
	mustAdd(t, l, Account{Name: "acme", Mode: Backup, Recipients: ListedRecipient, Domains: []string{"acme.example", "acme.test"}})
	return l, mustLoad(t, l).Account("acme").ID
}

// wantListed compares all that tells of an account's list, and looks whether anything else is left.
func wantListed(t *testing.T, l *Ledger, id int64, want []string) {
	t.Helper()
	if diff := cmp.Diff(want, collect(t, l.Recipients(t.Context(), id))); diff != "" {
		t.Errorf("the list (-want +got):\n%s", diff)
	}
	if n, err := l.RecipientCount(t.Context(), id); n != len(want) || err != nil {
		t.Errorf("%d are counted, %v; want %d", n, err, len(want))
	}
	if faults, err := l.Check(t.Context()); err != nil || len(faults) > 0 {
		t.Errorf("Check = %q, %v", faults, err)
	}
	wantNothingLeft(t, l)
}

// wantNothingLeft looks for lists that are not in force.
func wantNothingLeft(t *testing.T, l *Ledger) {
	t.Helper()
	var lists, addresses int
	err := l.row(t.Context(), `SELECT (SELECT count(*) FROM recipient_list WHERE account IS NULL),
		(SELECT count(*) FROM recipient) - (SELECT coalesce(sum(size), 0) FROM recipient_list WHERE account IS NOT NULL)`).Scan(&lists, &addresses)
	if err != nil || lists != 0 || addresses != 0 {
		t.Errorf("%d lists and %d addresses are left, %v", lists, addresses, err)
	}
}

// keysOf are the keys of addresses, in the order in which [Ledger.Recipients] has them.
func keysOf(t *testing.T, lists ...iter.Seq2[Address, error]) (keys []string) {
	for _, list := range lists {
		for _, a := range collect(t, list) {
			keys = append(keys, a.Key())
		}
	}
	domain := func(key string) string { return key[strings.IndexByte(key, '@')+1:] }
	slices.SortFunc(keys, func(a, b string) int {
		if c := strings.Compare(domain(a), domain(b)); c != 0 {
			return c
		}
		return strings.Compare(a, b)
	})
	return slices.Compact(keys)
}

// all yields the addresses of one list after the other, the last one first, and does something once half of them are there.
func all(then func(), lists ...iter.Seq2[Address, error]) iter.Seq2[Address, error] {
	return func(yield func(Address, error) bool) {
		var whole []Address
		for _, list := range lists {
			for a := range list {
				whole = append(whole, a)
			}
		}
		slices.Reverse(whole)
		for i, a := range whole {
			if i == len(whole)/2 && then != nil {
				then()
			}
			if !yield(a, nil) {
				return
			}
		}
	}
}

func TestLongListIsAddedOrReplacesAnother(t *testing.T) {
	t.Parallel()
	l, id := ofLists(t)
	const n = 2*importChunk + 7
	first, second := numbered(n, "acme.example"), numbered(n, "acme.test")
	for _, step := range []struct {
		replace bool
		list    iter.Seq2[Address, error]
		done    Imported
		want    []string
	}{
		{false, all(nil, first), Imported{n, n, 0}, keysOf(t, first)},
		{false, all(nil, numbered(n+1, "acme.example"), second), Imported{2*n + 1, n + 1, 0}, keysOf(t, numbered(n+1, "acme.example"), second)},
		{false, all(nil, first), Imported{n, 0, 0}, keysOf(t, numbered(n+1, "acme.example"), second)},
		{true, all(nil, numbered(n+2, "acme.example")), Imported{n + 2, 1, n}, keysOf(t, numbered(n+2, "acme.example"))},
		{true, all(nil, numbered(1, "acme.test")), Imported{1, 1, n + 2}, keysOf(t, numbered(1, "acme.test"))},
	} {
		got, err := l.ImportRecipients(t.Context(), "acme", step.replace, step.list, func(int) {})
		if err != nil || got != step.done {
			t.Errorf("the import is %+v, %v; want %+v", got, err, step.done)
		}
		wantListed(t, l, id, step.want)
	}
	history, err := l.History(t.Context(), "acme")
	if err != nil || !strings.Contains(string(history[len(history)-1].After), `"recipient_count":1`) || !strings.Contains(string(history[len(history)-1].Before), fmt.Sprintf(`"recipient_count":%d,`, n+2)) {
		t.Errorf("the last change is %s, %v", history[len(history)-1].After, err)
	}
}

// importBetween begins an import, does something when half of its list is written, and ends it.
func importBetween(t *testing.T, l *Ledger, replace bool, list iter.Seq2[Address, error], then func()) (Imported, error) {
	return l.ImportRecipients(t.Context(), "acme", replace, list, func(written int) {
		if written == importChunk {
			then()
		}
	})
}

func TestWhatIsChangedDuringAnImportStays(t *testing.T) {
	t.Parallel()
	const n = 2*importChunk + 7
	early, late := Address{"early", "acme.example"}, Address{"late", "acme.test"}
	for _, c := range []struct {
		name    string
		replace bool
		want    []string
	}{
		{"add", false, keysOf(t, numbered(n, "acme.example"), addresses(t, "early@acme.example", "late@acme.test"))[1:]},
		{"replace", true, keysOf(t, numbered(n, "acme.example"), addresses(t, "early@acme.example", "late@acme.test"))[1:]},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l, id := ofLists(t)
			if err := l.AddRecipients(t.Context(), "acme", Address{"gone", "acme.example"}, Address{"000000", "acme.example"}, Address{"early", "acme.example"}); err != nil {
				t.Fatal(err)
			}
			_, err := importBetween(t, l, c.replace, all(nil, numbered(n, "acme.example")), func() {
				_, err := l.RemoveRecipients(t.Context(), "acme", Address{"gone", "acme.example"}, Address{"000000", "acme.example"})
				if err := errors.Join(err, l.AddRecipients(t.Context(), "acme", early, late)); err != nil {
					t.Fatal(err)
				}
				if got := collect(t, l.Recipients(t.Context(), id)); !slices.Equal(got, []string{"early@acme.example", "late@acme.test"}) {
					t.Errorf("during the import the list is %q", got)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			wantListed(t, l, id, c.want)
		})
	}
}

func TestOfTwoImportsAtOnceEachIsWholeOrIsRefused(t *testing.T) {
	t.Parallel()
	const n = 2*importChunk + 7
	outer, inner := numbered(n, "acme.example"), numbered(n+1, "acme.test")
	for _, c := range []struct {
		name           string
		replace, other bool
		list           iter.Seq2[Address, error] // of the one that is in force first
		err            error
		want           []string
	}{
		{"add and add", false, false, inner, nil, keysOf(t, outer, inner)}, // of other domains
		{"add and add the same", false, false, numbered(n+1, "acme.example"), ErrChanged, keysOf(t, numbered(n+1, "acme.example"))},
		{"add and replace", false, true, all(nil, numbered(1, "acme.example")), ErrChanged, keysOf(t, numbered(1, "acme.example"))},
		{"replace and add", true, false, inner, nil, keysOf(t, outer)},
		{"replace and replace", true, true, inner, nil, keysOf(t, outer)},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l, id := ofLists(t)
			started := false
			// The other one comes after the first has looked at what is in force.
			list := all(nil, outer)
			if !c.replace {
				mustList(t, l, "acme", all(nil, numbered(1, "acme.example")))
			}
			hooked := &onQuery{engine: l.engine, text: "FROM (SELECT address FROM recipient WHERE list = ?2", then: func() {
				started = true
				if _, err := l.ImportRecipients(t.Context(), "acme", c.other, c.list, func(int) {}); err != nil {
					t.Error(err)
				}
			}}
			if c.replace {
				hooked.text = "SELECT o.id, n.id "
			}
			l.engine = hooked
			_, err := l.ImportRecipients(t.Context(), "acme", c.replace, list, func(int) {})
			if !errors.Is(err, c.err) || !started {
				t.Errorf("the second import (%t): %v, want %v", started, err, c.err)
			}
			wantListed(t, l, id, c.want)
		})
	}
}

// onQuery does something once before a query.
type onQuery struct {
	engine
	text string
	then func()
}

func (e *onQuery) read(ctx context.Context, how freshness, queries ...query) error {
	if then := e.then; then != nil && strings.Contains(queries[0].sql, e.text) {
		e.then = nil
		then()
	}
	return e.engine.read(ctx, how, queries...)
}

func TestDomainThatGoesDuringAnImportRefusesIt(t *testing.T) {
	t.Parallel()
	const n = 2*importChunk + 7
	for name, then := range map[string]func(*testing.T, *Ledger) error{
		"gone": func(t *testing.T, l *Ledger) error { return l.RemoveDomain(t.Context(), "acme", "acme.test") },
		"another's": func(t *testing.T, l *Ledger) error {
			mustAdd(t, l, Account{Name: "hooli", Mode: Backup, Recipients: ListedRecipient})
			return errors.Join(l.RemoveDomain(t.Context(), "acme", "acme.test"), l.AddDomain(t.Context(), "hooli", "acme.test"),
				l.AddRecipients(t.Context(), "hooli", Address{"info", "acme.test"}))
		},
		"account": func(t *testing.T, l *Ledger) error { return l.DeleteAccount(t.Context(), "acme") },
	} {
		want := ErrNoDomain
		if name == "account" {
			want = ErrNoAccount
		}
		for _, replace := range []bool{false, true} {
			l, _ := ofLists(t)
			_, err := importBetween(t, l, replace, all(nil, numbered(n, "acme.example"), numbered(n, "acme.test")), func() {
				if err := then(t, l); err != nil {
					t.Fatal(err)
				}
			})
			if !errors.Is(err, want) {
				t.Errorf("%s (replace: %t): %v, want %v", name, replace, err, want)
			}
			wantNothingLeft(t, l)
			if d := mustLoad(t, l); name == "another's" {
				wantListed(t, l, d.Account("hooli").ID, []string{"info@acme.test"})
			}
		}
	}
}

func TestImportThatDiesLeavesNothing(t *testing.T) {
	t.Parallel()
	c := clockAt("2026-02-01 12:00:00")
	l := newTestLedger(t, Options{Now: c.Now})
	mustAdd(t, l, Account{Name: "acme", Mode: Backup, Recipients: ListedRecipient, Domains: []string{"acme.example"}})
	id := mustLoad(t, l).Account("acme").ID
	mustList(t, l, "acme", addresses(t, "info@acme.example"))
	const n = 2*importChunk + 7
	broken := func(yield func(Address, error) bool) {
		for a, err := range numbered(n, "acme.example") {
			if !yield(a, err) {
				return
			}
		}
		yield(Address{}, ErrInvalid)
	}
	// The lists are written before the whole file is read.
	small := &listMaking{ledger: l, domains: []string{"acme.example"}, progress: func(int) {}}
	for a := range numbered(n, "acme.example") {
		if err := small.add(t.Context(), a.Key(), a.Domain); err != nil {
			t.Fatal(err)
		}
	}
	if err := small.write(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := l.ImportRecipients(t.Context(), "acme", true, broken, func(int) {}); !errors.Is(err, ErrInvalid) {
		t.Errorf("an import of a broken file: %v", err)
	}
	if got := collect(t, l.Recipients(t.Context(), id)); !slices.Equal(got, []string{"info@acme.example"}) {
		t.Errorf("the list is %d long", len(got))
	}
	// One that is still under way is let be; a day later it is dead, and whoever goes on with it is refused.
	if p, err := l.Prune(t.Context(), Keep{}); err != nil || p.Recipients != 0 {
		t.Errorf("Prune = %+v, %v", p, err)
	}
	c.now = c.now.Add(keepImport + time.Second)
	if p, err := l.Prune(t.Context(), Keep{}); err != nil || p.Recipients != n {
		t.Errorf("Prune a day later = %+v, %v", p, err)
	}
	if err := small.add(t.Context(), "late@acme.example", "acme.example"); err != nil {
		t.Fatal(err)
	}
	if err := small.write(t.Context()); !errors.Is(err, ErrChanged) {
		t.Errorf("a dead import goes on: %v", err)
	}
	if err := l.change(t.Context(), "acme", "recipient import", small.whole(1)); err == nil {
		t.Error("a dead import comes into force")
	}
	wantListed(t, l, id, []string{"info@acme.example"})
	ctx, cancel := context.WithCancel(t.Context())
	_, err := l.ImportRecipients(ctx, "acme", true, numbered(n, "acme.example"), func(int) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("an import that was broken off: %v", err)
	}
	if p, err := l.Prune(t.Context(), Keep{}); err != nil || p.Recipients != importChunk {
		t.Errorf("Prune after it = %+v, %v", p, err)
	}
	wantListed(t, l, id, []string{"info@acme.example"})
}

func TestListGoesWithItsDomainAndItsAccount(t *testing.T) {
	t.Parallel()
	l, id := ofLists(t)
	mustList(t, l, "acme", all(nil, numbered(pruneChunk+1, "acme.example"), numbered(3, "acme.test")))
	if err := l.RemoveDomain(t.Context(), "acme", "acme.example"); err != nil {
		t.Fatal(err)
	}
	wantListed(t, l, id, keysOf(t, numbered(3, "acme.test")))
	if err := l.AddDomain(t.Context(), "acme", "acme.example"); err != nil {
		t.Fatal(err)
	}
	wantListed(t, l, id, keysOf(t, numbered(3, "acme.test")))
	if err := l.DeleteAccount(t.Context(), "acme"); err != nil {
		t.Fatal(err)
	}
	wantNothingLeft(t, l)
	if n, err := l.RecipientCount(t.Context(), id); n != 0 || err != nil {
		t.Errorf("%d are counted, %v", n, err)
	}
}

func TestAddressesOfOthersAreNotTakenOffTheirLists(t *testing.T) {
	t.Parallel()
	l, id := ofLists(t)
	mustAdd(t, l, Account{Name: "hooli", Mode: Backup, Recipients: ListedRecipient, Domains: []string{"hooli.example"}})
	mustList(t, l, "acme", addresses(t, "info@acme.example"))
	if n, err := l.RemoveRecipients(t.Context(), "hooli", Address{"info", "acme.example"}); n != 0 || err != nil {
		t.Errorf("RemoveRecipients = %d, %v", n, err)
	}
	wantListed(t, l, id, []string{"info@acme.example"})
}

// wantAccepted asks of a snapshot which recipients are accepted.
func wantAccepted(t *testing.T, l *Ledger, d *Directory, want map[string]bool) {
	t.Helper()
	for address, want := range want {
		a, err := ParseAddress(address)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := l.Accepts(t.Context(), d, d.Domain(a.Domain), a); got != want || err != nil {
			t.Errorf("Accepts(%s) = %v, %v; want %v", address, got, err, want)
		}
	}
}

func TestARecipientIsAcceptedAsSoonAsTheLedgerSaysSo(t *testing.T) {
	t.Parallel()
	l, _ := ofLists(t)
	mustAdd(t, l, Account{Name: "other", Mode: Backup, Recipients: ListedRecipient, Domains: []string{"other.example"}})
	for name, addr := range map[string]Address{"acme": {"info", "acme.example"}, "other": {"joe", "other.example"}} {
		if err := l.AddRecipients(t.Context(), name, addr); err != nil {
			t.Fatal(err)
		}
	}
	old := mustLoad(t, l)
	wantAccepted(t, l, old, map[string]bool{"info@acme.example": true, "new@acme.example": false, "info@acme.test": false, "any@other.example": false})
	if err := l.AddRecipients(t.Context(), "acme", Address{"new", "acme.example"}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.RemoveRecipients(t.Context(), "acme", Address{"info", "acme.example"}); err != nil {
		t.Fatal(err)
	}
	// These two accept any by now, which a snapshot of before does not know.
	if _, _, err := l.EditAccount(t.Context(), "other", "account set", func(a *Account) error { a.Recipients = AnyRecipient; return nil }); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(l.RemoveDomain(t.Context(), "acme", "acme.test"), l.AddDomain(t.Context(), "other", "acme.test")); err != nil {
		t.Fatal(err)
	}
	wantAccepted(t, l, old, map[string]bool{"info@acme.example": false, "new@acme.example": true, "info@acme.test": true, "any@other.example": true})
}
