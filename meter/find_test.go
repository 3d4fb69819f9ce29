package meter

import (
	"fmt"
	"strings"
	"testing"
)

func TestWhoseSomethingIsIsFound(t *testing.T) {
	t.Parallel()
	l := customers(t)
	mustAdd(t, l, Account{Name: "books", Mode: ATRN, Domains: []string{"second.example", "xn--bcher-kva.example"}, Recipients: ListedRecipient,
		Contact: "Office@elsewhere.example", Note: "Zahlt spät, im März"})
	for _, address := range []string{"bob@dent.example", "joe@second.example"} {
		a, err := ParseAddress(address)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(address, "bob") {
			mustInsert(t, l, "INSERT INTO mailbox (address, account, domain, created) VALUES (?, 4, 'dent.example', 0)", a.Key())
		} else if err := l.AddRecipients(t.Context(), "books", a); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct{ text, want string }{
		{"bolt", "bolt name=bolt"},
		{"BOLT", "bolt name=bolt"},
		{"K-7", "acme customer=K-7; corp customer=k-7; gone customer=K-7 deleted"},
		{"Second.Example.", "books domain=second.example"},
		{"mail.second.example", "books domain=second.example"},
		{"BÜCHER.example", "books domain=xn--bcher-kva.example"},
		{"xn--bcher-kva.example", "books domain=xn--bcher-kva.example"},
		{"Joe+list@second.example", "books recipient=joe@second.example"},
		{"jim@second.example", "books domain=second.example"},
		{"Bob@dent.example", "dent mailbox=bob@dent.example"},
		{"office@ELSEWHERE.example", "books contact=Office@elsewhere.example"},
		{"192.0.2.7", "bolt network=192.0.2.0/28"},
		{"::ffff:192.0.2.7", "bolt network=192.0.2.0/28"},
		{"192.0.2.0/24", "bolt network=192.0.2.0/28"},
		{"192.0.2.16", ""},
		{"gone.example", "gone domain=gone.example deleted"},
		{"shop.acme.example", "acme domain=shop.acme.example"},
		{"acme.exam", "acme ~domain=acme.example"},
		{"elsewh", "books ~contact=Office@elsewhere.example"},
		{"MÄRZ", "books ~note=Zahlt spät, im März"},
		{"zahlt", "books ~note=Zahlt spät, im März"},
		{"nobody", ""},
		{"%", ""},
		{"", ""},
	} {
		found, more, err := l.Find(t.Context(), test.text, 10)
		if err != nil || more != 0 {
			t.Errorf("%q: %d more, %v", test.text, more, err)
		}
		var all []string
		for _, m := range found {
			s := m.Name + " " + map[bool]string{false: "~"}[m.Exact] + m.What + "=" + m.Value
			if !m.Deleted.IsZero() {
				s += " deleted"
			}
			all = append(all, s)
		}
		if got := strings.Join(all, "; "); got != test.want {
			t.Errorf("%q is found in %q, want %q", test.text, got, test.want)
		}
	}
}

func TestExactFindsGoBeforePartsAndTheRestIsCounted(t *testing.T) {
	t.Parallel()
	l := customers(t)
	for _, name := range []string{"a", "ab", "abc"} {
		mustAdd(t, l, Account{Name: name, Mode: ATRN, Domains: []string{name + ".test"}})
	}
	for _, test := range []struct {
		text  string
		limit int
		want  string
	}{
		{"ab", 5, "ab abc 0"},
		{"ab", 1, "ab 1"},
		{"K-7", 1, "acme 2"},
		{"example", 2, "acme bolt 3"}, // a deleted account's domains are its no more
		{"a", 3, "a ab abc 5"},
	} {
		found, more, err := l.Find(t.Context(), test.text, test.limit)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, m := range found {
			got += m.Name + " "
		}
		if got += fmt.Sprint(more); got != test.want {
			t.Errorf("the first %d of %q are %q, want %q", test.limit, test.text, got, test.want)
		}
	}
}
