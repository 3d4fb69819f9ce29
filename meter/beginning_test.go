package meter

import (
	"strings"
	"testing"
)

func TestWordsBeginAsWhatIsTyped(t *testing.T) {
	t.Parallel()
	l := customers(t)
	mustInsert(t, l, "INSERT INTO mailbox (address, account, domain, created) VALUES ('bob@dent.example', 4, 'dent.example', 0)")
	for _, test := range []struct {
		kind         Kind
		prefix, want string
	}{
		{AccountNames, "", "acme bolt corp dent hooli"},
		{AccountNames, "b", "bolt"},
		{AccountNames, "g", ""}, // it was deleted
		{FlushNames, "", "acme bolt dent"},
		{CustomerWords, "", "K-7 k-7"},
		{CustomerWords, "k", "k-7"},
		{PlanNames, "s", "small"},
		{DomainNames, "s", "shop.acme.example"},
		{Logins, "b", "bob@dent.example bolt"},
	} {
		words, err := l.Beginning(t.Context(), test.kind, test.prefix, 10)
		if got := strings.Join(words, " "); err != nil || got != test.want {
			t.Errorf("%s that begin with %q: %q, %v; want %q", test.kind, test.prefix, got, err, test.want)
		}
	}
	if words, err := l.Beginning(t.Context(), AccountNames, "", 2); err != nil || len(words) != 2 {
		t.Errorf("two are %q, %v", words, err)
	}
	if id, err := l.AccountID(t.Context(), "bolt"); err != nil || id != 2 {
		t.Errorf("bolt is %d, %v", id, err)
	}
	if _, err := l.AccountID(t.Context(), "gone"); err != ErrNoAccount {
		t.Errorf("a deleted account: %v", err)
	}
}
