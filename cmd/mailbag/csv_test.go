package main

import (
	"context"
	"database/sql"
	"encoding/csv"
	"errors"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mailbag/meter"
)

func FuzzReadCSV(f *testing.F) {
	for _, seed := range []string{
		"", "name\n", "name,mode,domains\nacme,backup,acme.example\n", "\ufeffname;mode;domains\r\nacme;atrn;a.example,b.example\r\n;;\r\n",
		"name\tmode\tdomains\tmailboxes\rdent\tpop3\tdent.example\t\"\"\"a b\"\"@dent.example\"\r", "name,note\nacme,'=1\nacme,-\nhooli,-\n",
		"name,mode\nacme,\"backup\nford,etrn\n", "name,mode\na\"b,c\n", "\xff\xfen\x00", "name,contact\nx,m\xfcller\n", "naem,mode,mode,\n1E+05,#N/A\n",
		"sep=;\nname;note\nacme;x", "\"name\",\"note\"\r\r\nAcme,x\r\r\nname,note\r\r\n", "name,note\racme,\"x\ny\"\r", "PK\x03\x04", "kunde;name;modus;\nx;acme\n",
	} {
		f.Add([]byte(seed))
	}
	all := directoryOf(f, []meter.Account{*freshAccount("acme", meter.Backup), *freshAccount("hooli", meter.POP3)})
	f.Fuzz(func(t *testing.T, text []byte) {
		file := readCSV("file", text)
		drafts := file.drafts(all)
		for _, fault := range file.faults {
			if fault.line < 1 || fault.line > 1+strings.Count(string(text), "\n")+strings.Count(string(text), "\r") {
				t.Errorf("%q: %v is on line %d", text, fault.err, fault.line)
			}
		}
		for _, told := range file.told() {
			if strings.ContainsAny(told.Error(), "\x00\x1b\n\r") {
				t.Errorf("%q is told as %q", text, told)
			}
		}
		for _, d := range drafts {
			if err := d.after.Validate(); err != nil && len(file.faults) == 0 {
				t.Errorf("%q makes an invalid account: %v", text, err)
			}
		}
	})
}

// directoryOf is that of a ledger with these accounts.
func directoryOf(t testing.TB, accounts []meter.Account) *meter.Directory {
	t.Helper()
	l, err := meter.Open(context.Background(), filepath.Join(t.TempDir(), "mailbag.db"), meter.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var amendments []meter.Amendment
	for _, a := range accounts {
		amendment := meter.Amendment{After: a}
		if a.Mode == meter.POP3 && len(a.Domains) > 0 {
			amendment.Added = []string{"'=a b@" + a.Domains[0], "-@" + a.Domains[0], "info@" + a.Domains[0]}
			slices.Sort(amendment.Added)
		}
		amendments = append(amendments, amendment)
	}
	if err := l.Amend(context.Background(), 0, amendments); err != nil {
		t.Fatal(err)
	}
	d, err := l.Load(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// anyAccounts are accounts with all kinds of values.
func anyAccounts(n int) []meter.Account {
	r := rand.New(rand.NewPCG(1, 2))
	pick := func(texts ...string) string { return texts[r.IntN(len(texts))] }
	amount := func() int64 { return r.Int64N(2) * r.Int64N(1<<40) }
	var all []meter.Account
	for i := range n {
		name := "a" + strings.Repeat("x", i%20) + "-" + string(rune('a'+i%26)) + string(rune('a'+i/26%26))
		a := freshAccount(name, meter.Modes[i%len(meter.Modes)])
		a.Domains = []string{name + ".example", "xn--bcher-kva." + name + ".example"}
		a.Customer = pick("", "K-1", "-", "'=1", "=1+1", "''", "0012", "1E+05", "#N/A", "a, b; c")
		a.Note = pick("", "-", "\"quoted\"", "pays; late, always", "müller", "+1", "01.02.2026")
		a.Terms = meter.Terms{Messages: amount(), Bytes: amount(), MaxTiers: amount(), WaitingMessages: amount(), WaitingBytes: amount(),
			BasePrice: meter.Price{Set: r.IntN(2) == 0}, TierPrice: meter.Price{Set: true, Cents: meter.Cents(amount())}}
		a.OnLimit = meter.OnLimit(pick("", "bill", "defer", "reject"))
		a.Contact = pick("", "=b@elsewhere.example", "boss@elsewhere.example", `"a b"@elsewhere.example`)
		a.Suspended, a.CRAMMD5, a.CatchAll = r.IntN(2) == 0, r.IntN(2) == 0, r.IntN(2) == 0
		a.Hold = time.Duration(r.Int64N(2)*r.Int64N(100*86400)) * time.Second
		if a.Mode == meter.ETRN {
			a.Host = "192.0.2.1:2525"
			a.Networks = []netip.Prefix{netip.MustParsePrefix("2001:db8::/48"), netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("10.0.0.0/8")}
		}
		all = append(all, *a)
	}
	return all
}

func TestWhatAnExportWritesChangesNothing(t *testing.T) {
	t.Parallel()
	all := directoryOf(t, anyAccounts(400))
	text := exported(t, all)
	file := readCSV("file", []byte(text))
	drafts := file.drafts(all)
	if len(file.faults) > 0 || len(drafts) != all.Len() {
		t.Fatalf("%d of %d accounts were read, %v", len(drafts), all.Len(), file.told())
	}
	for _, d := range drafts {
		if d.changes() {
			t.Errorf("%v", d.differences())
		}
	}
}

func exported(t *testing.T, all *meter.Directory) string {
	t.Helper()
	var b strings.Builder
	w := csv.NewWriter(&b)
	if err := w.WriteAll(tableOf(all)); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestAnImportOfAnExportMakesTheSameAccounts(t *testing.T) {
	t.Parallel()
	accounts := anyAccounts(200)
	for i := range accounts { // a number that looks as a spreadsheet spoils it is no new account's
		if spoiled(accounts[i].Customer) != "" {
			accounts[i].Customer = ""
		}
	}
	all := directoryOf(t, accounts)
	text := exported(t, all)
	w := newWorkplace(t, storyMail{})
	if err := os.WriteFile(w.path("all.csv"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, _, errs := w.run("account", "import", w.path("all.csv"), "--force", "--passwords", w.path("passwords.csv")); status != done {
		t.Fatalf("the import ended with %d: %s", status, errs)
	}
	if _, out, _ := w.run("account", "export", "--csv"); strings.ReplaceAll(out, "\r\n", "\n") != text {
		t.Errorf("what is exported again differs:\n%s\n%s", text, out)
	}
}

// A file of passwords that are nobody's would be taken for one of passwords that work.
func TestPasswordsOfAFailedImportAreNotLeft(t *testing.T) {
	t.Parallel()
	w := newWorkplace(t, storyMail{})
	w.must("account", "add", "acme", "--mode", "backup", "--domain", "acme.example")
	db, err := sql.Open("sqlite3", w.path("mailbag.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec("CREATE TRIGGER broken BEFORE INSERT ON credential BEGIN SELECT no_such_function(); END"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.path("new.csv"), []byte("name,mode,domains\nbolt,pop3,bolt.example\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	status, _, errs := w.run("account", "import", w.path("new.csv"), "--passwords", w.path("passwords.csv"))
	if status != failed || !strings.Contains(errs, "nothing was imported: the ledger is unavailable") {
		t.Errorf("the import ended with %d: %s", status, errs)
	}
	if _, err := os.Stat(w.path("passwords.csv")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file of passwords: %v", err)
	}
}
