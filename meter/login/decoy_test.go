package login

import (
	"bytes"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"mailbag/meter"
)

// brought is a verifier of the right password that another program has made.
func brought(t testing.TB, form meter.Form) *meter.Verifier {
	t.Helper()
	v := &meter.Verifier{Salt: bytes.Repeat([]byte{'s'}, form.Salt), Iterations: form.Iterations}
	var err error
	if v.StoredKey, v.ServerKey, err = scramKeys(right, v.Salt, v.Iterations); err != nil {
		t.Fatal(err)
	}
	return v
}

func formOf(v *meter.Verifier) meter.Form {
	return meter.Form{Iterations: v.Iterations, Salt: len(v.Salt)}
}

func (g *gate) mailbox(t testing.TB, local string, v *meter.Verifier) {
	t.Helper()
	err := g.ledger.AddMailbox(t.Context(), "boxes", meter.Address{Local: local, Domain: "boxes.example"}, v)
	if err == nil {
		g.directory, err = g.ledger.Load(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestDecoyIsTheSameInEveryProcessAndMatchesNothing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "mailbag.db")
	load := func(path string) *meter.Directory {
		t.Helper()
		l, err := meter.Open(t.Context(), path, meter.Options{Create: true})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		d, err := l.Load(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	d := load(path)
	first := decoy(d, "nobody")
	if diff := cmp.Diff(first, decoy(load(path), "nobody")); diff != "" {
		t.Errorf("another process has another decoy:\n%s", diff)
	}
	real, _ := verifiers()
	if formOf(first) != formOf(real) || len(first.StoredKey) != len(real.StoredKey) || len(first.CRAMMD5) != len(real.CRAMMD5) {
		t.Errorf("a decoy can be told from a verifier: %+v", first)
	}
	if bytes.Equal(first.Salt, decoy(d, "somebody").Salt) {
		t.Error("two log-ins have the same salt")
	}
	if bytes.Equal(first.Salt, decoy(load(filepath.Join(t.TempDir(), "mailbag.db")), "nobody").Salt) {
		t.Error("two ledgers have the same salt")
	}
	for _, password := range []string{"", "secret"} {
		if matches(first, password) {
			t.Errorf("the decoy matches %q", password)
		}
	}
}

// Among mailboxes some of which were brought from elsewhere, those that do not exist look as often as if they were.
func TestDecoysHaveTheFormsOfThoseThatExist(t *testing.T) {
	t.Parallel()
	g := newGate(t, MailboxNames)
	here, elsewhere := meter.Form{Iterations: scramIterations, Salt: scramSalt}, meter.Form{Iterations: 4096, Salt: 40}
	for i := range 2 {
		g.mailbox(t, fmt.Sprint("brought", i), brought(t, elsewhere))
	}
	const logins = 3000
	choose := func() (forms []meter.Form, count map[meter.Form]int) {
		count = map[meter.Form]int{}
		for i := range logins {
			f := pretend(g.directory, fmt.Sprintf("nobody%d@boxes.example", i))
			forms = append(forms, f)
			count[f]++
		}
		return forms, count
	}
	before, count := choose()
	if n := count[elsewhere]; n < logins*6/10 || n > logins*73/100 || count[here] != logins-n {
		t.Errorf("two mailboxes of three were brought, and the decoys are %v", count)
	}
	if again, _ := choose(); !cmp.Equal(before, again) {
		t.Error("decoys change while nothing does")
	}
	// A decoy changes as a mailbox does that is given a password here: to that form, and so often, and with its salt.
	login := func(i int) string { return fmt.Sprintf("nobody%d@boxes.example", i) }
	old := g.directory
	_, ours := verifiers()
	if err := g.ledger.SetPassword(t.Context(), "boxes", "brought0@boxes.example", ours); err != nil {
		t.Fatal(err)
	}
	g.directory, _ = g.ledger.Load(t.Context())
	after, _ := choose()
	changed := 0
	for i := range after {
		if after[i] == before[i] {
			continue
		}
		changed++
		if after[i] != here {
			t.Fatalf("%s went from %v to %v", login(i), before[i], after[i])
		}
		if a, b := decoy(old, login(i)).Salt, decoy(g.directory, login(i)).Salt; bytes.HasPrefix(a, b) {
			t.Fatalf("%s has the same salt after its password was changed", login(i))
		}
	}
	if changed < logins*27/100 || changed > logins*40/100 {
		t.Errorf("one mailbox of three changed, and %d decoys of %d", changed, logins)
	}
}

// first is what SCRAM answers to a name.
func (g *gate) first(t testing.TB, name string) meter.Form {
	t.Helper()
	var form meter.Form
	client := newSCRAM256(name, wrong, "").WithMinIterations(1)
	talk := client.NewConversation()
	said, _ := talk.Step("")
	challenge, _, err := g.start(t, outside, "SCRAM-SHA-256").Next([]byte(said))
	if err != nil {
		t.Fatal(err)
	}
	var nonce, salt string
	if _, err := fmt.Sscanf(string(bytes.ReplaceAll(challenge, []byte{','}, []byte{' '})), "r=%s s=%s i=%d", &nonce, &salt, &form.Iterations); err != nil {
		t.Fatalf("%s: %v", challenge, err)
	}
	form.Salt = len(salt) // in base64
	return form
}

func TestUnknownLogInShowsWhatItsNeighboursShow(t *testing.T) {
	t.Parallel()
	g := newGate(t, MailboxNames)
	if err := g.ledger.RemoveMailbox(t.Context(), "boxes", meter.Address{Local: "kim", Domain: "boxes.example"}); err != nil {
		t.Fatal(err)
	}
	g.mailbox(t, "lee", brought(t, meter.Form{Iterations: 4096, Salt: 9}))
	want := g.first(t, "lee@boxes.example")
	for _, name := range []string{"nobody@boxes.example", "kim@boxes.example", "nobody%boxes.example"} {
		if got := g.first(t, name); got != want {
			t.Errorf("%s shows %v, and lee %v", name, got, want)
		}
	}
	account := g.first(t, "acme")
	if account == want || g.first(t, "nobody") != account || g.first(t, "@nowhere.example") != account {
		t.Errorf("accounts show %v, unknown ones %v", account, g.first(t, "nobody"))
	}
}

func TestLogInOfAnotherServiceShowsTheSameInBoth(t *testing.T) {
	t.Parallel()
	g := newGate(t, AccountNames) // with which no mailbox can log in
	want, err := g.ledger.Verifier(t.Context(), "kim@boxes.example")
	if err != nil {
		t.Fatal(err)
	}
	a, err := g.attempt(t.Context(), local, "PLAIN", "kim@boxes.example")
	if err != nil {
		t.Fatal(err)
	}
	if a.known {
		t.Error("it is known here")
	}
	if diff := cmp.Diff(want, a.verifier); diff != "" {
		t.Errorf("(-elsewhere +here):\n%s", diff)
	}
}

// The time that a wrong password takes is that of its derivation.
func TestUnknownLogInIsDerivedWithAsManyIterations(t *testing.T) {
	t.Parallel()
	g := newGate(t, MailboxNames)
	if err := g.ledger.SetPassword(t.Context(), "boxes", "kim@boxes.example", brought(t, meter.Form{Iterations: 5000, Salt: 16})); err != nil {
		t.Fatal(err)
	}
	g.directory, _ = g.ledger.Load(t.Context())
	for _, name := range []string{"kim@boxes.example", "nobody@boxes.example"} {
		if a, err := g.attempt(t.Context(), local, byPassword, name); err != nil || a.verifier.Iterations != 5000 {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
	}
}
